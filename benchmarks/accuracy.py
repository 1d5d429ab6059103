"""python -m benchmarks.accuracy: accuracy on people never seen, beside LightGBM, on four public sets.

Four folds over people: the base model and every rival learn from the train time of three quarters of the people
(early stopping on their valid time) and are scored on the test time (last 20%) of the others. The last reading and
every scored target are real. A person counts once; intervals are bootstraps over people.

Who gets which inputs:
    lightgbm_12h    23 five-minute lags, 40 quarter-hour means and 15 summaries of the last 12 h
    lightgbm_all    every input of ours, on the residual of the population ridge and the online ridge
    ridge           the last 12 h (linear)
    profile         the person's own last 14 days by time of day
    no_personal     ours with personal inputs silenced (a newcomer)
    plain           our network trained without any personal input
    hallmark        48 h of context, clock, the person's own past up to the last midnight
"""

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.composition import compose
from hallmark.build import build
from hallmark.contracts import Prepared
from hallmark.judge.baselines import fit_baselines
from hallmark.judge.bootstrap import interval
from hallmark.learn.base import fit_assembler, fit_base, population_forecast
from hallmark.learn.history import build_history
from hallmark.learn.trainer import quiet, seed_everything
from hallmark.read.splits import HELD_OUT, SEEN, Parts

SETS = ("AZT1D", "T1D-UOM", "PhysioCGM", "Hall_2018")
MARKS = (30, 60, 120, 240, 1440)
TREES: dict[str, Any] = {
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_child_samples": 100,
    "subsample": 0.7,
    "subsample_freq": 1,
    "colsample_bytree": 0.4,
    "reg_lambda": 5.0,
    "n_estimators": 800,
    "n_jobs": 2,
    "verbose": -1,
    "seed": 0,
}


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
    task = build(params["task"])
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
            task, params, Prepared(clean.rows, clean.subjects, mine), not arguments.no_trees, arguments.part
        )
        rows += [{**row, "fold": fold, "set": sets[row["subject_id"]]} for row in found]
        costs.append({"fold": fold, **cost})
        print(json.dumps(costs[-1]), flush=True)
        show(pd.DataFrame(rows))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"scores": rows, "costs": costs}, indent=1))


