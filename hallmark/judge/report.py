"""The evaluation report: one self-contained HTML page."""

import base64
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hallmark.contracts import OURS, Evaluation, Metric, ReportLayout, Verdict
from hallmark.files import read_json
from hallmark.judge.gates import find_row
from hallmark.judge.pictures import draw_learning

WIDE = 700  # pixels of a picture that gets a row of its own
STYLE = """
:root{color-scheme:light dark;--ink:#1d2433;--soft:#5b6477;--line:#d9dee8;--page:#fff;--panel:#f5f7fa;--passed:#1b7f4b;
--failed:#b3261e;--skipped:#8a6100;--accent:#1b6ca8}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9f0;--soft:#9aa4b8;--line:#343c4d;--page:#12161f;--panel:#1b212d;
--passed:#5fd39a;--failed:#ff8a80;--skipped:#e5b94e;--accent:#7cbcf0}}
body{font:15px/1.55 system-ui,sans-serif;margin:0;color:var(--ink);background:var(--page)}
.page{display:grid;grid-template-columns:13rem minmax(0,64rem);gap:2.5rem;max-width:84rem;margin:0 auto;padding:1.5rem}
nav{position:sticky;top:1.5rem;align-self:start;font-size:13px;max-height:calc(100vh - 3rem);overflow:auto}
nav a{display:block;padding:.15rem 0;color:var(--soft);text-decoration:none}nav a:hover{color:var(--accent)}
h1{font-size:1.5rem;margin:0 0 .75rem}h2{font-size:1.15rem;margin:2.2rem 0 .5rem;scroll-margin-top:1rem}
.verdict{border-left:5px solid;padding:.55rem .9rem;background:var(--panel);font-size:1.05rem}
.headline{font-size:1.05rem}.headline b{font-size:1.5rem}
table{border-collapse:collapse;margin:.6rem 0;display:block;overflow-x:auto;font-variant-numeric:tabular-nums}
td,th{padding:.3rem .8rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
td:first-child,th:first-child,.why{text-align:left}.why{white-space:normal;min-width:20rem}
th{color:var(--soft);font-weight:600}tr.ours td{font-weight:600;background:var(--panel)}
.passed{color:var(--passed)}.failed{color:var(--failed);font-weight:600}.skipped{color:var(--skipped)}
.pictures{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:1.2rem;grid-auto-flow:dense}.wide{grid-column:1/-1}
figure{margin:0}img{max-width:100%;background:#fff;border:1px solid var(--line);border-radius:4px}
figcaption,.note{color:var(--soft)}
@media (max-width:60rem){.page{display:block}nav{position:static;max-height:none;margin-bottom:1rem}}
@media print{:root{color-scheme:light;--ink:#000;--soft:#444;--line:#bbb;--page:#fff;--panel:#f3f3f3}
nav{display:none}.page{display:block;padding:0}h2,figure,tr{break-inside:avoid}h2{break-after:avoid}table{display:table}}
"""


def table_of(summary: pd.DataFrame, metric: Metric, columns: Sequence[str], segment: str) -> pd.DataFrame:
    """Arrange one metric as a table of models × columns, the best model first.

    Args:
        summary: summary of an `Evaluation`.
        metric: the metric to show.
        columns: horizons or splits; the first one decides the order of the models.
        segment: the segment to show.

    Returns:
        Cells `mean (low–high)`, without the interval for a single unit.
    """
    rows = summary[
        (summary["metric"] == metric.name)
        & (summary["segment"] == segment)
        & summary["horizon_or_split"].isin(list(columns))
    ]
    figures = rows[["mean", "low", "high", "n_units"]].itertuples(index=False)
    cells = rows.assign(cell=[_cell(*figure) for figure in figures])
    wide = cells.pivot_table(index="model", columns="horizon_or_split", values="cell", aggfunc="first")
    first = rows[rows["horizon_or_split"] == columns[0]]
    gains = first.assign(gain=[metric.gain(value, 0.0) for value in first["mean"]])
    order = gains.sort_values("gain", ascending=False, kind="stable")["model"]
    return wide.reindex(index=list(order), columns=[column for column in columns if column in wide.columns])


def verdict_line(verdicts: Sequence[Verdict]) -> tuple[str, str]:
    """Summarise the gates as a status (`passed`, `failed` or `skipped`) and one sentence."""
    count = {status: sum(v.status == status for v in verdicts) for status in ("passed", "failed", "skipped")}
    skipped = f"; {count['skipped']} skipped" if count["skipped"] else ""
    if failed := [v for v in verdicts if v.status == "failed"]:
        return (
            "failed",
            f"Rejected: {count['failed']} of {len(verdicts)} gates failed, first {failed[0].gate}{skipped}.",
        )
    if not count["passed"]:
        return "skipped", "Not judged: no gate decided anything."
    return "passed", f"Accepted: all {count['passed']} gates that could decide passed{skipped}."


