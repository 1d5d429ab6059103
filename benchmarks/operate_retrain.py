"""python -m benchmarks.operate_retrain --bundle bundles/glucose: when fitting adapters again pays, against hindsight.

People whom the model has never seen live through a simulated year, and become other people at a random day. Their loss
is computed for every day with adapters of every age: mean absolute error of the median up to two hours. Policies then
decide day by day when to fit again; the oracle knows all losses and chooses the cheapest days by dynamic programming,
person by person. A fit costs a share of the mean loss of a day, because seconds and errors have no common unit: the
table says what each policy costs at several such prices.

Policies: never; every 7 days; every 100 readings (several times a day, each paid for); ours as configured
(`hallmark.watch.retraining`: `decide`, then challenger against champion on the days held out).
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.spent import cpu_seconds, peak_gb
from hallmark.build import build
from hallmark.families.forecasting.base_fitting import population_forecast
from hallmark.families.forecasting.base_model import load_base
from hallmark.families.forecasting.history import build_history
from hallmark.families.forecasting.panel import Panel, build_panel
from hallmark.families.forecasting.personalisation import load_personalisation
from hallmark.prove.bundle import open_bundle
from hallmark.watch.retraining import RetrainRule, Standing, decide, judge_challenger
from runtime.compose import compose_operation, composed

AGES = (0, 1, 2, 3, 4, 5, 7, 10, 14, 21, 30, 45, 70, 110, 180, 360)
BEGIN = 30  # days of history before the policies begin
LONGEST_MINUTES = 120
READINGS_A_DAY = 288
PRICES = (0.0, 0.0001, 0.001, 0.01, 0.05)  # of a fit, as a share of the mean loss of a day
Losses = Any
"""(S, D, A): loss of a subject's day with an adapter of an age, NaN where nothing was forecast."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("bundle"), help="of a forecasting task")
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--days", type=int, default=395)
    parser.add_argument("--windows", type=int, default=4, help="forecasts of a day that are scored")
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--unchanged", action="store_true", help="nobody becomes somebody else")
    parser.add_argument("--data", nargs="*", default=[], help="settings of a real set instead, such as data=azt1d")
    options = parser.parse_args()
    task = build(open_bundle(options.bundle)[0].spec["task"], "task")
    start, cpu = time.perf_counter(), cpu_seconds()
    rows = read(task, options.data) if options.data else simulate(task, options)
    found, without, seconds_a_fit = losses(options.bundle, task, rows, options.windows)
    spent = f"{time.perf_counter() - start:.0f} s, {cpu_seconds() - cpu:.0f} CPU s, {peak_gb():.1f} GB"
    people, days, _ = found.shape
    print(f"{people} people, {days} days, {options.windows} forecasts a day with adapters of {len(AGES)} ages: {spent}")
    print(f"fitting: {seconds_a_fit:.3f} CPU s a person and year-long history\n")
    by_age = np.asarray([np.nanmean(found[..., place]) for place, age in enumerate(AGES) if age < days - 1])
    print("age of the adapter, days   " + " ".join(f"{age:6d}" for age in AGES[: len(by_age)]))
    print("loss against age 0         " + " ".join(f"{value / by_age[0] - 1:+6.1%}" for value in by_age))
    shared = ~np.isnan(found) & ~np.isnan(without)[..., None]
    against = [
        np.where(shared[..., place], found[..., place], 0).sum() / np.where(shared[..., place], without, 0).sum() - 1
        for place in range(len(by_age))
    ]
    print("loss against no past       " + " ".join(f"{value:+6.1%}" for value in against) + "\n")
    rule = build(compose_operation([]))["retrain"]
    table(found, rule)


def simulate(task: Any, options: argparse.Namespace) -> pd.DataFrame:
    """Return clean rows of people of whom each becomes somebody else at a random day."""
    data = {**composed()["data"], "subjects": options.people, "days": options.days}
    first, second = (build({**data, "seed": options.seed + k}).load() for k in (0, 1))
    if not options.unchanged:
        rng = np.random.default_rng(options.seed)
        names = sorted(first.rows["subject_id"].unique())
        days = rng.integers(BEGIN + 30, max(options.days - 60, BEGIN + 31), len(names))
        start = first.rows["timestamp"].min()
        changes = dict(zip(names, start + pd.to_timedelta(days, "D"), strict=True))
        parts = [
            raw.rows[(raw.rows["timestamp"] < raw.rows["subject_id"].map(changes)) == before]
            for raw, before in ((first, True), (second, False))
        ]
        first = dataclasses.replace(first, rows=pd.concat(parts).sort_values(["subject_id", "timestamp"]))
    rows: pd.DataFrame = task.clean(first).rows
    return rows


