"""python -m benchmarks.tasks: every task but the main one on its real data, ours beside its baselines, on test.

The pipelines' own stages in one process and one thread, without DVC and ZenML: prepare, fit, calibrate, evaluate.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import argparse
import tempfile
from pathlib import Path

import pandas as pd

from benchmarks.chain import prepare_rows, train_model
from benchmarks.spent import cpu_seconds
from hallmark.build import build_experiment
from hallmark.contracts import OURS, no_progress
from hallmark.stages import evaluate, train
from runtime.compose import composed as compose

TASKS = {
    "cv": ("data=esco_skills", "data.directory={data}/cv"),
    "sentiment": ("data=uci_sentences", "data.directory={data}/sentiment"),
    "text": (
        "data=plays_and_jobs",
        "data.source={data}/text/tinyshakespeare.txt",
        "data.target=[{data}/text/skillspan_train.json,{data}/text/skillspan_dev.json,{data}/text/skillspan_test.json]",
    ),
    "trades": ("model=trees_and_lightgbm", "data=xrp_eth", "data.path={data}/trades/XRP_ETH-trades.feather"),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data/sources", help="where the sets lie")
    parser.add_argument("--only", nargs="*", choices=sorted(TASKS))
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    for name in arguments.only or TASKS:
        chosen = (change.format(data=arguments.data) for change in TASKS[name])
        params = compose(f"experiment={name}", *chosen, *arguments.overrides)
        with tempfile.TemporaryDirectory() as scratch:
            run(params, Path(scratch))


def run(params: dict[str, object], out: Path) -> None:
    """Take one task from its rows to its verdicts."""
    clock = cpu_seconds()
    built = build_experiment(params)
    task, learner, prepared, model = built["task"], built["learner"], out / "prepared", out / "model"
    train.CHECKPOINTS = out / "checkpoints"
    counts = prepare_rows(built, prepared, out / "validation")
    train_model(built, prepared, model)
    evaluator, gates = built["evaluate"]["evaluator"], built["evaluate"]["gates"]
    verdicts = evaluate.evaluate(
        task, learner, evaluator, prepared, model, None, gates, out / "evaluation", no_progress
    )
    spent = cpu_seconds() - clock
    summary = pd.read_csv(out / "evaluation" / "summary.csv")
    print(f"\n{task.name}: {counts['train']:,} rows to train, {counts['test']:,} to test, {spent:.0f} CPU s")
    horizons = evaluator.layout.columns
    columns = [f"{metric}@{mark}" for metric, _ in evaluator.layout.tables for mark in horizons]
    summary["metric"] += "@" + summary["horizon_or_split"].astype(str)
    compared = summary[summary["metric"] == columns[0]]
    shared = compared.groupby("segment")["model"].nunique() == compared["model"].nunique()
    lower = evaluator.metrics(task, learner)[evaluator.layout.tables[0][0]].better == "lower"
    for segment in ["all", *sorted(set(shared.index[shared]) - {"all"})]:
        show(summary[summary["segment"] == segment], segment, columns, lower)
    ours = summary[(summary["model"] == OURS) & (summary["segment"] == "all") & ~summary["metric"].isin(columns)]
    print("  " + ", ".join(f"{m} {v:.3f}" for m, v in zip(ours["metric"], ours["mean"], strict=True)))
    skipped = sum(v.status == "skipped" for v in verdicts)
    failed = [f"{v.gate} ({v.reason})" for v in verdicts if v.status == "failed"]
    print(
        f"  gates: {len(verdicts) - len(failed) - skipped} of {len(verdicts)} passed, {skipped} skipped"
        + "".join(f"; FAILED {f}" for f in failed)
    )


def show(summary: pd.DataFrame, segment: str, columns: list[str], lower: bool) -> None:
    """Print every model's figures with their intervals, the best by the first of them on top."""
    spans = summary[["mean", "low", "high"]].to_numpy()
    cells = summary.assign(cell=[f"{mean:.3f} ({low:.3f}–{high:.3f})" for mean, low, high in spans])
    table = cells.pivot_table(index="model", columns="metric", values="cell", aggfunc="first")
    order = summary[summary["metric"] == columns[0]].sort_values("mean", ascending=lower)["model"]
    print(f"  {segment}")
    print(table.loc[list(order), [column for column in columns if column in table]].to_string())


if __name__ == "__main__":
    main()
