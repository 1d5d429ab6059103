"""The monitor's page: what is an alarm, what was read, and the trend of every figure; one file, without a network."""

import csv
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hallmark.files import write_json, write_text
from hallmark.judge.report import STYLE
from hallmark.watch.breakdown import Breakdown
from hallmark.watch.canary import CanaryResult
from hallmark.watch.monitor import Found

WIDTH, HEIGHT = 360, 64  # pixels of a trend


class Verdict(Protocol):
    """A version that was judged against the one before; see `hallmark.succeeding.Judged`."""

    @property
    def result(self) -> CanaryResult:
        """What the outcomes say."""

    @property
    def told(self) -> str:
        """What was done, one sentence; empty if nothing was."""


SECTIONS = {
    "business.": "Business",
    "score.": "Errors, by day of the prediction",
    "estimate.": "Errors, estimated before outcomes",
    "pair.": "Losses of adapters and of the base model",
    "versus.": "Losses of this version and of the one before",
    "service.": "Service",
    "request.": "Inputs",
    "response.": "Answers",
}
MOST_LEDGERS = 50
LATELY = 7  # days
LEDGER_COLUMNS = (
    "state",
    "days",
    "loss beyond the base's",
    "e-value: no worse",
    "e-value: covers",
    "e-value: no better",
)
OF_SEVERITY = {"critical": "failed", "warning": "skipped", "info": "note"}
TRENDS = """
.trends{display:grid;grid-template-columns:repeat(auto-fill,minmax(23rem,1fr));gap:1rem}
svg{width:100%;height:4rem;background:var(--panel);border-radius:4px}path{fill:none;stroke:var(--accent);stroke-width:1.5}
rect{fill:var(--line)}line{stroke:var(--failed);stroke-dasharray:3 3}
"""


def write_page(found: Found, out: Path, judged: Verdict | None = None, challenged: Verdict | None = None) -> None:
    """Write `report.html`, and the same as data: `figures.csv` and `alarms.json`.

    The subjects with the largest errors stand in `subjects.csv` alone: the page is copied to where runs are kept, and
    names nobody.

    Args:
        found: of a run.
        out: directory.
        judged: the version that serves against the one before; None if it is not judged.
        challenged: the version that serves beside it; None if there is none.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "alarms.json", list(found.alarms))
    write_json(out / "summary.json", {"task": found.task, **summary(found)})
    write_text(out / "figures.csv", found.days.to_csv())
    write_text(out / "subjects.csv", _subjects(found.breakdown))
    write_text(out / "report.html", _page(found, judged, challenged))


def summary(found: Found) -> dict[str, Any]:
    """Return what a run has done, for a log and the dashboard."""
    return {
        "predictions read": found.taken.predictions,
        "of them with inputs": found.taken.sampled,
        "outcomes read": found.taken.outcomes,
        "days": len(found.days),
        "figures watched for drift": 0 if found.reference is None else len(found.reference.features),
        "adapters judged": len(found.ledgers),
        "new alarms": len(found.new),
    }


def _page(found: Found, judged: Verdict | None, challenged: Verdict | None) -> str:
    title = f"Monitor of {found.task}"
    status, sentence = _verdict(found)
    sections = {"Alarms": _alarms(found.alarms), "What was read": _table(summary(found)), "Drift alarm": _drift(found)}
    if estimated := _estimated(found):
        sections["Known and estimated errors"] = estimated
    if found.breakdown is not None:
        sections["By version"] = _versions(found.breakdown)
    if judged is not None:
        sections["Against the version before"] = _against(judged)
    if challenged is not None:
        sections["Beside the champion"] = _against(challenged)
    if found.ledgers:
        sections["Adapters against the base model"] = _ledgers(found)
    for prefix, name in SECTIONS.items():
        names = [str(n) for n in found.days.columns if str(n).startswith(prefix)]
        if names:
            sections[name] = f"<div class=trends>{''.join(_trend(found, n) for n in names)}</div>"
    links = "".join(f"<a href='#s{i}'>{html.escape(name)}</a>" for i, name in enumerate(sections))
    body = "".join(f"<h2 id=s{i}>{html.escape(n)}</h2>\n{text}\n" for i, (n, text) in enumerate(sections.items()))
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}{TRENDS}</style>\n<div class=page><nav>{links}</nav><main>"
        f"<h1>{html.escape(title)}</h1>\n<p class='verdict {status}'>{html.escape(sentence)}</p>\n"
        f"<p class=note>{found.at:%Y-%m-%d %H:%M} UTC. A day's figure is the mean over subjects of their means.</p>\n"
        f"{body}</main></div></html>\n"
    )


def _verdict(found: Found) -> tuple[str, str]:
    if found.days.empty:
        read = f"{found.taken.predictions} answers were read; days that are not over are not judged (settle_days)."
        return "skipped", read if found.taken.predictions else "No answer that could be judged is recorded."
    if not found.new:
        return "passed", f"No new alarm; {len(found.alarms)} earlier ones."
    worst = next(s for s in OF_SEVERITY if any(alarm.severity == s for alarm in found.new))
    one = f"1 new alarm, {worst}." if len(found.new) == 1 else f"{len(found.new)} new alarms, the worst {worst}."
    return OF_SEVERITY[worst], one


def _alarms(alarms: Sequence[dict[str, Any]]) -> str:
    if not alarms:
        return "<p>None.</p>"
    rows = [
        f"<tr><td>{html.escape(a['day'])}<td class={OF_SEVERITY[a['severity']]}>{a['severity']}"
        f"<td class=why>{html.escape(a['message'])}</tr>"
        for a in alarms
    ]
    head = "<tr><th>Day<th>Severity<th class=why>What happened, since when, and what to do</tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _subjects(parts: Breakdown | None) -> str:
    """Return the subjects with the largest errors, those with few outcomes left out, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["subject_id", parts.error if parts else "", "outcomes"])
    writer.writerows([subject, *pair] for subject, pair in (parts.subjects if parts else {}).items())
    return text.getvalue()


