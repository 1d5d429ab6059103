"""Count dropped and changed rows by reason and subject, fail above configured limits, and report as HTML."""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hallmark.build import NotNegative, Share, configuration
from hallmark.errors import DataError, SourceError

Mask = npt.NDArray[np.bool_]

ACTIONS = ("excluded", "dropped", "merged", "changed", "noted")


@configuration
class CleaningLimits:
    """Limits beyond which cleaning fails.

    Attributes:
        max_dropped_share: largest share of rows that may be dropped; rows excluded by configuration do not count.
        max_changed_share: largest share of rows that may be merged or changed.
    """

    max_dropped_share: Share
    max_changed_share: Share


@configuration
class ReadingLimits(CleaningLimits):
    """Limits of cleaning for readings over time.

    Attributes:
        min_days: a subject whose first and last reading are fewer days apart is dropped.
        earliest: readings before this ISO date are dropped.
        latest: readings after this ISO date are dropped, because they are in the future; `today` is the day of the run.
    """

    min_days: NotNegative
    earliest: str
    latest: str

    def __post_init__(self) -> None:
        pd.Timestamp(self.earliest)
        if self.latest != "today":
            pd.Timestamp(self.latest)


@dataclass
class Ledger:
    """Counts what happens to rows while a table is cleaned."""

    rows_read: int
    entries: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)

    def count(self, action: str, reason: str, subject_ids: "pd.Series[Any]") -> None:
        """Count rows under an action and its reason."""
        if len(subject_ids):
            entry = self.entries.setdefault((action, reason), {})
            for subject, rows in subject_ids.astype(str).value_counts().items():
                entry[str(subject)] = entry.get(str(subject), 0) + int(rows)

    def drop(self, frame: pd.DataFrame, bad: Mask, reason: str, action: str = "dropped") -> pd.DataFrame:
        """Drop the rows of a mask and count them; `excluded` is for rows that the configuration leaves out."""
        self.count(action, reason, frame.loc[bad, "subject_id"])
        return frame if not bad.any() else frame.loc[~bad]

    def total(self, *actions: str) -> int:
        """Return the number of rows under some actions."""
        return sum(sum(counts.values()) for (action, _), counts in self.entries.items() if action in actions)

    def report(self, rows_kept: int, notes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the cleaning report as JSON values: totals, then every reason with its subjects."""
        reasons = [
            {"action": action, "reason": reason, "rows": sum(counts.values()), "subjects": dict(sorted(counts.items()))}
            for (action, reason), counts in sorted(self.entries.items())
        ]
        totals = {action: self.total(action) for action in ACTIONS}
        return {"rows_read": self.rows_read, "rows_kept": rows_kept, **totals, "reasons": reasons, "notes": dict(notes)}

    def enforce(self, limits: CleaningLimits) -> None:
        """Raise an error if too many rows were dropped or changed.

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
        considered = self.rows_read - self.total("excluded")
        for actions, limit, key in checks:
            rows = self.total(*actions)
            if rows > limit * considered:
                reasons = "; ".join(
                    f"{reason} {sum(counts.values()):,} rows of {len(counts)} subjects"
                    for (action, reason), counts in sorted(self.entries.items())
                    if action in actions
                )
                raise DataError(
                    f"{rows:,} of {considered:,} rows {'/'.join(actions)} ({rows / max(considered, 1):.0%}), "
                    f"task.limits.{key} allows {limit:.0%}: {reasons}. Correct the data or raise the limit"
                )


def require_columns(frame: pd.DataFrame, columns: tuple[str, ...], where: str) -> None:
    """Check that a table has the required columns.

    Raises:
        DataError: names the missing column, the columns of the table and the remedy.
    """
    for column in columns:
        if column not in frame.columns:
            present = ", ".join(map(str, frame.columns[:12]))
            raise DataError(f"{where} has no column {column!r} (found: {present}): rename it or set data.columns")


def rename_columns(frame: pd.DataFrame, columns: Mapping[str, str], where: str) -> pd.DataFrame:
    """Rename the columns of a table; `columns` is new name → name in the table.

    Raises:
        SourceError: another column of the table has the new name already.
    """
    for name, table_name in columns.items():
        if name != table_name and {name, table_name} <= set(frame.columns):
            raise SourceError(
                f"{where} has the columns {name!r} and {table_name!r}, data.columns.{name} names the second: "
                "drop or rename the one that is not meant"
            )
    return frame.rename(columns={table_name: name for name, table_name in columns.items()})


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
