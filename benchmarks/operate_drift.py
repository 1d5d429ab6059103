"""python -m benchmarks.operate_drift: false alarms without drift, days until a shift is found; peers in the same run.

Fifty people, ten features, a value every half hour: a person's own level, days that resemble their neighbours, and half
hours that resemble theirs. A person's days have a standard deviation of 0.39 and a correlation of 0.24 with the day
before, as in AZT1D, T1D-UOM, HUPA-UCM and PhysioCGM (0.31 to 0.44, and 0.22 to 0.27, in units of all readings). Nothing
drifts, until all values move by 0.3 standard deviations. Peers are used as documented: Evidently compares a day with
the reference by the test of Kolmogorov and Smirnov, ADWIN of river reads every value, and `always` alarms on every day:
it finds every shift at once.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from datetime import date, timedelta

import numpy as np
import pandas as pd

from benchmarks.bounds import lower_95, poisson_interval
from hallmark.arrays import Array
from hallmark.watch.drift import MONTH, DriftRule, find_alarms, freeze_reference

FEATURES, STEPS = 10, 48
REFERENCE, QUIET, SHIFTED = 60, 90, 10  # days
START = date(2026, 1, 1)
SHIFT = 0.3  # standard deviations of a value
LEVEL, DAILY = 0.38, 0.25  # standard deviations of people, and of the days of one
RULE = DriftRule(
    reference_days=REFERENCE, allowance=1.5, false_alarms_a_month=0.2, block_days=7, repetitions=1000, seed=0
)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200, help="simulated cohorts for our rule")
    parser.add_argument("--peer-seeds", type=int, default=3, help="simulated cohorts for each peer")
    parser.add_argument("--people", type=int, default=50)
    options = parser.parse_args()
    peers: dict[str, tuple[Callable[[Array], Array], int]] = {"ours": (ours, options.seeds)}
    if options.peer_seeds:
        peers |= {name: (peer, options.peer_seeds) for name, peer in installed().items()}
    print(f"{'':12} {'cohorts':>8} {'false alarms a month':>30} {'found within 3 days':>28} {'CPU s a cohort':>15}")
    for name, (alarms_of, seeds) in peers.items():
        false, found, spent = 0, 0, 0.0
        for seed in range(seeds):
            values = cohort(seed, options.people)
            start = time.process_time()
            alarms = alarms_of(values)  # (days, F), whether each feature alarmed
            spent += time.process_time() - start
            false += int(alarms[REFERENCE : REFERENCE + QUIET].sum())
            after = alarms[REFERENCE + QUIET : REFERENCE + QUIET + 3].any(axis=0)
            found += int(after.sum())
        months = seeds * QUIET / MONTH
        low, high = poisson_interval(false)
        share = f"{found / (seeds * FEATURES):.1%} ≥ {lower_95(found, seeds * FEATURES):.1%}"
        rate = f"{false / months:.2f} ({low / months:.2f}–{high / months:.2f})"
        print(f"{name:12} {seeds:8} {rate:>30} {share:>28} {spent / seeds:15.2f}", flush=True)


def cohort(seed: int, people: int) -> Array:
    """Simulate values, (days, people, STEPS, F), of variance 1; the last days are shifted."""
    generator, days = np.random.default_rng(seed), REFERENCE + QUIET + SHIFTED
    level = generator.normal(0, LEVEL, (people, FEATURES))
    daily = autoregressive(generator.normal(size=(days, people, FEATURES)), 0.6) * DAILY
    fast = autoregressive(generator.normal(size=(days * STEPS, people, FEATURES)), 0.7)
    fast *= np.sqrt(1 - LEVEL**2 - DAILY**2)
    values: Array = fast.reshape(days, STEPS, people, FEATURES).swapaxes(1, 2) + (level + daily)[:, :, None]
    values[-SHIFTED:] += SHIFT
    return values


def autoregressive(noise: Array, memory: float) -> Array:
    """Give noise a memory along its first axis, keeping its variance."""
    scale = np.sqrt(1 - memory**2)
    for step in range(1, len(noise)):
        noise[step] = memory * noise[step - 1] + scale * noise[step]
    return noise


def ours(values: Array) -> Array:
    """Return the alarms of `hallmark.watch.drift`."""
    days = [START + timedelta(days=number) for number in range(len(values))]
    names = [f"feature_{number}" for number in range(FEATURES)]
    figures = pd.DataFrame(values.mean(axis=2).mean(axis=1), index=pd.Index(days, name="day"), columns=names)
    found = np.zeros((len(values), FEATURES), dtype=bool)
    for alarm in find_alarms(figures, freeze_reference(figures, RULE), RULE):
        found[(alarm.day - START).days, names.index(alarm.feature)] = True
    return found


def installed() -> Mapping[str, Callable[[Array], Array]]:
    """Return the peers that can be imported."""
    peers: dict[str, Callable[[Array], Array]] = {}
    try:
        import evidently  # noqa: F401

        peers["evidently"] = with_evidently
    except ImportError:
        print("evidently is not installed")
    try:
        import river  # noqa: F401

        peers["river"] = with_river
    except ImportError:
        print("river is not installed")
    return peers | {"always": lambda values: np.ones((len(values), FEATURES), dtype=bool)}


def with_evidently(values: Array) -> Array:
    """Compare every day with the reference: Kolmogorov and Smirnov per column, p < 0.05."""
    from evidently import Report
    from evidently.presets import DataDriftPreset

    names = [f"feature_{number}" for number in range(FEATURES)]
    reference = pd.DataFrame(values[:REFERENCE].reshape(-1, FEATURES), columns=names).sample(20_000, random_state=0)
    found = np.zeros((len(values), FEATURES), dtype=bool)
    for day in range(REFERENCE, len(values)):
        current = pd.DataFrame(values[day].reshape(-1, FEATURES), columns=names)
        result = Report([DataDriftPreset(num_method="ks", num_threshold=0.05)]).run(current, reference).dict()
        for metric in result["metrics"]:
            column = metric["config"].get("column")
            if column in names:
                found[day, names.index(column)] = float(metric["value"]) < 0.05
    return found


def with_river(values: Array) -> Array:
    """Give ADWIN every value of a feature, in the order of time, people one after the other within a half hour."""
    from river.drift import ADWIN

    found = np.zeros((len(values), FEATURES), dtype=bool)
    for feature in range(FEATURES):
        detector = ADWIN()
        for day in range(len(values)):
            for value in values[day, :, :, feature].T.ravel():
                detector.update(float(value))
                found[day, feature] |= detector.drift_detected
    return found


if __name__ == "__main__":
    main()
