"""ClassTask: base class of classification tasks, which have no per-subject adapters."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from hallmark.arrays import Array
from hallmark.contracts import Clean, Prepared, Raw
from hallmark.errors import DataError
from hallmark.read.splits import PartsConfig, check_parts, split_groups
from hallmark.read.validation import Ledger, Limits, require_columns


class ClassTask:
    """The half of a `Task` that is the same for all of them; what raises NotImplementedError is a task's own.

    Rows have the columns subject_id and label.
    """

    labels: tuple[str, ...]
    """Names, in the order of the model's outputs."""

    parts: Any
    """How rows are shared out; a `PartsConfig` unless the task splits in a way of its own."""

    limits: Limits
    """When cleaning fails."""

    request: ClassVar[type]
    """The pydantic type of a request."""

    response: ClassVar[type]
    """The pydantic type of an answer."""

    def clean(self, raw: Raw) -> Clean:
        """Drop and count rows that are not whole or have an unknown label.

        Raises:
            DataError: too much had to go, or a label is left without a row.
        """
        require_columns(raw.rows, ("subject_id", "label"), "the table")
        frame = raw.rows.reset_index(drop=True)
        ledger = Ledger(len(frame))
        frame = ledger.drop(frame, frame.isna().any(axis=1).to_numpy(), "a value is missing")
        unknown = ~frame["label"].isin(self.labels).to_numpy()
        return self.settle(ledger.drop(frame, unknown, f"a label other than {', '.join(self.labels)}"), ledger)

    def settle(self, rows: pd.DataFrame, ledger: Ledger) -> Clean:
        """Hold clean rows against the limits and close the account."""
        ledger.enforce(self.limits)
        if absent := [label for label in self.labels if not (rows["label"] == label).any()]:
            raise DataError(f"no row has the label {absent[0]!r} of {', '.join(self.labels)}: nothing to learn it from")
        subjects = pd.DataFrame({"subject_id": sorted(rows["subject_id"].unique())})
        notes = {"labels": rows["label"].value_counts().sort_index().to_dict()}
        return Clean(rows.reset_index(drop=True), subjects, ledger.report(len(rows), notes))

    def groups(self, rows: pd.DataFrame) -> "pd.Series[str]":
        """Name what may not lie in two parts."""
        raise NotImplementedError

    def requests(self, prepared: Prepared, rows: pd.DataFrame) -> Sequence[Any]:
        """Return some rows of `rows_of` as requests to the service."""
        raise NotImplementedError

    def segments(self, rows: pd.DataFrame) -> dict[str, Array]:
        """Cut rows into segments, name → which, (B,)."""
        return {}

    def drawn_together(self, rows: pd.DataFrame) -> Array | None:
        """Number what a bootstrap must draw together, (B,); None if every row stands alone."""
        return None

    def split(self, clean: Clean) -> pd.DataFrame:
        """Share rows out, subjects and labels alike in every part, groups whole."""
        assert isinstance(self.parts, PartsConfig)
        strata = clean.rows["subject_id"].astype(str) + "/" + clean.rows["label"]
        part = split_groups(self.groups(clean.rows), strata, self.parts)
        return pd.DataFrame({"row": np.arange(len(part)), "part": part})

    def check_leakage(self, prepared: Prepared) -> dict[str, int]:
        """Check that no group lies in two parts."""
        return check_parts(self.groups(prepared.rows), prepared.splits["part"])

    def rows_of(self, prepared: Prepared, part: str) -> pd.DataFrame:
        """Select one part's rows."""
        return prepared.rows[(prepared.splits["part"] == part).to_numpy()].reset_index(drop=True)

    def numbers(self, labels: "pd.Series[str]") -> Array:
        """Turn names into numbers, (B,)."""
        found: Array = labels.map({label: i for i, label in enumerate(self.labels)}).to_numpy()
        return found

    def request_type(self) -> type:
        """The pydantic type of a request."""
        return self.request

    def response_type(self) -> type:
        """The pydantic type of an answer."""
        return self.response
