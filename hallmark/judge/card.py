"""The model card (Markdown): what a model is for, its data, its figures by group, its gates and its limits."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hallmark.contracts import OURS, Evaluation, Metric, Prepared, ReportLayout, Verdict
from hallmark.judge.gates import find_row
from hallmark.judge.report import best_baseline, segment_suffix

DATE = (
    "The date of training is in the record of the run (`make dashboard`), not in this card: the same data, code and "
    "parameters give the same bytes on any day."
)


def metric_tables(evaluation: Evaluation, metrics: Mapping[str, Metric], layout: ReportLayout) -> str:
    """Write the headline metrics with the best baseline, and the first of them by group.

    Returns:
        Two Markdown tables, without metrics that were not measured.
    """
    lines = ["| figure on test | value | 95% interval | best baseline |", "|---|---|---|---|"]
    for name, column, segment in layout.headline:
        row = find_row(evaluation.summary, OURS, name, column, segment)
        if row is None:
            continue
        best = best_baseline(evaluation, metrics[name], column, segment)
        baseline = "" if best is None else f"{best['mean']:.4g} ({best['model']})"
        figure = f"{layout.metric_at(name, column)}{segment_suffix(segment)}"
        lines.append(f"| {figure} | {_value(row, metrics[name])} | {_interval(row)} | {baseline} |")
    name, column, _ = layout.headline[0]
    summary = evaluation.summary
    rows = summary[(summary["model"] == OURS) & (summary["metric"] == name) & (summary["horizon_or_split"] == column)]
    lines += ["", f"By group, {layout.metric_at(name, column)}:", ""]
    lines += [f"| group | value | 95% interval | {layout.resampling_unit} |", "|---|---|---|---|"]
    for _, row in rows.sort_values("segment").iterrows():
        group = str(row["segment"]).replace("_", " ").replace(":", ": ")
        lines.append(f"| {group} | {_value(row, metrics[name])} | {_interval(row)} | {row['n_units']} |")
    return "\n".join(lines) + "\n"


def describe_data(prepared: Prepared, origin: Mapping[str, Any]) -> str:
    """Describe the data as a Markdown list: rows, subjects, dates and origin."""
    rows = prepared.rows
    lines = [f"- {len(rows):,} rows of {rows['subject_id'].nunique():,} subjects or sources"]
    if "timestamp" in rows:
        unit = None if pd.api.types.is_datetime64_any_dtype(rows["timestamp"]) else "ms"
        first, last = (pd.Timestamp(time, unit=unit) for time in (rows["timestamp"].min(), rows["timestamp"].max()))
        lines.append(f"- from {first:%Y-%m-%d} to {last:%Y-%m-%d}")
    return "\n".join([*lines, *(f"- {key}: {_in_words(value)}" for key, value in origin.items())])


def model_card(
    name: str,
    purpose: str,
    data: str,
    evaluated: str,
    notes: Sequence[str],
    verdicts: Sequence[Verdict],
    limits: Sequence[str],
) -> str:
    """Write a model card.

    Args:
        name: name of the model.
        purpose: what the model is for, one paragraph.
        data: output of `describe_data`.
        evaluated: output of `metric_tables`.
        notes: sentences about the figures.
        verdicts: verdicts of all gates.
        limits: uses to avoid and known weaknesses.
    """
    gates = [f"- {'FAILED' if v.status == 'failed' else v.status}: {v.gate} ({v.reason})" for v in verdicts]
    sections = {
        "Data": f"{data}\n\n{DATE}",
        "Figures": "\n\n".join([evaluated.rstrip(), *notes]),
        "Gates": "\n".join(gates) or "None are set.",
        "Limits": "\n".join(f"- {line}" for line in limits),
    }
    body = "\n".join(f"## {title}\n\n{text}\n" for title, text in sections.items())
    return f"# {name}\n\n{purpose}\n\n{body}"


def _value(row: "pd.Series[Any]", metric: Metric) -> str:
    return f"{row['mean']:.4g} {metric.unit}".rstrip()


def _interval(row: "pd.Series[Any]") -> str:
    return f"{row['low']:.4g}–{row['high']:.4g}" if row["n_units"] > 1 else ""


def _in_words(value: Any) -> str:
    """Format a value of the origin as text, not as a Python literal."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_in_words(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_in_words, value))
    return str(value)
