"""python -m benchmarks.abstention: how often a request must be refused for its gaps, by the kind of sensor.

A request is made at readings of every person, from the readings of the 48 hours before, and counts as refused when the
12 hours before it have a gap. Rules: `fixed`, a gap is more than 15 minutes whoever reads (what stood before); `own`, a
gap is more than three of the sensor's own intervals, as the product has it. Subjects: those of T1D-UOM by their sensor;
and people of AZT1D, whose sensors read every 5 minutes, as they are and thinned to 15 minutes by a clock
that runs on, the same share of readings missing in both.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hallmark.build import build
from hallmark.families.forecasting.panel import TimeGrid, build_panel, nearest_slots
from runtime.compose import composed as compose

VALUE = "glucose_mg_dl"
DRIFT = 15.2 / 15  # minutes of a 15-minute sensor's clock, as LibreView exports show


def main() -> None:
    """Print the shares of refused requests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/glucose", help="where the zips lie")
    parser.add_argument("--requests", type=int, default=200, help="a person")
    parser.add_argument("--missing", type=float, nargs="*", default=[0.0, 0.02, 0.05], help="shares of lost readings")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = clean_rows("t1d_uom", arguments.data)
    grid = build(compose("data=t1d_uom")["task"]).grid
    print("T1D-UOM, as recorded")
    by_sensor: dict[float, list[tuple[str, float, float]]] = {}
    for who, mine in rows.groupby("subject_id"):
        interval = float(build_panel(mine, VALUE, grid).interval_minutes[0])
        by_sensor.setdefault(interval, []).append((str(who), *shares(mine, grid, arguments.requests, rng)))
    for interval, people in sorted(by_sensor.items()):
        fixed, own = (np.mean([person[i] for person in people]) for i in (1, 2))
        print(f"  sensors of {interval:g} min, {len(people)} people: refused {fixed:.1%} fixed, {own:.1%} own")
        if interval > grid.step_minutes:
            for who, before, after in people:
                print(f"    {who}: {before:.1%} → {after:.1%}")
    rows = clean_rows("azt1d", arguments.data)
    people = [complete(mine, grid) for _, mine in rows.groupby("subject_id")]
    print("AZT1D without its own gaps, with readings lost at random")
    for missing in arguments.missing:
        found = []
        for mine in people:
            every5 = shares(lose(mine, missing, rng), grid, arguments.requests, rng)[1]
            every15 = shares(lose(thinned(mine), missing, rng), grid, arguments.requests, rng)
            found.append((every5, *every15))
        five, before, after = np.mean(found, axis=0)
        print(f"  {missing:.0%} lost: 5 min {five:.1%}; 15 min with jitter {before:.1%} fixed, {after:.1%} own")


def clean_rows(name: str, directory: str) -> pd.DataFrame:
    """Load and clean a public set."""
    params = compose(f"data={name}")
    params["data"]["directory"] = str(Path(directory))
    return build(params["task"]).clean(build(params["data"]).load()).rows


def shares(mine: pd.DataFrame, grid: TimeGrid, requests: int, rng: Any) -> tuple[float, float]:
    """Share of requests that a fixed gap and the sensor's own gap refuse."""
    slot = nearest_slots(mine["timestamp"].to_numpy(), grid.step_minutes)
    ends = np.flatnonzero(slot >= slot[0] + grid.context_length)
    ends = rng.choice(ends, min(requests, len(ends)), replace=False)
    refused = np.zeros((len(ends), 2), dtype=bool)
    for i, end in enumerate(ends):
        begin = np.searchsorted(slot, slot[end] - grid.context_length, side="right")
        part = mine.iloc[begin : end + 1]
        panel = build_panel(part, VALUE, grid)
        refused[i, 1] = not len(panel.origins) or panel.origins[-1] != np.flatnonzero(panel.subject >= 0)[-1]
        recent = slot[begin : end + 1]
        recent = np.concatenate(
            [
                recent[recent <= slot[end] - grid.recent_length + 1][-1:],
                recent[recent > slot[end] - grid.recent_length + 1],
            ]
        )
        covered = recent[0] <= slot[end] - grid.recent_length + 1
        refused[i, 0] = not covered or bool((np.diff(recent) > 15 // grid.step_minutes).any())
    return float(refused[:, 0].mean()), float(refused[:, 1].mean())


def complete(mine: pd.DataFrame, grid: TimeGrid) -> pd.DataFrame:
    """Fill a record's own gaps, so that what is missing is what is taken out here."""
    slot = nearest_slots(mine["timestamp"].to_numpy(), grid.step_minutes)
    every = np.arange(slot[0], min(slot[-1], slot[0] + 14 * grid.day_length))
    times = (every * grid.step_minutes).astype("datetime64[m]").astype("datetime64[s]")
    values = np.interp(every, slot, mine[VALUE]).astype(np.float32)
    return pd.DataFrame({"subject_id": mine["subject_id"].iloc[0], "timestamp": times, VALUE: values})


def thinned(mine: pd.DataFrame) -> pd.DataFrame:
    """Keep the readings of a 15-minute sensor whose clock runs on."""
    start = mine["timestamp"].iloc[0]
    count = int((mine["timestamp"].iloc[-1] - start) / pd.Timedelta(minutes=15 * DRIFT))
    times = start + pd.to_timedelta(np.round(np.arange(count) * 15 * DRIFT * 60), unit="s")
    place = np.minimum(np.searchsorted(mine["timestamp"], times), len(mine) - 1)
    return mine.iloc[place].assign(timestamp=times)


def lose(mine: pd.DataFrame, share: float, rng: Any) -> pd.DataFrame:
    """Lose readings at random."""
    return mine[rng.random(len(mine)) >= share]


if __name__ == "__main__":
    main()