def _versions(parts: Breakdown) -> str:
    """Show errors and service of every version, side by side."""
    names = sorted({n for _, means in parts.versions.values() for n in means if n.startswith(("score.", "service."))})
    head = "".join(f"<th>{html.escape(version)} ({digest[:8]})" for version, digest in parts.versions)
    counts = "".join(f"<td>{count}" for count, _ in parts.versions.values())
    rows = [f"<tr><th>{head}</tr>", f"<tr><td>subjects{counts}</tr>"]
    for name in names:
        cells = "".join(f"<td>{means[name]:.4g}" if name in means else "<td>" for _, means in parts.versions.values())
        rows.append(f"<tr><td>{html.escape(name)}{cells}</tr>")
    note = f"{parts.first} to {parts.last}. Versions that answered different people are no fair comparison."
    return f"<p class=note>{note}</p><table>{''.join(rows)}</table>"


def _against(judged: Verdict) -> str:
    """Show what the outcomes say about the version that serves, and what was done."""
    result = judged.result
    kind, action = ("failed", "It is worse") if result.decision == "roll_back" else ("passed", "It goes on serving")
    told = f" {html.escape(judged.told)}." if judged.told else ""
    figures = {
        "subjects": result.subjects,
        "subject-days": result.pairs,
        "evidence that it is worse": round(result.evidence, 3),
    }
    return f"<p class='{kind}'>{action}: {html.escape(result.reason)}.{told}</p>{_table(figures)}"


def _ledgers(found: Found) -> str:
    """Show what is known about every adapter, the strongest evidence against one first; without names."""
    known = [account["ledger"] for account in found.ledgers]
    known.sort(key=lambda ledger: (ledger.state == "serving", -ledger.evidence["no_worse"]))
    rows = [
        f"<tr><td>{ledger.state}<td>{ledger.days}<td>{ledger.excess / ledger.base:+.1%}"
        + "".join(f"<td>{value:.3g}" for value in ledger.evidence.values())
        + f"<td class=why>{html.escape(ledger.reason)}</tr>"
        for ledger in known[:MOST_LEDGERS]
        if ledger.base > 0
    ]
    stopped = sum(ledger.state == "stopped" for ledger in known)
    note = (
        f"{len(known)} adapters are compared with the base model, {stopped} are stopped: the base model answers these "
        "subjects. An e-value is the evidence against what its column says; how often that stops an adapter that "
        "is as good as the base stands in the configuration (adapters.rule). <code>hallmark adapters</code> names the "
        "subjects."
    )
    head = "".join(f"<th>{name}" for name in LEDGER_COLUMNS)
    return f"<p class=note>{note}</p><table><tr>{head}<th class=why>Why</tr>{''.join(rows)}</table>"


