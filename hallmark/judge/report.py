"""The report: one self-contained HTML page, and a model card in Markdown. The same bytes for the same figures."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hallmark.contracts import Evaluation, Metric, Verdict

STYLE = (
    "body{font:15px/1.5 system-ui;margin:2rem auto;max-width:64rem;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}"
    "td,th{padding:.3rem .8rem;text-align:right;border-bottom:1px solid #ddd}td.why{text-align:left}"
    "td:first-child,th:first-child{text-align:left}.pass{color:#1b7f4b}.fail{color:#b3261e;font-weight:600}"
    "img{max-width:100%}figure{margin:1.5rem 0}figcaption{color:#666}"
)


def table_of(summary: pd.DataFrame, metric: str, marks: Sequence[str], segment: str) -> pd.DataFrame:
    """Arrange one metric as models × marks, text cells `mean (low–high)`; one person alone has no interval."""
    rows = summary[(summary["metric"] == metric) & (summary["segment"] == segment) & summary["at"].isin(list(marks))]
    cells = rows.assign(
        cell=[
            f"{m:.3g} ({low:.3g}–{high:.3g})" if people > 1 else f"{m:.3g}"
            for m, low, high, people in rows[["mean", "low", "high", "people"]].itertuples(index=False)
        ]
    )
    wide = cells.pivot_table(index="model", columns="at", values="cell", aggfunc="first")
    order = rows[rows["at"] == marks[0]].sort_values("mean")["model"]
    return wide.reindex(index=list(order), columns=[m for m in marks if m in wide.columns])


def render(
    title: str,
    evaluation: Evaluation,
    verdicts: Sequence[Verdict],
    metrics: Mapping[str, Metric],
    marks: Sequence[str],
    pictures: Path,
) -> str:
    """Render everything on one page, pictures embedded."""
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>{STYLE}</style>"
    ]
    parts.append(f"<h1>{html.escape(title)}</h1>{_html_list(evaluation.notes)}")
    parts.append("<p>Figures are means over people, with 95% bootstrap intervals over people.</p><h2>Gates</h2>")
    parts.append(
        "<table><tr><th>gate<th>verdict<th>figure<th>bound<th>why</tr>" if verdicts else "<p>None are set.</p>"
    )
    for v in verdicts:
        mark = "<span class=pass>passed</span>" if v.passed else "<span class=fail>failed</span>"
        figure = "" if v.figure is None else f"{v.figure:.4g} {html.escape(v.unit)}"
        bound = "" if v.bound is None else f"{v.bound:.4g}"
        parts.append(
            f"<tr><td>{html.escape(v.gate)}<td>{mark}<td>{figure}<td>{bound}<td class=why>{html.escape(v.reason)}</tr>"
        )
    parts.append("</table>" if verdicts else "")
    for segment in ("held_out", "seen"):
        for name in ("rmse", "mae", "pinball"):
            table = table_of(evaluation.summary, name, marks, segment)
            if not table.empty:
                unit, better = metrics[name].unit, metrics[name].better
                parts.append(
                    f"<h2>{name}, {html.escape(unit)} ({better} is better), people {segment.replace('_', ' ')}</h2>"
                )
                parts.append(_html_table(table))
    for name in [n for n in metrics if n.startswith(("coverage", "width"))]:
        table = table_of(evaluation.summary, name, marks, "all")
        if not table.empty:
            unit = f", {metrics[name].unit}" if metrics[name].unit else ""
            parts.append(f"<h2>{name.replace('_', ' of the ')}% interval{html.escape(unit)}</h2>{_html_table(table)}")
    shares = evaluation.summary[
        evaluation.summary["metric"].isin([n for n in metrics if metrics[n].better == "higher"])
    ]
    for at, rows in shares.groupby("at", sort=True):
        parts.append(f"<h2>Shares and events @{html.escape(str(at))} (higher is better), all people</h2>")
        parts.append(_html_table(_by_metric(rows[rows["segment"] == "all"])))
    parts.append("<h2>By segment</h2>")
    parts.append(_segments(evaluation.summary, marks))
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


def _by_metric(rows: pd.DataFrame) -> pd.DataFrame:
    """Arrange several metrics as models × metrics."""
    cells = rows.assign(cell=[f"{m:.3f}" for m in rows["mean"]])
    return cells.pivot_table(index="model", columns="metric", values="cell", aggfunc="first")


def _html_table(table: pd.DataFrame) -> str:
    head = "".join(f"<th>{html.escape(str(c))}" for c in table.columns)
    rows = "".join(
        f"<tr><td>{html.escape(str(i))}"
        + "".join(f"<td>{'' if pd.isna(v) else html.escape(str(v))}" for v in row)
        + "</tr>"
        for i, row in zip(table.index, table.to_numpy(), strict=True)
    )
    return f"<table><tr><th>{head}</tr>{rows}</table>"


def _segments(summary: pd.DataFrame, marks: Sequence[str]) -> str:
    ours = summary[(summary["model"] == "hallmark") & (summary["metric"] == "rmse") & summary["at"].isin(list(marks))]
    cells = ours.assign(cell=[f"{m:.3g} ({n})" for m, n in zip(ours["mean"], ours["people"], strict=True)])
    wide = cells.pivot_table(index="segment", columns="at", values="cell", aggfunc="first")
    return "<p>RMSE of our model (people).</p>" + _html_table(wide[[m for m in marks if m in wide.columns]])


def model_card(
    name: str, facts: Mapping[str, Any], verdicts: Sequence[Verdict], purpose: str, limits: Sequence[str]
) -> str:
    """Write a model card."""
    lines = [f"# {name}", "", purpose, "", "## Facts", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    lines += ["", "## Gates", ""]
    lines += [f"- {'passed' if v.passed else 'FAILED'}: {v.gate} ({v.reason})" for v in verdicts]
    lines += ["", "## Limits", "", *(f"- {line}" for line in limits), ""]
    return "\n".join(lines)