def read(task: Any, settings: list[str]) -> pd.DataFrame:
    """Return clean rows of a real set."""
    rows: pd.DataFrame = task.clean(build(composed(*settings)["data"]).load()).rows
    return rows


def losses(bundle: Path, task: Any, rows: pd.DataFrame, windows: int) -> tuple[Losses, Any, float]:
    """Compute the loss of every subject's day with adapters of every age.

    Returns:
        The losses, those of the base model for somebody without a past, (S, D), and CPU seconds of fitting a subject.
    """
    base = load_base(bundle / "base")
    panel = build_panel(rows, task.value, task.grid)
    cpu = cpu_seconds()
    assembler = base.assembler
    history = build_history(panel, assembler.history, assembler.scale, population_forecast(assembler, panel))
    seconds = (cpu_seconds() - cpu) / len(panel.subjects)
    methods = dict.fromkeys(panel.subjects, "online_ridge")
    model = dataclasses.replace(load_personalisation(bundle / "subjects", base), methods=methods)
    median = list(open_levels(bundle)).index(0.5)
    steps = np.asarray(task.grid.horizons_minutes) <= LONGEST_MINUTES
    longest = int(history.days.max())
    found = np.full((len(panel.subjects), longest, len(AGES)), np.nan)
    without = np.full(found.shape[:2], np.nan)
    for code, subject in enumerate(panel.subjects):
        origins = evenly(panel, code, windows)
        day = panel.day[origins].astype(np.int64) - history.first_day[code]
        context, minute = panel.context(origins), panel.minute[origins].astype(np.int64)
        target = panel.target(origins)[:, steps]
        nobody = base.forecast(context, minute, None, None)[1][:, steps, median]
        error = pd.DataFrame(np.abs(nobody - target)).mean(axis=1).dropna()
        means = error.groupby(day[error.index]).mean()
        without[code, means.index] = means.to_numpy()
        for place, age in enumerate(AGES):
            known = day >= age
            rows_of = history.first_row[code] + day[known] - age
            _, quantiles = model.forecast(subject, context[known], minute[known], history, rows_of)
            error = pd.DataFrame(np.abs(quantiles[:, steps, median] - target[known])).mean(axis=1).dropna()
            means = error.groupby(day[known][error.index]).mean()
            found[code, means.index, place] = means.to_numpy()
    return found, without, seconds


