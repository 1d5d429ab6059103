"""python -m benchmarks.accuracy: the whole model on people never seen, beside LightGBM, on four public sets.

Four folds over people: base model and baselines are fitted on the train time of three quarters of the people (early
stopping on their valid time); the others are personalised on their own train and valid time, calibrated on their own
past, and scored on their test time (last 20%). The last reading and every scored target are real. A person counts
once, a set counts once; intervals are bootstraps over people.

Who gets which inputs:
    lightgbm_12h    23 five-minute lags, 40 quarter-hour means and 15 summaries of the last 12 h
    lightgbm_all    every input of ours, on the residual of the population ridge and the online ridge
    ridge           the last 12 h (linear)
    profile         the person's own last 14 days by time of day
    plain           the chosen network trained without any personal input: 48 h of context and the clock
    cold            our model for a newcomer: personal inputs silenced
    hallmark        48 h of context, clock, the person's own past up to the last midnight, the adapter its gate chose
"""

import argparse
import dataclasses
import json
import shutil
import tempfile
from math import erf
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.spent import cpu_seconds, peak_gb
from hallmark.build import build
from hallmark.contracts import Prepared, no_progress
from hallmark.families.forecasting.base_model import load_base
from hallmark.families.forecasting.baselines import fit_baselines
from hallmark.families.forecasting.lightgbm import ForecastTrees
from hallmark.families.forecasting.splits import HELD_OUT, SEEN
from hallmark.files import read_json, write_json
from hallmark.judge.bootstrap import interval
from hallmark.learn.candidates import fit_candidates
from runtime.compose import composed as compose

SETS = ("AZT1D", "T1D-UOM", "PhysioCGM", "Hall_2018")
HORIZONS = (30, 60, 120, 240, 1440)
LEAST = 30  # scored windows of a person that counts
LEAST_PEOPLE = 5  # of a set that counts in a mean of sets