def best_baseline(evaluation: Evaluation, metric: Metric, column: str, segment: str) -> "pd.Series[Any] | None":
    """Return the summary row of the best baseline; None if no baseline was measured."""
    rows = [find_row(evaluation.summary, model, metric.name, column, segment) for model in evaluation.baselines]
    measured = [row for row in rows if row is not None]
    return max(measured, key=lambda row: metric.gain(float(row["mean"]), 0.0), default=None)


def headline_sentence(evaluation: Evaluation, metrics: Mapping[str, Metric], layout: ReportLayout) -> str:
    """Write a sentence with the first headline metric, its interval, and the best baseline, as HTML."""
    name, column, segment = layout.headline[0]
    metric, what = metrics[name], html.escape(layout.metric_at(name, column))
    ours = find_row(evaluation.summary, OURS, name, column, segment)
    if ours is None:
        return f"{what} was not measured: {evaluation.left_out or 'no test data for it'}."
    group = "" if segment == "all" else f" ({segment.replace('_', ' ')})"
    figure = _cell(*ours[["mean", "low", "high", "n_units"]])
    value, _, interval = figure.partition(" ")
    sentence = f"{what}{group}: <b>{value}</b> {metric.unit} {interval}"
    best = best_baseline(evaluation, metric, column, segment)
    if best is None:
        return f"{sentence}. No baseline was measured."
    gain = metric.gain(float(ours["mean"]), float(best["mean"])) / max(abs(float(best["mean"])), 1e-9)
    than = f"{abs(gain):.1%} {'better' if gain >= 0 else 'worse'} than the best baseline"
    return f"{sentence}, {than}, {html.escape(str(best['model']))}: {_cell(*best[['mean', 'low', 'high', 'n_units']])}."


def render(
    title: str,
    evaluation: Evaluation,
    verdicts: Sequence[Verdict],
    metrics: Mapping[str, Metric],
    layout: ReportLayout,
    pictures: Path,
) -> str:
    """Render the report: verdict, headline, embedded pictures, gates, tables, segments and notes."""
    status, sentence = verdict_line(verdicts)
    sections = {
        "Pictures": _pictures(evaluation.pictures, pictures),
        "Gates": _gates(verdicts),
        **_tables(evaluation.summary, metrics, layout),
        "By segment": _segments(evaluation.summary, metrics[layout.headline[0][0]], layout),
        "About this evaluation": _html_list(evaluation.notes),
    }
    names = {name: f"s{i}" for i, name in enumerate(sections)}
    short = {name: re.sub(r" \((lower|higher|nearer)[^)]*\)", "", name) for name in names}
    contents = "".join(f"<a href='#{anchor}'>{html.escape(short[name])}</a>" for name, anchor in names.items())
    body = "".join(f"<h2 id={names[name]}>{html.escape(name)}</h2>\n{section}\n" for name, section in sections.items())
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>\n<div class=page><nav>{contents}</nav><main>"
        f"<h1>{html.escape(title)}</h1>\n<p class='verdict {status}'>{html.escape(sentence)}</p>\n"
        f"<p class=headline>{headline_sentence(evaluation, metrics, layout)}</p>\n"
        f"<p class=note>Intervals are 95% bootstrap intervals over {html.escape(layout.resampling_unit)}.</p>\n"
        f"{body}</main></div></html>\n"
    )


def segment_suffix(segment: str) -> str:
    """Write `, held out` behind a figure of a segment; nothing behind one of all examples."""
    return "" if segment == "all" else f", {segment.replace('_', ' ')}"


def _cell(mean: float, low: float, high: float, n_units: float) -> str:
    return f"{mean:.3g} ({low:.3g}–{high:.3g})" if n_units > 1 else f"{mean:.3g}"


def _pictures(pictures: Mapping[str, str], directory: Path) -> str:
    """Embed the pictures, two in a row; wide ones get a row of their own."""
    figures = []
    for file, caption in pictures.items():
        png = (directory / file).read_bytes()
        width = int.from_bytes(png[16:20])  # of PNG's first chunk
        text = html.escape(caption)
        image = f"<img alt='{text}' src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
        figures.append(
            f"<figure{' class=wide' if width > WIDE else ''}>{image}<figcaption>{text}</figcaption></figure>"
        )
    return f"<div class=pictures>{''.join(figures)}</div>"


