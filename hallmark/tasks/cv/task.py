"""CvTask: configuration, cleaning, splits and schemas of matching a CV with a job."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hallmark.contracts import Clean, Prepared, Raw
from hallmark.errors import DataError
from hallmark.families.language.cleaning import key_of, normal, text_features
from hallmark.families.language.screens import Screen
from hallmark.read.splits import PARTS, PURGED, check_parts, share_out
from hallmark.read.validation import Ledger, Limits, require_columns
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


@dataclass(frozen=True)
class CvTask:
    """Configuration and contract of the task.

    Attributes:
        name: of the ZenML model and the Bento.
        limits: when cleaning fails.
        valid_share: of the sentences to learn from that are kept to stop and calibrate by.
        seed: of that draw.
        most_skills: of one job, at most.
        least_probability: from which a line of a job counts as asking for a skill.
        screens: look for harm in generated text.
    """

    name: str
    limits: Limits
    valid_share: float
    seed: int
    most_skills: int
    least_probability: float
    screens: tuple[Screen, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "screens", tuple(self.screens))
        if not 0 < self.valid_share < 1:
            raise ValueError(f"valid_share={self.valid_share} must lie within 0…1")
        if self.most_skills < 1 or not 0 < self.least_probability < 1:
            raise ValueError(
                f"most_skills={self.most_skills} must be at least 1, "
                f"least_probability={self.least_probability} lie within 0…1"
            )
        if not self.screens:
            raise ValueError("screens is empty: generated text must be looked at by one at least")

    @property
    def purpose(self) -> str:
        """What it is for."""
        return f"Which skills a job asks for, which lines of a CV show them, and which are missing. {DISCLAIMER}"

    @property
    def card_limits(self) -> Sequence[str]:
        """What it must not be used for, and where it is weak."""
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
            DataError: a column or a kind of row is missing, or too much had to go.
        """
        require_columns(raw.rows, COLUMNS, "the table")
        frame = raw.rows.reset_index(drop=True)
        ledger = Ledger(len(frame))
        frame = ledger.drop(frame, frame["text"].isna().to_numpy(), "no text")
        frame = ledger.drop(frame, ~frame["kind"].isin(KINDS).to_numpy(), f"a kind other than {', '.join(KINDS)}")
        frame = frame.astype(dict.fromkeys(COLUMNS, str))
        pair = frame["kind"].isin((SENTENCE, SPAN))
        frame = frame.assign(text=frame["text"].where(~pair, frame["text"].map(normal)))
        bad = pair & ~frame["text"].map(legible)
        long = frame["text"].str.len() > LONGEST
        frame = ledger.drop(
            frame, (bad | long).to_numpy(), f"fewer than {FEWEST_LETTERS} letters, or more than {LONGEST:,} characters"
        )
        pair = frame["kind"].isin((SENTENCE, SPAN))
        skills = set(frame.loc[frame["kind"] == SKILL, "text"])
        frame = ledger.drop(frame, (pair & ~frame["label"].isin(skills)).to_numpy(), "a skill that is not in the list")
        again = frame.duplicated(["kind", "text", "label", "of", "part"]).to_numpy()
        ledger.count("merged", "the same row again", frame.loc[again, "subject_id"])
        frame = frame[~again]
        ledger.enforce(self.limits)
        for kind in (SENTENCE, SKILL, JOB, CV, WHOLE_NAME, GIVEN, FAMILY):
            if not (frame["kind"] == kind).any():
                raise DataError(f"no row of the kind {kind!r} is left: the task needs it (data)")
        subjects = pd.DataFrame({"subject_id": sorted(frame["subject_id"].unique())})
        notes = {"kinds": frame["kind"].value_counts().sort_index().to_dict()}
        return Clean(frame.reset_index(drop=True), subjects, ledger.report(len(frame), notes))

    def split(self, clean: Clean) -> pd.DataFrame:
        """Keep what the source tests on, and draw valid from the rest, sentences whole.

        A sentence that the source has in both is taken out of what is learned from.
        """
        rows = clean.rows
        group = self._groups(rows)
        part = pd.Series("", index=rows.index)
        pair = rows["kind"].isin((SENTENCE, SPAN))
        part[pair & (rows["part"] == TEST)] = "test"
        learn = pair & (rows["part"] == LEARN)
        tested = set(group[part == "test"])
        torn = learn & (group.isin(tested) | rows["text"].map(key_of).isin(tested))
        part[learn] = share_out(
            group[learn], rows.loc[learn, "subject_id"], {"valid": self.valid_share}, "train", self.seed
        )
        part[torn] = PURGED
        for name in PARTS:
            if not ((part == name) & (rows["kind"] == SENTENCE)).any():
                raise DataError(f"no sentence falls into {name}: too few for task.valid_share={self.valid_share}")
        return pd.DataFrame({"row": np.arange(len(part)), "part": part})

    def check_leakage(self, prepared: Prepared) -> dict[str, int]:
        """Check that no sentence, and no span of one, lies in two parts."""
        inside = prepared.splits["part"].isin(PARTS).to_numpy()
        rows, part = (
            prepared.rows[inside].reset_index(drop=True),
            prepared.splits["part"][inside].reset_index(drop=True),
        )
        return check_parts(self._groups(rows), part)

    def _groups(self, rows: pd.DataFrame) -> "pd.Series[str]":
        """A sentence and its spans stay together, whatever their case and signs."""
        return rows["of"].where(rows["of"] != "", rows["text"]).map(key_of)

    def of_kind(self, prepared: Prepared, kind: str) -> pd.DataFrame:
        """Select the rows of a kind."""
        return prepared.rows[(prepared.rows["kind"] == kind).to_numpy()].reset_index(drop=True)

    def skills(self, prepared: Prepared) -> tuple[str, ...]:
        """List every skill."""
        return tuple(self.of_kind(prepared, SKILL)["text"])

    def pairs(self, prepared: Prepared, part: str) -> list[tuple[str, str]]:
        """Pair the sentences and spans of a part with their skills."""
        rows = prepared.rows[(prepared.splits["part"] == part).to_numpy()]
        return sorted(set(rows[["text", "label"]].itertuples(index=False, name=None)))

    def questions(self, prepared: Prepared, part: str) -> pd.DataFrame:
        """List the sentences of a part: subject_id, text, and `right`, the set of its skills' numbers."""
        inside = (prepared.splits["part"] == part).to_numpy() & (prepared.rows["kind"] == SENTENCE).to_numpy()
        number = {skill: i for i, skill in enumerate(self.skills(prepared))}
        rows = prepared.rows[inside].assign(right=lambda rows: rows["label"].map(number))
        grouped = [(*key, set(map(int, found))) for key, found in rows.groupby(["subject_id", "text"])["right"]]
        return pd.DataFrame(grouped, columns=["subject_id", "text", "right"])

    def data_for_report(self, prepared: Prepared) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Lengths, signs and sources of the sentences of train and test; no text."""
        part = prepared.splits["part"]
        table = text_features(prepared.rows["text"]).assign(source=prepared.rows["subject_id"].astype(object))
        sentence = (prepared.rows["kind"] == SENTENCE).to_numpy()
        return tuple(table[(part == name).to_numpy() & sentence] for name in ("train", "test"))  # type: ignore[return-value]

    def request_type(self) -> type:
        """The pydantic type of a request."""
        return CvRequest

    def response_type(self) -> type:
        """The pydantic type of an answer."""
        return CvResponse