def main() -> None:
    """Run the folds and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--only", type=int, nargs="*", help="run these folds only")
    parser.add_argument("--data", default="../shared/data/glucose", help="where the zips lie")
    parser.add_argument("--out", type=Path, default=Path("reports/accuracy.json"))
    parser.add_argument("--part", default="test", help="valid: what choices are made on; test: what is reported")
    parser.add_argument("--no-trees", action="store_true")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    params = compose("data=glucose_ml", *arguments.overrides)
    task, learner = build(params["task"]), build(params["learner"])
    source = build({**params["data"], "directory": arguments.data, "sets": list(SETS)})
    clean = task.clean(source.load())
    splits = task.split(clean)
    sets = {s: s.split("/")[0] for s in splits["subject_id"]}
    generator = np.random.default_rng(0)
    order = pd.Series(generator.permutation(len(splits)), index=splits["subject_id"])
    fold_of = order.groupby(sets).rank().astype(int) % arguments.folds
    rows: list[dict[str, Any]] = []
    costs: list[dict[str, Any]] = []
    for fold in arguments.only or range(arguments.folds):
        held = fold_of[fold_of == fold].index
        mine = splits.assign(group=np.where(splits["subject_id"].isin(held), HELD_OUT, SEEN))
        found, cost = run_fold(
            task, learner, params, Prepared(clean.rows, clean.subjects, mine), not arguments.no_trees, arguments.part
        )
        rows += [{**row, "fold": fold, "set": sets[row["subject_id"]]} for row in found]
        costs.append({"fold": fold, **cost})
        print(json.dumps(costs[-1]), flush=True)
        show(pd.DataFrame(rows))
        write_json(arguments.out, {"scores": rows, "costs": costs})


def run_fold(
    task: Any, learner: Any, params: dict[str, Any], prepared: Prepared, trees: bool, scored: str
) -> tuple[list[Any], dict[str, Any]]:
    """Fit everything once and score the held-out people."""
    split_panel = task.split_panel(prepared)
    panel = split_panel.panel
    train, valid = learner.origins_to_fit(split_panel)
    test = split_panel.origins(scored, HELD_OUT)[::3]
    cost: dict[str, Any] = {"train_windows": len(train), "test_windows": len(test)}
    work = Path(tempfile.mkdtemp(prefix="accuracy-"))
    model = fit_model(task, learner, params, prepared, work / "model", cost)
    predictor = learner.open_for_test(task, model, split_panel)
    forecasts, quantiles = {"hallmark": []}, []
    for code in np.unique(panel.subject[test]):
        mine = test[panel.subject[test] == code]
        found = predictor.forecast(panel.subjects[code], panel.context(mine), panel.minute[mine].astype(np.int64))
        forecasts["hallmark"].append(found[0])
        quantiles.append(found[1])
    order = np.argsort(panel.subject[test], kind="stable")
    test = test[order]
    forecasts = {"hallmark": np.concatenate(forecasts["hallmark"])}
    newcomer = -np.ones(len(test), dtype=np.int64)
    forecasts["cold"] = in_chunks(predictor.base, panel, test, None, newcomer)
    no_past = dataclasses.replace(learner, forecast=dataclasses.replace(learner.forecast, history_dropout=1.0))
    chosen = read_json(model / "training.json")["chosen"]
    nodes = [node for node in params["model"]["candidates"] if build(node).name == chosen]
    same = {**params, "model": {"candidates": nodes}}
    plain = fit_model(task, no_past, same, prepared, work / "plain", cost, base_only=True)
    forecasts["plain"] = in_chunks(load_base(plain / "base"), panel, test, None, newcomer)
    baselines = fit_baselines(split_panel, train, valid, task.scale, learner.forecast.ridge_penalties)
    fitted = [
        baselines.forecast(split_panel, part, predictor.histories.history, task.scale)
        for part in np.array_split(test, max(1, len(test) // 4096))
    ]
    forecasts |= {name: np.concatenate([f[name] for f in fitted]) for name in fitted[0]}
    if trees:
        clock = cpu_seconds()
        for name, every_input in (("lightgbm_12h", False), ("lightgbm_all", True)):
            baseline = ForecastTrees(predictor.base.assembler, HORIZONS, every_input).fit(
                split_panel, predictor.histories.history, train, valid
            )
            forecasts[name] = baseline.forecast(split_panel, test, predictor.histories.history)
        cost["trees_cpu_s"] = round(cpu_seconds() - clock, 1)
    cost["peak_gb"] = round(peak_gb(), 2)
    shutil.rmtree(work)
    rows = score(panel, test, split_panel.target(test, scored), forecasts, np.concatenate(quantiles), learner)
    methods = predictor.personalisation.methods
    return [{**row, "method": methods[row["subject_id"]]} for row in rows], {"chosen": chosen, **cost}


def fit_model(
    task: Any,
    learner: Any,
    params: dict[str, Any],
    prepared: Prepared,
    out: Path,
    cost: dict[str, Any],
    base_only: bool = False,
) -> Path:
    """Train as the pipeline does; CPU seconds go into `cost`."""
    train = build(params["train"])
    candidates = build(params["model"]["candidates"])
    clock = cpu_seconds()
    record = fit_candidates(learner, task, prepared, candidates, train, out, out / "scratch", no_progress)
    cost[f"{out.name}_fit_cpu_s"] = round(cpu_seconds() - clock, 1)
    cost[f"{out.name}_valid"] = {name: c["valid_loss"] for name, c in record["candidates"].items()}
    if not base_only:
        clock = cpu_seconds()
        config = build(params["personalise"])
        cost["methods"] = learner.personalise(task, prepared, out, config, out / "scratch", no_progress)["methods"]
        cost["personalise_cpu_s"] = round(cpu_seconds() - clock, 1)
        clock = cpu_seconds()
        learner.calibrate(task, prepared, out, build(params["calibrate"]), no_progress)
        cost["calibrate_cpu_s"] = round(cpu_seconds() - clock, 1)
    return out


def score(
    panel: Any, test: Any, target: Any, forecasts: dict[str, Any], quantiles: Any, learner: Any
) -> list[dict[str, Any]]:
    """RMSE of every model and coverage and width of our 90% interval, per person and mark."""
    rows = []
    levels = learner.forecast.quantile_levels
    low, high = levels.index(0.05), levels.index(0.95)
    for code in np.unique(panel.subject[test]):
        inside = panel.subject[test] == code
        for mark in HORIZONS:
            h = panel.grid.index_of(mark)
            y = target[inside][:, h]
            there = np.isfinite(y)
            if there.sum() < LEAST:
                continue
            base = {"subject_id": panel.subjects[code], "horizon_or_split": mark, "n_examples": int(there.sum())}
            for name, forecast in forecasts.items():
                error = forecast[inside][there, h] - y[there]
                rows.append({**base, "model": name, "rmse": float(np.sqrt(np.mean(error**2)))})
            q = quantiles[inside][there, h]
            covered = (y[there] >= q[:, low]) & (y[there] <= q[:, high])
            found = {"coverage": float(covered.mean()), "width": float(np.mean(q[:, high] - q[:, low]))}
            error = clustered_error(covered.astype(float), panel.day[test[inside][there]])
            rows.append({**base, "model": "interval", **found, "coverage_error": error})
    return rows


def clustered_error(values: Any, day: Any) -> float:
    """Standard error of a mean whose values resemble each other within a day."""
    days, number = np.unique(day, return_inverse=True)
    sums = np.bincount(number, values - values.mean())
    return float(np.sqrt((sums**2).sum() * len(days) / max(len(days) - 1, 1)) / len(values))


def in_chunks(base: Any, panel: Any, origins: Any, history: Any, rows: Any) -> Any:
    """Forecast many windows without holding their inputs."""
    found = []
    for start in range(0, len(origins), 4096):
        part = slice(start, start + 4096)
        minute = panel.minute[origins[part]].astype(np.int64)
        found.append(base.forecast(panel.context(origins[part]), minute, history, rows[part])[0])
    return np.concatenate(found)


def show(rows: pd.DataFrame) -> None:
    """Print errors by set, changes against baselines, personal gain and intervals."""
    points = rows[rows["model"] != "interval"]
    means = points.groupby(["set", "model", "horizon_or_split"])["rmse"].mean().unstack("horizon_or_split").round(1)
    print(means.to_string())
    people = (
        points[points["model"] == "hallmark"]
        .groupby(["set", "horizon_or_split"])["subject_id"]
        .nunique()
        .unstack("horizon_or_split")
    )
    print(f"\nPeople with at least {LEAST} scored windows:\n{people.to_string()}")
    wide = points.pivot_table(index=["set", "subject_id", "horizon_or_split"], columns="model", values="rmse")
    print(f"\nChange of the mean RMSE, mean of the sets with {LEAST_PEOPLE} people (mean over people, 95% bootstrap):")
    for name, baseline in PAIRS:
        if name in wide and baseline in wide:
            print(
                f"  {name} against {baseline}: " + "  ".join(_change(wide, name, baseline, mark) for mark in HORIZONS)
            )
    print("\nPersonal gain @60 on people with type 1 diabetes (hallmark against plain):")
    at60 = wide.xs(60, level="horizon_or_split")
    t1d = at60[at60.index.get_level_values("set") != "Hall_2018"]
    gain = (t1d["hallmark"] / t1d["plain"] - 1) * 100
    low, high = interval(gain.to_numpy())
    print(f"  mean {gain.mean():+.1f}% ({low:+.1f}…{high:+.1f}), {int((gain < 0).sum())} of {len(gain)} better")
    print(f"  worst {gain.max():+.1f}%, {int((gain > 1).sum())} worse than +1%")
    cold = (t1d["cold"] / t1d["plain"] - 1) * 100
    low, high = interval(cold.to_numpy())
    print(f"  cold start against plain: mean {cold.mean():+.1f}% ({low:+.1f}…{high:+.1f})")
    print("\n90% interval, people with type 1 diabetes and at least 300 test windows:")
    intervals = rows[(rows["model"] == "interval") & (rows["set"] != "Hall_2018") & (rows["n_examples"] >= 300)]
    for mark, group in intervals.groupby("horizon_or_split"):
        share = group["coverage"].between(0.86, 0.94).mean()
        mean, width = group["coverage"].mean(), group["width"].mean()
        chance = np.mean([erf(0.04 / max(e, 1e-6) / 2**0.5) for e in group["coverage_error"]])
        print(f"  @{mark}: {mean:.3f}, within 86–94% for {share:.0%} of {len(group)} people, width {width:.0f} mg/dL;")
        print(f"    exactly right intervals would be within for {chance:.0%}, by the errors of so few test days")


PAIRS = (
    ("hallmark", "lightgbm_12h"),
    ("hallmark", "lightgbm_all"),
    ("hallmark", "ridge"),
    ("hallmark", "profile"),
    ("hallmark", "plain"),
    ("cold", "plain"),
    ("plain", "lightgbm_12h"),
    ("lightgbm_all", "lightgbm_12h"),
)


def _change(wide: pd.DataFrame, name: str, baseline: str, mark: int) -> str:
    here = wide.xs(mark, level="horizon_or_split")[[name, baseline]].dropna()
    groups = here.groupby("set")
    by_set = groups.mean()[groups.size() >= LEAST_PEOPLE]
    ratio = (here[name] / here[baseline] - 1) * 100
    low, high = interval(ratio.to_numpy())
    mean = ((by_set[name] / by_set[baseline] - 1) * 100).mean()
    return f"@{mark} {mean:+.1f}% ({ratio.mean():+.1f}, {low:+.1f}…{high:+.1f})"


if __name__ == "__main__":
    main()