def evenly(panel: Panel, code: int, windows: int) -> Any:
    """Return at most so many origins of every day of a subject, evenly spaced."""
    origins = panel.origins[panel.subject[panel.origins] == code]
    days = np.split(origins, np.flatnonzero(np.diff(panel.day[origins])) + 1)
    return np.concatenate([day[:: max(1, len(day) // windows)][:windows] for day in days])


def open_levels(bundle: Path) -> tuple[float, ...]:
    """Return the quantile levels of a bundle's forecasts."""
    learner = build(open_bundle(bundle)[0].spec["learner"], "learner")
    levels: tuple[float, ...] = learner.forecast.quantile_levels
    return levels


def table(found: Losses, rule: RetrainRule) -> None:
    """Print what every policy costs."""
    by_fit = [matrix(found[subject]) for subject in range(len(found))]
    usual = float(np.nanmean(found[:, BEGIN:, 0]))
    policies: dict[str, Callable[[], tuple[list[list[int]], float]]] = {
        "never": lambda: ([[BEGIN]] * len(found), 1.0),
        "every 7 days": lambda: ([list(range(BEGIN, found.shape[1], 7))] * len(found), 1.0),
        "every 100 readings": lambda: ([list(range(BEGIN, found.shape[1]))] * len(found), READINGS_A_DAY / 100),
        "ours": lambda: (ours(found, by_fit, rule), 2.0),
        "ours, no comparison": lambda: (ours(found, by_fit, rule, compare=False), 1.0),
    }
    columns = " ".join(f"{price:>9.2%}" for price in PRICES)
    print(
        f"{'policy':22} {'loss':>8} {'fits':>7}   cost against the oracle's, if a fit costs this share of a day's loss"
    )
    print(f"{'':22} {'':>8} {'a year':>7}   {columns}")
    oracles = [[oracle(one, price * usual) for one in by_fit] for price in PRICES]
    for name, run in policies.items():
        chosen, each = run()
        loss = np.asarray([walk(one, days) for one, days in zip(by_fit, chosen, strict=True)])
        fits = np.asarray([each * (len(days) - 1) for days in chosen])
        ratios = [
            f"{(loss.sum() + price * usual * fits.sum()) / np.sum(best):9.3f}"
            for price, best in zip(PRICES, oracles, strict=True)
        ]
        scored = sum(int((~np.isnan(one[BEGIN])).sum()) for one in by_fit)
        year = fits.mean() * 365 / max(found.shape[1] - BEGIN, 1)
        print(f"{name:22} {loss.sum() / scored:8.3f} {year:7.0f}   {' '.join(ratios)}")


def standing(name: str, days: int, rule: RetrainRule) -> Standing:
    """Return what is known of somebody whose adapter was fitted some days ago, with readings of every day since."""
    return Standing(name, READINGS_A_DAY * days, READINGS_A_DAY * max(0, days - rule.holdout_days), days)


def matrix(loss: Any) -> Any:
    """Return (fit day, day) → loss of a day with the adapter of a fit, by age between those that were computed."""
    days = len(loss)
    out = np.full((days, days), np.nan)
    for day in range(days):
        known = ~np.isnan(loss[day])
        if known.any():
            ages = day - np.arange(day + 1)
            out[: day + 1, day] = np.interp(ages, np.asarray(AGES)[known], loss[day][known])
    return out


def walk(by_fit: Any, fits: list[int]) -> float:
    """Add up the losses from `BEGIN` on, of adapters that were fitted at some days."""
    total = 0.0
    for fit, end in zip(fits, [*fits[1:], len(by_fit)], strict=True):
        total += float(np.nansum(by_fit[fit, fit:end]))
    return total


def oracle(by_fit: Any, price: float) -> float:
    """Return the smallest sum of losses and prices of fits, with all losses known; the fit of `BEGIN` is free."""
    days = len(by_fit)
    sums = np.concatenate([np.zeros((days, 1)), np.nancumsum(np.nan_to_num(by_fit), axis=1)], axis=1)
    best = np.full(days + 1, np.inf)
    best[days] = 0.0
    for fit in range(days - 1, BEGIN - 1, -1):
        ends = np.arange(fit + 1, days + 1)
        best[fit] = (sums[fit, ends] - sums[fit, fit] + best[ends] + price * (ends < days)).min()
    return float(best[BEGIN])


def ours(found: Losses, by_fit: list[Any], rule: RetrainRule, compare: bool = True) -> list[list[int]]:
    """Return the days on which the rule fits each subject again."""
    fits = [[BEGIN] for _ in by_fit]
    names = [f"p{place:04d}" for place in range(len(by_fit))]
    for today in range(BEGIN + 1, found.shape[1]):
        standings = [standing(name, today - own[-1], rule) for name, own in zip(names, fits, strict=True)]
        decisions = [d for d in decide(standings, rule) if d.refit]
        chosen = [d.subject_id for d in decisions]
        if not chosen:
            continue
        cutoff = today - rule.holdout_days
        pairs = [
            (name, by_fit[place][fits[place][-1], day], by_fit[place][cutoff, day])
            for place, name in enumerate(names)
            if name in chosen and cutoff > fits[place][-1]
            for day in range(cutoff, today)
        ]
        losses = pd.DataFrame(pairs, columns=["subject_id", "champion", "challenger"])
        result = judge_challenger(losses, chosen, rule, sum(d.stale for d in decisions) / len(decisions))
        for place, name in enumerate(names):
            if name in chosen and (not compare or (result.deploys and name not in result.taken_back)):
                fits[place].append(today)
    return fits


if __name__ == "__main__":
    main()
