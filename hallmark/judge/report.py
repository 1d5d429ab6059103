"""The evaluation report (one self-contained HTML page) and the model card (Markdown)."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hallmark.contracts import Evaluation, Metric, Shown, Verdict
from hallmark.files import read_json

STYLE = (
    "body{font:15px/1.5 system-ui;margin:2rem auto;max-width:64rem;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}"
    "td,th{padding:.3rem .8rem;text-align:right;border-bottom:1px solid #ddd}td.why{text-align:left}"
    "td:first-child,th:first-child{text-align:left}.passed{color:#1b7f4b}.failed{color:#b3261e;font-weight:600}.skipped{color:#8a6100}"
    "img{max-width:100%}figure{margin:1.5rem 0}figcaption{color:#666}"
)


def table_of(summary: pd.DataFrame, metric: Metric, marks: Sequence[str], segment: str) -> pd.DataFrame:
    """Arrange one metric as models × marks, the best first: cells `mean (low–high)`, no interval if drawn once."""
    rows = summary[
        (summary["metric"] == metric.name) & (summary["segment"] == segment) & summary["at"].isin(list(marks))
    ]
    cells = rows.assign(
        cell=[
            f"{m:.3g} ({low:.3g}–{high:.3g})" if drawn > 1 else f"{m:.3g}"
            for m, low, high, drawn in rows[["mean", "low", "high", "drawn"]].itertuples(index=False)
        ]
    )
    wide = cells.pivot_table(index="model", columns="at", values="cell", aggfunc="first")
    first = rows[rows["at"] == marks[0]]
    order = first.sort_values("mean", ascending=metric.better != "higher", kind="stable")["model"]
    return wide.reindex(index=list(order), columns=[m for m in marks if m in wide.columns])


def render(
    title: str,
    evaluation: Evaluation,
    verdicts: Sequence[Verdict],
    metrics: Mapping[str, Metric],
    shown: Shown,
    pictures: Path,
) -> str:
    """Render everything on one page, pictures embedded."""
    marks = shown.marks
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>{STYLE}</style>"
    ]
    parts.append(f"<h1>{html.escape(title)}</h1>{_html_list(evaluation.notes)}")
    parts.append(f"<p>Intervals are 95% bootstrap intervals over {html.escape(shown.drawn)}.</p><h2>Gates</h2>")
    parts.append(
        "<table><tr><th>gate<th>verdict<th>figure<th>bound<th>why</tr>" if verdicts else "<p>None are set.</p>"
    )
    for v in verdicts:
        mark = f"<span class={v.status}>{v.status}</span>"
        figure = "" if v.figure is None else f"{v.figure:.4g} {html.escape(v.unit)}"
        bound = "" if v.bound is None else f"{v.bound:.4g}"
        parts.append(
            f"<tr><td>{html.escape(v.gate)}<td>{mark}<td>{figure}<td>{bound}<td class=why>{html.escape(v.reason)}</tr>"
        )
    parts.append("</table>" if verdicts else "")
    for name, segment in shown.tables:
        table = table_of(evaluation.summary, metrics[name], marks, segment) if name in metrics else pd.DataFrame()
        if not table.empty:
            whom = "" if segment == "all" else f", {segment.replace('_', ' ')}"
            parts.append(f"<h2>{html.escape(_titled(metrics[name]))}{html.escape(whom)}</h2>{_html_table(table)}")
    apart = {name for name, _ in shown.tables}
    others = evaluation.summary[
        evaluation.summary["metric"].isin(set(metrics) - apart) & (evaluation.summary["segment"] == "all")
    ]
    for at, rows in others.groupby("at", sort=True):
        parts.append(f"<h2>Other figures @{html.escape(str(at))}</h2>{_html_table(_by_metric(rows, metrics))}")
    parts.append(f"<h2>By segment</h2>{_segments(evaluation.summary, metrics[shown.headline[0][0]], shown)}")
    for file, caption in evaluation.pictures.items():
        data = base64.b64encode((pictures / file).read_bytes()).decode()
        parts.append(f"<figure><img alt='{html.escape(caption)}' src='data:image/png;base64,{data}'>")
        parts.append(f"<figcaption>{html.escape(caption)}</figcaption></figure>")
    parts.append("</html>\n")
    return "\n".join(parts)


def _html_list(values: Mapping[str, Any]) -> str:
    items = (
        f"<li>{html.escape(str(k))}: {_html_list(v) if isinstance(v, Mapping) else html.escape(str(v))}</li>"
        for k, v in values.items()
    )
    return f"<ul>{''.join(items)}</ul>"


def _titled(metric: Metric) -> str:
    unit = f", {metric.unit}" if metric.unit else ""
    goal = f"{metric.goal:g}" if metric.goal is not None else "0"
    return f"{metric.name}{unit} ({f'nearer to {goal}' if metric.better == 'nearer' else metric.better} is better)"


def _by_metric(rows: pd.DataFrame, metrics: Mapping[str, Metric]) -> pd.DataFrame:
    """Arrange several metrics as models × metrics."""
    cells = rows.assign(cell=[f"{m:.3f}" for m in rows["mean"]])
    wide = cells.pivot_table(index="model", columns="metric", values="cell", aggfunc="first")
    return wide.rename(columns={name: _titled(metrics[name]) for name in wide.columns})


def _html_table(table: pd.DataFrame) -> str:
    head = "".join(f"<th>{html.escape(str(c))}" for c in table.columns)
    rows = "".join(
        f"<tr><td>{html.escape(str(i))}"
        + "".join(f"<td>{'' if pd.isna(v) else html.escape(str(v))}" for v in row)
        + "</tr>"
        for i, row in zip(table.index, table.to_numpy(), strict=True)
    )
    return f"<table><tr><th>{head}</tr>{rows}</table>"


def _segments(summary: pd.DataFrame, metric: Metric, shown: Shown) -> str:
    ours = summary[(summary["model"] == "hallmark") & (summary["metric"] == metric.name)]
    ours = ours[ours["at"].isin(shown.marks)]
    cells = ours.assign(cell=[f"{m:.3g} ({n})" for m, n in zip(ours["mean"], ours["drawn"], strict=True)])
    wide = cells.pivot_table(index="segment", columns="at", values="cell", aggfunc="first")
    words = html.escape(f"{_titled(metric)}: our model ({shown.drawn}).")
    return f"<p>{words}</p>" + _html_table(wide[[m for m in shown.marks if m in wide.columns]])


def training_notes(model: Path) -> dict[str, Any]:
    """Say which candidate was chosen and how all did on valid, from what training has recorded."""
    training = read_json(model / "training.json")
    candidates = training["candidates"]
    return {
        "hallmark is": f"{training['chosen']}, the best of {len(candidates)} candidates on valid",
        "loss on valid": {name: round(c["valid_loss"], 4) for name, c in candidates.items()},
    }


def model_card(
    name: str, facts: Mapping[str, Any], verdicts: Sequence[Verdict], purpose: str, limits: Sequence[str]
) -> str:
    """Write a model card."""
    lines = [f"# {name}", "", purpose, "", "## Facts", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    lines += ["", "## Gates", ""]
    lines += [f"- {'FAILED' if v.status == 'failed' else v.status}: {v.gate} ({v.reason})" for v in verdicts]
    lines += ["", "## Limits", "", *(f"- {line}" for line in limits), ""]
    return "\n".join(lines)
