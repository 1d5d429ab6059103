"""python -m benchmarks.adapters_linear: the online ridge of many subjects, fitted at once, beside scikit-learn's Ridge.

Simulated people, repeated under other names with other noise. Two figures, CPU seconds on one thread: all midnights of
all records, and the last midnight alone, when a day of readings has come (from readings to weights). The peer
fits one Ridge a person and group of horizons on all windows of that person's past: the last midnight for all of a
sample of people, and every midnight for some of them, scaled up. The largest difference of any weight is printed.
"""

import argparse
import time
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from hallmark.build import build
from hallmark.contracts import Prepared
from hallmark.families.forecasting.base_fitting import fit_assembler, population_forecast
from hallmark.families.forecasting.online_ridge import OnlineRidge, TrainingWindows, training_windows
from hallmark.families.forecasting.panel import TimeGrid, build_panel
from hallmark.families.forecasting.refresh import VALUE, initial_state, readings_of, update
from runtime.compose import composed as compose

SAMPLE = 20  # people of the peer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--days", type=int, default=14)
    arguments = parser.parse_args()
    params = compose(f"data.days={arguments.days}")
    task, learner = build(params["task"]), build(params["learner"])
    config, grid = learner.history.ridge, task.grid
    clean = task.clean(build(params["data"]).load())
    prepared = Prepared(clean.rows, clean.subjects, task.split(clean))
    split_panel = task.split_panel(prepared)
    assembler = fit_assembler(
        split_panel, *learner.origins_to_fit(split_panel), task.scale, learner.history, learner.forecast
    )
    panel = build_panel(_repeated(clean.rows, arguments.people), "glucose_mg_dl", grid)
    population = population_forecast(assembler, panel)
    print(f"{arguments.people} people × {arguments.days} days, {np.count_nonzero(panel.values > 0):,} readings")

    clock = time.process_time()
    windows = training_windows(panel, panel.origins, config, task.scale, population)
    reading = time.process_time() - clock
    state = OnlineRidge(config, grid, arguments.people, windows.x.shape[1])
    first_day = np.full(arguments.people, windows.day.min() - 1)
    midnights = int(windows.day.max() - first_day[0]) + 1
    for _ in state.replay(windows, first_day, np.full(arguments.people, midnights - 1)):
        pass
    today = int(windows.day.max())
    print(f"every midnight        {time.process_time() - clock:7.1f} CPU s  (at most 60; {reading:.1f} of it features)")

    clock = time.process_time()
    recent = panel.origins[panel.day[panel.origins] >= today - 3]
    fresh = training_windows(panel, recent, config, task.scale, population)
    for _ in state.replay(fresh, np.full(arguments.people, today), np.ones(arguments.people, dtype=np.int64)):
        pass
    print(f"one midnight          {time.process_time() - clock:7.1f} CPU s  (at most 5)")

    rows = readings_of(panel)
    new = rows["timestamp"] >= pd.Timestamp(0) + pd.Timedelta(days=int(panel.day.max()))
    before = build_panel(rows[~new], VALUE, grid)
    _, refresh_state = initial_state(before, assembler, "", "online_ridge", population_forecast(assembler, before))
    clock = time.process_time()
    taken = update(refresh_state, rows[new], VALUE, assembler, partial(population_forecast, assembler))
    print(
        f"a day taken up        {time.process_time() - clock:7.1f} CPU s  from {taken.counts['readings']:,} clean rows:"
    )
    print("                      two midnights, statistics, everybody's newest rows")

    _refit(config, grid, windows, state, 0, today)  # imports
    clock = time.process_time()
    difference = max(_refit(config, grid, windows, state, person, today) for person in range(SAMPLE))
    last = (time.process_time() - clock) / SAMPLE * arguments.people
    clock = time.process_time()
    for day in np.unique(windows.day):
        for person in range(2):
            _refit(config, grid, windows, state, person, int(day))
    every = (time.process_time() - clock) / 2 * arguments.people
    print(f"scikit-learn, one     {last:7.1f} CPU s  without features ({SAMPLE} people, scaled up)")
    print(f"scikit-learn, every   {every:7.1f} CPU s  without features (2 people, scaled up)")
    print(f"largest difference of a weight {difference:.1e} mg/dL, largest weight {np.abs(state.weights).max():.0f}")


def _repeated(rows: pd.DataFrame, people: int) -> pd.DataFrame:
    """The cohort under other names, with a sensor's noise of 3 mg/dL."""
    names = sorted(rows["subject_id"].unique())
    generator = np.random.default_rng(0)
    copies = []
    for start in range(0, people, len(names)):
        copy = rows[rows["subject_id"].isin(names[: people - start])].copy()
        copy["subject_id"] = copy["subject_id"] + f"-{start:05d}"
        noise = generator.normal(0, 3, len(copy))
        copy["glucose_mg_dl"] = (copy["glucose_mg_dl"] + noise).clip(40, 400).astype(np.float32)
        copies.append(copy)
    return pd.concat(copies, ignore_index=True)


def _refit(config: Any, grid: TimeGrid, windows: TrainingWindows, state: OnlineRidge, person: int, day: int) -> float:
    """Fit everything anew for one person; returns the largest difference from the state's weights."""
    from sklearn.linear_model import Ridge

    worst = 0.0
    mine = windows.subject == person
    for group, part in enumerate(config.groups(grid)):
        past = mine & (windows.day[:, group] <= day)
        if not past.any():
            continue
        x, y = windows.x[past].astype(np.float64), windows.y[past][:, part].astype(np.float64)
        share = len(y) / np.maximum((~np.isnan(y)).sum(axis=0), 1)
        young = 3.0 if len(np.unique(windows.day[past, group])) <= config.young_days else 1.0
        solved = Ridge(alpha=config.penalty / young, fit_intercept=False).fit(x, np.nan_to_num(y) * share).coef_.T
        worst = max(worst, float(np.abs(solved - state.weights[person][:, part]).max()))
        for penalty in config.other_penalties:
            Ridge(alpha=penalty / young, fit_intercept=False).fit(x, np.nan_to_num(y) * share)
    return worst


if __name__ == "__main__":
    main()