def _gates(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return "<p>None are set.</p>"
    rows = []
    for v in verdicts:
        figure = "" if v.figure is None else f"{v.figure:.4g} {html.escape(v.unit)}"
        unit = html.escape(v.unit) if v.figure is None else ""  # the figure has it
        bound = "" if v.bound is None else f"{v.bound:.4g} {unit}".rstrip()
        cells = (html.escape(v.gate), f"<span class={v.status}>{v.status}</span>", figure, bound)
        rows.append("<tr>" + "".join(f"<td>{cell}" for cell in cells) + f"<td class=why>{html.escape(v.reason)}</tr>")
    return "<table><tr><th>gate<th>verdict<th>figure<th>bound<th class=why>reason</tr>" + "".join(rows) + "</table>"


def _tables(summary: pd.DataFrame, metrics: Mapping[str, Metric], layout: ReportLayout) -> dict[str, str]:
    """Return title → HTML table: one per metric of the layout, then all other metrics in one table per column."""
    tables = {}
    for name, segment in layout.tables:
        table = table_of(summary, metrics[name], layout.columns, segment) if name in metrics else pd.DataFrame()
        if not table.empty:
            tables[f"{_metric_title(metrics[name])}{segment_suffix(segment)}"] = _html_table(table)
    in_layout = {name for name, _ in layout.tables}
    others = summary[summary["metric"].isin(set(metrics) - in_layout) & (summary["segment"] == "all")]
    pooled = sorted(set(others["horizon_or_split"]) - set(layout.columns))
    for column in (*layout.columns, *pooled):
        rows = others[others["horizon_or_split"] == column]
        place = f"{column} {layout.column_unit}".rstrip() if column in layout.columns else f"{column} (pooled)"
        if not rows.empty:
            tables[f"Other figures: {place}"] = _html_table(_by_metric(rows, metrics))
    return tables


def _html_list(values: Mapping[str, Any]) -> str:
    items = (
        f"<li>{html.escape(str(k))}: {_html_list(v) if isinstance(v, Mapping) else html.escape(str(v))}</li>"
        for k, v in values.items()
    )
    return f"<ul>{''.join(items)}</ul>"


def _metric_title(metric: Metric) -> str:
    unit = f", {metric.unit}" if metric.unit else ""
    goal = f"{metric.goal:g}" if metric.goal is not None else "0"
    return f"{metric.name}{unit} ({f'nearer to {goal}' if metric.better == 'nearer' else metric.better} is better)"


def _by_metric(rows: pd.DataFrame, metrics: Mapping[str, Metric]) -> pd.DataFrame:
    """Arrange several metrics as a table of metrics × models, our model first."""
    cells = rows.assign(cell=[f"{m:.3f}" for m in rows["mean"]])
    wide = cells.pivot_table(index="metric", columns="model", values="cell", aggfunc="first")
    models = [OURS, *(model for model in wide.columns if model != OURS)] if OURS in wide.columns else wide.columns
    return wide[models].rename(index={name: _metric_title(metrics[name]) for name in wide.index})


def _html_table(table: pd.DataFrame) -> str:
    head = "".join(f"<th>{html.escape(str(c))}" for c in table.columns)
    rows = "".join(
        f"<tr{' class=ours' if i == OURS else ''}><td>{html.escape(str(i))}"
        + "".join(f"<td>{'' if pd.isna(v) else html.escape(str(v))}" for v in row)
        + "</tr>"
        for i, row in zip(table.index, table.to_numpy(), strict=True)
    )
    return f"<table><tr><th>{head}</tr>{rows}</table>"


def _segments(summary: pd.DataFrame, metric: Metric, layout: ReportLayout) -> str:
    """Show our model in every segment, with the number of units in brackets."""
    ours = summary[(summary["model"] == OURS) & (summary["metric"] == metric.name)]
    ours = ours[ours["horizon_or_split"].isin(layout.columns)]
    cells = ours.assign(cell=[f"{m:.3g} ({n})" for m, n in zip(ours["mean"], ours["n_units"], strict=True)])
    wide = cells.pivot_table(index="segment", columns="horizon_or_split", values="cell", aggfunc="first")
    words = html.escape(f"{_metric_title(metric)}: our model (number of {layout.resampling_unit}).")
    return f"<p class=note>{words}</p>" + _html_table(wide[[c for c in layout.columns if c in wide.columns]])


def learning_curves(model: Path, out: Path) -> dict[str, str]:
    """Draw the learning curve of every candidate; returns file name → caption."""
    candidates = read_json(model / "training.json")["candidates"]
    curves = {name: c["curve"] for name, c in candidates.items() if len(c["curve"]) > 1}
    if not curves:
        return {}
    draw_learning(out / "learning.png", curves)
    return {"learning.png": "Learning curves: loss on valid over training, by candidate"}


def training_notes(model: Path) -> dict[str, Any]:
    """Return notes on the chosen candidate and the loss on valid of all, from the training record."""
    training = read_json(model / "training.json")
    candidates = training["candidates"]
    return {
        "hallmark is": f"{training['chosen']}, the best of {len(candidates)} candidates on valid",
        "loss on valid": {name: round(c["valid_loss"], 4) for name, c in candidates.items()},
    }
