"""ClassTask: base class of classification tasks: cleaning, stratified group split, leakage check, label indices."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from hallmark.arrays import Array
from hallmark.contracts import Clean, Prepared, Raw
from hallmark.errors import DataError
from hallmark.outcomes import CLOCK_SKEW, Outcome, OutcomeError
from hallmark.read.splits import GroupSplitConfig, check_groups, split_groups
from hallmark.read.validation import CleaningLimits, Ledger, require_columns


class ClassTask:
    """Base class of classification tasks; subclasses implement the methods that raise NotImplementedError.

    Rows have the columns subject_id and label.
    """

    labels: tuple[str, ...]
    """Names of the labels, in the order of the model's outputs."""

    split_config: Any
    """How rows are split: a `GroupSplitConfig`, unless the task overrides `split`."""

    limits: CleaningLimits
    """Limits beyond which cleaning fails."""

    request: ClassVar[type]
    """The pydantic type of a request."""

    response: ClassVar[type]
    """The pydantic type of an answer."""

    label_field: ClassVar[str] = "label"
    """Field of an answer that names the label, also beside each of its `probabilities`."""

    def clean(self, raw: Raw) -> Clean:
        """Drop and count rows with missing values or an unknown label.

        Raises:
            DataError: more rows were dropped than the limits allow, or a label has no row left.
        """
        require_columns(raw.rows, ("subject_id", "label"), "the table")
        frame = raw.rows.reset_index(drop=True)
        ledger = Ledger(len(frame))
        frame = ledger.drop(frame, frame.isna().any(axis=1).to_numpy(), "a value is missing")
        unknown = ~frame["label"].isin(self.labels).to_numpy()
        return self.settle(ledger.drop(frame, unknown, f"a label other than {', '.join(self.labels)}"), ledger)

    def settle(self, rows: pd.DataFrame, ledger: Ledger) -> Clean:
        """Check the counts against the limits and return the clean rows with their report."""
        ledger.enforce(self.limits)
        if absent := [label for label in self.labels if not (rows["label"] == label).any()]:
            raise DataError(f"no row has the label {absent[0]!r} of {', '.join(self.labels)}: nothing to learn it from")
        subjects = pd.DataFrame({"subject_id": sorted(rows["subject_id"].unique())})
        notes = {"labels": rows["label"].value_counts().sort_index().to_dict()}
        return Clean(rows.reset_index(drop=True), subjects, ledger.report(len(rows), notes))

    def groups(self, rows: pd.DataFrame) -> "pd.Series[str]":
        """Return the group of every row; a group must not be in two splits."""
        raise NotImplementedError

    def requests(self, prepared: Prepared, rows: pd.DataFrame) -> Sequence[Any]:
        """Convert some rows of `rows_of` to requests to the service."""
        raise NotImplementedError

    def segments(self, rows: pd.DataFrame) -> dict[str, Array]:
        """Return the segments of rows: name → mask, (B,)."""
        return {}

    def resampling_units(self, rows: pd.DataFrame) -> Array | None:
        """Return the resampling unit of every row as a number, (B,); None if every row is its own unit."""
        return None

    def split(self, clean: Clean) -> pd.DataFrame:
        """Assign rows to splits, stratified by subject and label; a group is never divided."""
        assert isinstance(self.split_config, GroupSplitConfig)
        strata = clean.rows["subject_id"].astype(str) + "/" + clean.rows["label"]
        split = split_groups(self.groups(clean.rows), strata, self.split_config)
        return pd.DataFrame({"row": np.arange(len(split)), "split": split})

    def check_leakage(self, prepared: Prepared) -> dict[str, int]:
        """Check that no group is in two splits."""
        return check_groups(self.groups(prepared.rows), prepared.splits["split"])

    def rows_of(self, prepared: Prepared, split: str) -> pd.DataFrame:
        """Select one split's rows."""
        return prepared.rows[(prepared.splits["split"] == split).to_numpy()].reset_index(drop=True)

    def numbers(self, labels: "pd.Series[str]") -> Array:
        """Convert label names to indices, (B,)."""
        indices: Array = labels.map({label: i for i, label in enumerate(self.labels)}).to_numpy()
        return indices

    def request_type(self) -> type:
        """The pydantic type of a request."""
        return self.request

    def response_type(self) -> type:
        """The pydantic type of an answer."""
        return self.response

    def check_outcome(self, response: Any, outcome: Outcome, asked_at: datetime) -> None:
        """Check the label and its time; see `HasOutcomes`."""
        if outcome.horizon:
            raise OutcomeError("horizon", "must be empty: this task has no horizons")
        if outcome.value not in self.labels:
            raise OutcomeError("value", f"must be one of {', '.join(self.labels)}")
        if outcome.observed_at < asked_at - CLOCK_SKEW:
            raise OutcomeError(
                "observed_at", "lies before the prediction: it must be the time when the label was learned"
            )

    def errors(self, response: Any, horizon: str, value: float | str) -> Mapping[str, float]:
        """Compare an answer with the true label; see `HasOutcomes`."""
        label = getattr(response, self.label_field, None)
        shares = {getattr(p, self.label_field): p.probability for p in getattr(response, "probabilities", ())}
        found = {} if label is None else {"error": float(label != value)}
        if shares:
            found["brier"] = sum((share - (name == value)) ** 2 for name, share in shares.items())
        return found

    def expected(self, response: Any, horizon: str) -> Mapping[str, float]:
        """Estimate both errors from the calibrated probabilities; see `Estimating`."""
        label = getattr(response, self.label_field, None)
        shares = {getattr(p, self.label_field): p.probability for p in getattr(response, "probabilities", ())}
        if label is None or label not in shares:
            return {}
        return {"error": 1 - shares[label], "brier": sum(share * (1 - share) for share in shares.values())}
