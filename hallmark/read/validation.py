"""Limits on dropped and changed rows, and counts of them by reason and subject; HTML report."""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hallmark.errors import DataError, SourceError

Mask = npt.NDArray[np.bool_]

ACTIONS = ("excluded", "dropped", "merged", "changed", "noted")


@dataclass(frozen=True)
class Limits:
    """When cleaning becomes a failure.

    Attributes:
        max_dropped_share: largest share of rows that may be dropped; who is excluded by configuration does not count.
        max_changed_share: largest share that may be merged or changed.
    """

    max_dropped_share: float
    max_changed_share: float

    def __post_init__(self) -> None:
        for name in ("max_dropped_share", "max_changed_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie within 0…1")


@dataclass(frozen=True)
class ValidationLimits(Limits):
    """When cleaning readings over time becomes a failure.

    Attributes:
        minimum_days: a subject whose first and last reading are fewer days apart is dropped.
        earliest: readings before this ISO date are dropped.
        latest: readings after this ISO date are dropped as lying in the future; `today` is the day of the run.
    """

    minimum_days: float
    earliest: str
    latest: str

    def __post_init__(self) -> None:
        super().__post_init__()
        pd.Timestamp(self.earliest)
        if self.latest != "today":
            pd.Timestamp(self.latest)


@dataclass
class Ledger:
    """Counts what happens to rows while a table is cleaned."""

    rows_read: int
    entries: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)

    def count(self, action: str, reason: str, subject_ids: "pd.Series[Any]") -> None:
        """Count some rows under a reason."""
        if len(subject_ids):
            entry = self.entries.setdefault((action, reason), {})
            for subject, rows in subject_ids.astype(str).value_counts().items():
                entry[str(subject)] = entry.get(str(subject), 0) + int(rows)

    def drop(self, frame: pd.DataFrame, bad: Mask, reason: str, action: str = "dropped") -> pd.DataFrame:
        """Drop rows and count them; `excluded` for those that somebody chose to leave out."""
        self.count(action, reason, frame.loc[bad, "subject_id"])
        return frame if not bad.any() else frame.loc[~bad]

    def total(self, *actions: str) -> int:
        """Count the rows under some actions."""
        return sum(sum(by.values()) for (action, _), by in self.entries.items() if action in actions)

    def report(self, rows_kept: int, notes: Mapping[str, Any]) -> dict[str, Any]:
        """Return JSON values: totals, then every reason with its subjects."""
        reasons = [
            {"action": action, "reason": reason, "rows": sum(by.values()), "subjects": dict(sorted(by.items()))}
            for (action, reason), by in sorted(self.entries.items())
        ]
        totals = {action: self.total(action) for action in ACTIONS}
        return {"rows_read": self.rows_read, "rows_kept": rows_kept, **totals, "reasons": reasons, "notes": dict(notes)}

    def enforce(self, limits: Limits) -> None:
        """Fail when too much had to be dropped or changed.

        Raises:
            DataError: with the share, the limit, its key and the counts by reason.
        """
        checks = (
            (("dropped",), limits.max_dropped_share, "max_dropped_share"),
            (
                ("merged", "changed"),
                limits.max_changed_share,
                "max_changed_share",
            ),
        )
        read = self.rows_read - self.total("excluded")
        for actions, limit, key in checks:
            rows = self.total(*actions)
            if rows > limit * read:
                why = "; ".join(
                    f"{reason} {sum(by.values()):,} rows of {len(by)} subjects"
                    for (action, reason), by in sorted(self.entries.items())
                    if action in actions
                )
                raise DataError(
                    f"{rows:,} of {read:,} rows {'/'.join(actions)} ({rows / max(read, 1):.0%}), "
                    f"task.limits.{key} allows {limit:.0%}: {why}. Mend the data or raise the limit"
                )


def require_columns(frame: pd.DataFrame, columns: tuple[str, ...], where: str) -> None:
    """Check that columns are there.

    Raises:
        DataError: names the missing column, what was found and the remedy.
    """
    for column in columns:
        if column not in frame.columns:
            found = ", ".join(map(str, frame.columns[:12]))
            raise DataError(f"{where} has no column {column!r} (found: {found}): rename it or set data.columns")


def rename_columns(frame: pd.DataFrame, columns: Mapping[str, str], where: str) -> pd.DataFrame:
    """Give a table our names, `columns`: ours → the table's.

    Raises:
        SourceError: the table has a column of our name already and another is meant.
    """
    for ours, theirs in columns.items():
        if ours != theirs and {ours, theirs} <= set(frame.columns):
            raise SourceError(
                f"{where} has the columns {ours!r} and {theirs!r}, data.columns.{ours} names the second: "
                "drop or rename the one that is not meant"
            )
    return frame.rename(columns={theirs: ours for ours, theirs in columns.items()})


def render_html(report: Mapping[str, Any], title: str) -> str:
    """Render a validation report as one self-contained page."""
    rows = "".join(
        f"<tr><td>{html.escape(r['action'])}</td><td>{html.escape(r['reason'])}</td><td>{r['rows']:,}</td>"
        f"<td>{len(r['subjects'])}</td><td><details><summary>by subject</summary>"
        + ", ".join(f"{html.escape(s)}: {n:,}" for s, n in r["subjects"].items())
        + "</details></td></tr>"
        for r in report["reasons"]
    )
    notes = "".join(f"<li>{html.escape(str(k))}: {html.escape(str(v))}</li>" for k, v in report["notes"].items())
    return (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title>"
        "<style>body{font:14px system-ui;margin:2rem;max-width:60rem}td,th{padding:.3rem .8rem;text-align:left;"
        "border-bottom:1px solid #ddd;vertical-align:top}</style>"
        f"<h1>{html.escape(title)}</h1><p>{report['rows_read']:,} rows read, {report['rows_kept']:,} kept; "
        f"{report['excluded']:,} excluded, {report['dropped']:,} dropped, {report['merged']:,} merged, "
        f"{report['changed']:,} changed.</p>"
        f"<table><tr><th>action<th>reason<th>rows<th>subjects<th></tr>{rows}</table><ul>{notes}</ul>"
    )