def run_fold(
    task: Any, params: dict[str, Any], prepared: Prepared, trees: bool, scored: str
) -> tuple[list[Any], dict[str, Any]]:
    """Fit everything once and score the held-out people."""
    quiet()
    train_config = build(params["train"])
    seed_everything(train_config.seed, train_config.threads)
    parts = task.parts(prepared)
    panel = parts.panel
    train, valid = parts.origins("train", SEEN), parts.origins("valid", SEEN)[:: task.forecast.valid_stride]
    test = parts.origins(scored, HELD_OUT)[::3]
    clock = time.process_time()
    assembler = fit_assembler(parts, train, task.scale, task.history, task.forecast)
    history = build_history(panel, task.history, task.scale, population_forecast(assembler, panel))
    cost = {"context_cpu_s": round(time.process_time() - clock, 1), "train_windows": len(train), "test": len(test)}
    forecasts: dict[str, Any] = {}
    known = history.rows(panel.subject[test], panel.day[test])
    for body in build(params["model"]["candidates"]):
        clock = time.process_time()
        scratch = Path(".work/benchmark") / str(time.time_ns())
        base, result = fit_base(body, assembler, parts, history, train, valid, task.forecast, train_config, scratch)
        cost[f"{body.name}_cpu_s"] = round(time.process_time() - clock, 1)
        cost[f"{body.name}_valid"] = round(result.valid_loss, 4)
        cost[f"{body.name}_curve"] = [round(loss, 4) for _, loss in result.curve]
        forecasts[body.name] = in_chunks(base, panel, test, history, known)
        if body.name == "residual_mlp":
            forecasts["no_personal"] = in_chunks(base, panel, test, None, -np.ones(len(test), dtype=np.int64))
    bodies = [b for b in forecasts if b != "no_personal"]
    chosen = min(bodies, key=lambda b: cost[f"{b}_valid"])
    cost["chosen"] = chosen
    forecasts["hallmark"] = forecasts[chosen]
    if len(bodies) > 1:
        forecasts["average"] = np.mean([forecasts[b] for b in bodies], axis=0)
    baselines = fit_baselines(parts, train, task.scale, task.forecast.ridge_penalty)
    fitted = [
        baselines.forecast(parts, t, history, task.scale) for t in np.array_split(test, max(1, len(test) // 4096))
    ]
    forecasts |= {name: np.concatenate([f[name] for f in fitted]) for name in fitted[0]}
    target = parts.target(test, scored)
    if trees:
        clock = time.process_time()
        forecasts |= fit_trees(task, assembler, parts, history, train, valid, test)
        cost["trees_cpu_s"] = round(time.process_time() - clock, 1)
    cost["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
    rows = []
    for code in np.unique(panel.subject[test]):
        inside = panel.subject[test] == code
        for name, forecast in forecasts.items():
            for mark in MARKS:
                h = panel.grid.index_of(mark)
                error = (
                    forecast[inside][:, h if forecast.shape[1] > len(MARKS) else MARKS.index(mark)]
                    - target[inside][:, h]
                )
                if np.isfinite(error).any():
                    rmse = float(np.sqrt(np.nanmean(error**2)))
                    rows.append({"subject_id": panel.subjects[code], "model": name, "at": mark, "rmse": rmse})
    return rows, cost


def in_chunks(base: Any, panel: Any, origins: Any, history: Any, rows: Any) -> Any:
    """Forecast many windows without holding their inputs."""
    found = []
    for start in range(0, len(origins), 4096):
        part = slice(start, start + 4096)
        minute = panel.minute[origins[part]].astype(np.int64)
        found.append(base.forecast(panel.context(origins[part]), minute, history, rows[part])[0])
    return np.concatenate(found)


def fit_trees(
    task: Any, assembler: Any, parts: Parts, history: Any, train: Any, valid: Any, test: Any
) -> dict[str, Any]:
    """Fit LightGBM at every mark, on the 12 h window and on every input of ours."""
    import lightgbm

    panel = parts.panel
    recent = 23 + 40  # five-minute lags and quarter-hour means
    older = 36 + 16
    columns = np.r_[0:recent, recent + older : recent + older + 15]
    places = [panel.grid.index_of(m) for m in MARKS]

    def inputs(origins: Any) -> tuple[Any, Any, Any]:
        x, anchor, last = [], [], []
        for part in np.array_split(origins, max(1, len(origins) // 4096)):
            rows = history.rows(panel.subject[part], panel.day[part])
            batch = assembler.batch(panel.context(part), panel.minute[part].astype(np.int64), history, rows)
            x.append(batch["x"])
            anchor.append((batch["anchor"] + batch["correction"])[:, places])
            last.append(panel.values[part][:, None])
        return np.concatenate(x), np.concatenate(anchor), np.concatenate(last)

    sample = train[:: max(1, len(train) // 150_000)]
    (x, a, last), (xv, av, last_v), (xt, at, last_t) = inputs(sample), inputs(valid), inputs(test)
    y, yv = parts.target(sample, "train")[:, places], parts.target(valid, "valid")[:, places]
    found = {"lightgbm_12h": np.empty((len(test), len(MARKS))), "lightgbm_all": np.empty((len(test), len(MARKS)))}
    for i in range(len(MARKS)):
        for name, use, base, base_v, base_t in (
            ("lightgbm_12h", columns, last[:, 0], last_v[:, 0], last_t[:, 0]),
            ("lightgbm_all", np.arange(x.shape[1]), a[:, i], av[:, i], at[:, i]),
        ):
            keep, keep_v = np.isfinite(y[:, i]), np.isfinite(yv[:, i])
            model = lightgbm.LGBMRegressor(**TREES)
            model.fit(
                x[keep][:, use],
                y[keep, i] - base[keep],
                eval_X=xv[keep_v][:, use],
                eval_y=yv[keep_v, i] - base_v[keep_v],
                callbacks=[lightgbm.early_stopping(50, verbose=False)],
            )
            found[name][:, i] = base_t + model.predict(xt[:, use])
    return found


def show(rows: pd.DataFrame) -> None:
    """Print RMSE by set, and every model's change against LightGBM with its bootstrap interval over people."""
    means = rows.groupby(["set", "model", "at"])["rmse"].mean().unstack("at").round(2)
    print(means.to_string())
    wide = rows.pivot_table(index=["set", "subject_id", "at"], columns="model", values="rmse")
    for rival in ("lightgbm_12h", "lightgbm_all", "ridge", "profile", "no_personal"):
        if rival not in wide:
            continue
        for name in ("hallmark", "residual_mlp", "patchtst", "average"):
            if name not in wide:
                continue
            line = []
            for mark in MARKS:
                ratio = (wide[name] / wide[rival] - 1).xs(mark, level="at").dropna() * 100
                by_set = ratio.groupby("set").mean().mean()
                low, high = interval(ratio.to_numpy())
                line.append(f"@{mark} {by_set:+.1f}% (people {ratio.mean():+.1f}, {low:+.1f}…{high:+.1f})")
            print(f"{name} against {rival}: " + "  ".join(line))


if __name__ == "__main__":
    main()