def _drift(found: Found) -> str:
    unwatched = "".join(f"<li>{html.escape(name)} {html.escape(why)}.</li>" for name, why in found.unwatched.items())
    left = f"<details><summary>{len(found.unwatched)} figures cannot be watched</summary><ul>{unwatched}</ul></details>"
    if found.reference is None:
        why = "fewer regular days than the reference needs" if found.watched else "no figure that it could watch"
        return f"<p>It watches nothing yet: there are {why}.</p>{left if unwatched else ''}"
    r = found.reference
    text = (
        f"{len(r.features)} figures are compared with {r.first} to {r.last} (grey below); a sum of deviations over "
        f"{r.threshold:.1f} standard deviations is an alarm."
    )
    compared = ""
    if found.days.index[-1] > r.last:
        compared = "<p><a href=data.html>Evidently's comparison</a> of the last two weeks with those days.</p>"
    return f"<p>{text}</p>{compared}{left if unwatched else ''}"


def _estimated(found: Found) -> str:
    """Show the errors of the last week as they are known so far and as they were estimated; empty without estimates."""
    names = [str(name) for name in found.days.columns if str(name).startswith("estimate.")]
    rows = []
    for name in names:
        known = name.replace("estimate.", "score.")
        scored = found.days[known] if known in found.days else found.days[name] * np.nan
        week = found.days.index[-LATELY:]
        both = found.days[name].notna() & scored.notna()
        ratio = scored[both].mean() / found.days[name][both].mean() if both.any() else np.nan
        cells = (found.days[name][week].mean(), scored[week].mean(), float(scored[week].notna().sum()), ratio)
        shown = "".join(f"<td>{'not known' if np.isnan(value) else format(value, '.4g')}" for value in cells)
        rows.append(f"<tr><td>{html.escape(known.removeprefix('score.'))}{shown}</tr>")
    if not rows:
        return ""
    note = (
        "An estimate from the answers' own uncertainty, before outcomes are known. It is wrong where the model is "
        "wrong about itself, as after people or sensors have changed; the last column says how far it was off on all "
        "days with outcomes."
    )
    head = f"<tr><th><th>estimated, last {LATELY} days<th>known so far<th>days with outcomes<th>known / estimated</tr>"
    return f"<p class=note>{note}</p><table>{head}{''.join(rows)}</table>"


def _table(values: dict[str, Any]) -> str:
    return "<table>" + "".join(f"<tr><td>{html.escape(k)}<td>{v:,}</tr>" for k, v in values.items()) + "</table>"


def _trend(found: Found, name: str) -> str:
    """Draw a figure over the days: a line, broken where a day has no value, and a mark for every alarm."""
    values = found.days[name].to_numpy(dtype=np.float64)
    known = values[~np.isnan(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    x = np.linspace(4, WIDTH - 4, len(values)) if len(values) > 1 else np.array([WIDTH / 2])
    y = HEIGHT - 6 - (values - low) / ((high - low) or 1.0) * (HEIGHT - 12)
    line, pen = [], "M"
    for place, value in zip(x, y, strict=True):
        line.append("" if np.isnan(value) else f"{pen}{place:.1f} {value:.1f}h.01")
        pen = "M" if np.isnan(value) else "L"
    days = {str(day): place for day, place in zip(found.days.index, x, strict=True)}
    about = (name, name.partition(".")[0])
    marks = [days[a["day"]] for a in found.alarms if a["figure"] in about and a["day"] in days]
    drawn = "".join(f"<line x1={m:.1f} x2={m:.1f} y1=0 y2={HEIGHT} />" for m in marks)
    shade = _shade(found, name, days)
    latest = f"{known[-1]:.4g}" if len(known) else "no value"
    view = f"viewBox='0 0 {WIDTH} {HEIGHT}' preserveAspectRatio=none"
    return (
        f"<figure><svg {view} role=img aria-label='{html.escape(name)}'>{shade}<path d='{''.join(line)}'/>{drawn}</svg>"
        f"<figcaption>{html.escape(name)}: {latest} ({low:.4g} to {high:.4g})</figcaption></figure>"
    )


def _shade(found: Found, name: str, places: dict[str, float]) -> str:
    """Shade the reference days."""
    if found.reference is None or name not in found.reference.features:
        return ""
    first, last = (places.get(str(day)) for day in (found.reference.first, found.reference.last))
    if first is None or last is None:
        return ""
    return f"<rect x={first:.1f} y=0 width={last - first:.1f} height={HEIGHT} opacity=.5 />"
