"""CvTask: configuration, cleaning, splits and schemas of matching a CV with a job."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from hallmark.build import Count, InnerShare, Tuple, configuration
from hallmark.contracts import Clean, Prepared, Raw
from hallmark.errors import DataError
from hallmark.families.language.cleaning import key_of, normalise_line, text_features
from hallmark.families.language.screens import Screen
from hallmark.read.splits import PURGED, SPLITS, assign_groups, check_groups
from hallmark.read.validation import CleaningLimits, Ledger, require_columns
from hallmark.tasks.cv.documents import FEWEST_LETTERS
from hallmark.tasks.cv.messages import DISCLAIMER, LONGEST, CvRequest, CvResponse
from hallmark.tasks.cv.redaction import legible
from hallmark.tasks.cv.sources import (
    COLUMNS,
    CV,
    FAMILY,
    GIVEN,
    JOB,
    KINDS,
    LEARN,
    SENTENCE,
    SKILL,
    SPAN,
    TEST,
    WHOLE_NAME,
)  # fmt: skip


@configuration
class CvTask:
    """Configuration and contract of the task.

    Attributes:
        name: name of the ZenML model and of the Bento.
        limits: maximum shares of dropped and changed rows; cleaning fails above them.
        valid_share: share of the training sentences that is held out for early stopping and calibration.
        seed: seed of that split.
        max_skills: maximum number of skills of one job.
        min_probability: minimum probability at which a line of a job counts as asking for a skill.
        screens: checks of generated text for harm.
    """

    name: str
    limits: CleaningLimits
    valid_share: InnerShare
    seed: int
    max_skills: Count
    min_probability: InnerShare
    screens: Annotated[Tuple[Screen], Field(min_length=1)]

    @property
    def purpose(self) -> str:
        """Return the intended use, for the model card."""
        return f"Which skills a job asks for, which lines of a CV show them, and which are missing. {DISCLAIMER}"

    @property
    def card_limits(self) -> Sequence[str]:
        """Return excluded uses and known weaknesses, for the model card."""
        return (
            "Not for deciding about people; for reading and improving a CV beside a job description.",
            "English only. Names, contact data, birth and protected traits are taken out by patterns and lists before "
            "anything is encoded; the report says how many planted ones were missed.",
            "A skill that is shown in words far from the list's may be called missing: a score compares texts.",
            "A line that denies something (no, not, never) shows nothing; irony and boasting are believed.",
            "Degrees, years of experience and the quality of an employer are not judged.",
        )

    def clean(self, raw: Raw) -> Clean:
        """Check and clean all kinds of rows; every dropped or merged row is counted.

        Raises:
            DataError: a column or a kind of row is missing, or too many rows are dropped.
        """
        require_columns(raw.rows, COLUMNS, "the table")
        frame = raw.rows.reset_index(drop=True)
        ledger = Ledger(len(frame))
        frame = ledger.drop(frame, frame["text"].isna().to_numpy(), "no text")
        frame = ledger.drop(frame, ~frame["kind"].isin(KINDS).to_numpy(), f"a kind other than {', '.join(KINDS)}")
        frame = frame.astype(dict.fromkeys(COLUMNS, str))
        pair = frame["kind"].isin((SENTENCE, SPAN))
        frame = frame.assign(text=frame["text"].where(~pair, frame["text"].map(normalise_line)))
        illegible = pair & ~frame["text"].map(legible)
        too_long = frame["text"].str.len() > LONGEST
        frame = ledger.drop(
            frame,
            (illegible | too_long).to_numpy(),
            f"fewer than {FEWEST_LETTERS} letters, or more than {LONGEST:,} characters",
        )
        pair = frame["kind"].isin((SENTENCE, SPAN))
        skills = set(frame.loc[frame["kind"] == SKILL, "text"])
        frame = ledger.drop(frame, (pair & ~frame["label"].isin(skills)).to_numpy(), "a skill that is not in the list")
        repeated = frame.duplicated(["kind", "text", "label", "of", "split"]).to_numpy()
        ledger.count("merged", "the same row again", frame.loc[repeated, "subject_id"])
        frame = frame[~repeated]
        ledger.enforce(self.limits)
        for kind in (SENTENCE, SKILL, JOB, CV, WHOLE_NAME, GIVEN, FAMILY):
            if not (frame["kind"] == kind).any():
                raise DataError(f"no row of the kind {kind!r} is left: the task needs it (data)")
        subjects = pd.DataFrame({"subject_id": sorted(frame["subject_id"].unique())})
        notes = {"kinds": frame["kind"].value_counts().sort_index().to_dict()}
        return Clean(frame.reset_index(drop=True), subjects, ledger.report(len(frame), notes))

    def split(self, clean: Clean) -> pd.DataFrame:
        """Keep the test rows of the source, and sample valid from the others; spans stay with their sentence.

        A sentence that is also in test is purged from train and valid.
        """
        rows = clean.rows
        group = self._groups(rows)
        split = pd.Series("", index=rows.index)
        pair = rows["kind"].isin((SENTENCE, SPAN))
        split[pair & (rows["split"] == TEST)] = "test"
        learn = pair & (rows["split"] == LEARN)
        tested = set(group[split == "test"])
        in_test_too = learn & (group.isin(tested) | rows["text"].map(key_of).isin(tested))
        split[learn] = assign_groups(
            group[learn], rows.loc[learn, "subject_id"], {"valid": self.valid_share}, "train", self.seed
        )
        split[in_test_too] = PURGED
        for name in SPLITS:
            if not ((split == name) & (rows["kind"] == SENTENCE)).any():
                raise DataError(f"no sentence falls into {name}: too few for task.valid_share={self.valid_share}")
        return pd.DataFrame({"row": np.arange(len(split)), "split": split})

    def check_leakage(self, prepared: Prepared) -> dict[str, int]:
        """Check that no sentence, and no span of one, lies in two splits."""
        inside = prepared.splits["split"].isin(SPLITS).to_numpy()
        rows, split = (
            prepared.rows[inside].reset_index(drop=True),
            prepared.splits["split"][inside].reset_index(drop=True),
        )
        return check_groups(self._groups(rows), split)

    def _groups(self, rows: pd.DataFrame) -> "pd.Series[str]":
        """Return the group of every row: a sentence and its spans share one, whatever their case and punctuation."""
        return rows["of"].where(rows["of"] != "", rows["text"]).map(key_of)

    def of_kind(self, prepared: Prepared, kind: str) -> pd.DataFrame:
        """Select the rows of a kind."""
        return prepared.rows[(prepared.rows["kind"] == kind).to_numpy()].reset_index(drop=True)

    def skills(self, prepared: Prepared) -> tuple[str, ...]:
        """List every skill."""
        return tuple(self.of_kind(prepared, SKILL)["text"])

    def pairs(self, prepared: Prepared, split: str) -> list[tuple[str, str]]:
        """Pair the sentences and spans of a split with their skills."""
        rows = prepared.rows[(prepared.splits["split"] == split).to_numpy()]
        return sorted(set(rows[["text", "label"]].itertuples(index=False, name=None)))

    def questions(self, prepared: Prepared, split: str) -> pd.DataFrame:
        """List the sentences of a split: subject_id, text, and `right`, the set of the indices of its skills."""
        inside = (prepared.splits["split"] == split).to_numpy() & (prepared.rows["kind"] == SENTENCE).to_numpy()
        index_of = {skill: i for i, skill in enumerate(self.skills(prepared))}
        rows = prepared.rows[inside].assign(right=lambda rows: rows["label"].map(index_of))
        grouped = [(*key, set(map(int, indices))) for key, indices in rows.groupby(["subject_id", "text"])["right"]]
        return pd.DataFrame(grouped, columns=["subject_id", "text", "right"])

    def data_for_report(self, prepared: Prepared) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return lengths, character shares and sources of the sentences of train and test; no text."""
        split = prepared.splits["split"]
        table = text_features(prepared.rows["text"]).assign(source=prepared.rows["subject_id"].astype(object))
        sentence = (prepared.rows["kind"] == SENTENCE).to_numpy()
        return tuple(table[(split == name).to_numpy() & sentence] for name in ("train", "test"))  # type: ignore[return-value]

    def request_type(self) -> type:
        """Return the pydantic type of a request."""
        return CvRequest

    def response_type(self) -> type:
        """Return the pydantic type of a response."""
        return CvResponse
