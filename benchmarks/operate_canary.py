"""python -m benchmarks.operate_canary: how often a challenger is rolled back, by how much worse it truly is.

Twenty people for 28 days. The losses of a person's days have a standard deviation of 1; the challenger's differ from
the champion's by the true difference, by a person's own (0.06) and by a day's (0.13, resembling the day before), as
those of two forecasters did on the simulated cohort (0.03 to 0.08, and 0.10 to 0.20). The outcomes of a day arrive 1 to
48 hours after it, of one day in five never. Every day all rules see what has arrived: ours, a t-test of person-days,
and a z-test of requests, which takes each for independent.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from benchmarks.bounds import interval
from benchmarks.operate_drift import autoregressive
from hallmark.watch.canary import CanaryRule, judge_canary

PEOPLE, DAYS, REQUESTS = 20, 28, 40
PERSON, DAY, MEMORY = 0.06, 0.13, 0.3
RULE = CanaryRule(margin=0.02, error_rate=0.1, effect=0.1, fewest_subjects=5, fewest_pairs=20)
DIFFERENCES = (0.0, 0.02, 0.15, 0.3)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    options = parser.parse_args()
    rules: dict[str, Callable[[pd.DataFrame], bool]] = {
        "ours": lambda seen: judge_canary(seen, RULE).decision == "roll_back",
        "t, person-days": t_test,
        "z, requests": z_test,
    }
    print(f"{'rule':16} truly worse by {'rolled back':>22} {'by day 5':>22}  median day  CPU ms a look")
    for difference in DIFFERENCES:
        runs = [simulate(seed, difference) for seed in range(options.runs)]
        for name, worse in rules.items():
            start = time.process_time()
            days = [first_day(losses, worse) for losses in runs]
            looks = sum(day or DAYS for day in days)
            spent = 1000 * (time.process_time() - start) / looks
            ended = [day for day in days if day]
            early = sum(day <= 5 for day in ended)
            shares = [interval(count, len(days)) for count in (len(ended), early)]
            median = f"{np.median(ended):.0f}" if ended else "–"
            print(f"{name:16} {difference:14} {shares[0]:>22} {shares[1]:>22} {median:>11} {spent:14.2f}", flush=True)


def simulate(seed: int, difference: float) -> pd.DataFrame:
    """Simulate the losses of both models, and when their outcomes arrive, in days."""
    generator = np.random.default_rng(seed)
    shape = (DAYS, PEOPLE)
    champion = 5 + generator.normal(0, 0.6, PEOPLE) + autoregressive(generator.normal(size=shape), MEMORY) * 0.8
    own = difference + generator.normal(0, PERSON, PEOPLE)
    challenger = champion + own + autoregressive(generator.normal(size=shape), MEMORY) * DAY
    day = np.repeat(np.arange(DAYS), PEOPLE)
    losses = pd.DataFrame(
        {
            "subject_id": np.tile([f"person-{number:02}" for number in range(PEOPLE)], DAYS),
            "arrives": day + 1 + generator.uniform(1, 48, len(day)) / 24,
            "champion": champion.ravel(),
            "challenger": challenger.ravel(),
        }
    )
    return losses[generator.random(len(day)) > 0.2]


def first_day(losses: pd.DataFrame, worse: Callable[[pd.DataFrame], bool]) -> int | None:
    """Return the day at whose end the rule rolls back; None if it never does."""
    for day in range(1, DAYS + 1):
        seen = losses[losses["arrives"] <= day]
        if len(seen) and worse(seen):
            return day
    return None


def t_test(seen: pd.DataFrame) -> bool:
    """Compare person-days by a one-sided t-test at 5%, as if it were done once."""
    from scipy.stats import ttest_1samp

    difference = seen["challenger"] - seen["champion"]
    return len(seen) > 2 and float(ttest_1samp(difference, 0, alternative="greater").pvalue) < 0.05


def z_test(seen: pd.DataFrame) -> bool:
    """Take the requests of a day for independent, each with the day's difference and noise of its own."""
    difference = (seen["challenger"] - seen["champion"]).to_numpy()
    variance = (difference.var() + 1.0) / (REQUESTS * len(difference)) if len(difference) > 2 else np.inf
    return bool(difference.mean() / np.sqrt(variance) > 1.645)


if __name__ == "__main__":
    main()
