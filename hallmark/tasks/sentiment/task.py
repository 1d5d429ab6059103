"""The sentiment task: is a short English text positive or negative?"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from hallmark.arrays import Array
from hallmark.contracts import Clean, Prepared, Raw
from hallmark.families.classification.task import ClassTask
from hallmark.families.language.cleaning import clean_texts, key_of, merge_labelled, text_features
from hallmark.read.splits import PartsConfig
from hallmark.read.validation import Ledger, Limits, require_columns
from hallmark.tasks.sentiment.messages import DISCLAIMER, LONGEST, SentimentRequest, SentimentResponse

LENGTHS = (("under 40", 0, 39), ("40 to 89", 40, 89), ("90 and more", 90, LONGEST))


@dataclass(frozen=True)
class SentimentTask(ClassTask):
    """Configuration and contract of the task.

    Attributes:
        name: of the ZenML model and the Bento.
        labels: names, in the order of the model's outputs.
        limits: when cleaning fails.
        parts: how sentences are shared out.
    """

    name: str
    labels: tuple[str, ...]
    limits: Limits
    parts: PartsConfig
    request, response = SentimentRequest, SentimentResponse

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        if len(set(self.labels)) != len(self.labels) or len(self.labels) < 2:
            raise ValueError(f"labels={self.labels} must be two or more, each once")

    @property
    def purpose(self) -> str:
        """What it is for."""
        return (
            f"The tone of a short English text ({', '.join(self.labels)}), with a calibrated probability. {DISCLAIMER}"
        )

    @property
    def card_limits(self) -> Sequence[str]:
        """What it must not be used for, and where it is weak."""
        return (
            "Not for judging people by what they write.",
            "English only; other languages in Latin letters are refused by a rough rule, not by a language model.",
            "One text is one tone: mixed reviews get what prevails, or an abstention.",
            "Irony is read literally; negation and typos are tested in the report.",
        )

    def clean(self, raw: Raw) -> Clean:
        """Check and clean sentences; every dropped, merged or changed row is counted.

        Raises:
            DataError: a column is missing, too much had to go, or a label is left without a row.
        """
        require_columns(raw.rows, ("subject_id", "text", "label"), "the table")
        frame = raw.rows.assign(subject_id=raw.rows["subject_id"].astype("string").fillna("?").astype(str))
        frame = frame.reset_index(drop=True)
        ledger = Ledger(len(frame))
        frame = ledger.drop(frame, frame["label"].isna().to_numpy(), "no label")
        unknown = ~frame["label"].isin(self.labels).to_numpy()
        frame = ledger.drop(frame, unknown, f"a label other than {', '.join(self.labels)}")
        frame = merge_labelled(clean_texts(frame, ledger, LONGEST), ledger)
        return self.settle(frame[["subject_id", "text", "label"]].astype(str), ledger)

    def groups(self, rows: pd.DataFrame) -> "pd.Series[str]":
        """The same text never lies in two parts, whatever its case, spaces and signs."""
        return rows["text"].map(key_of)

    def requests(self, prepared: Prepared, rows: pd.DataFrame) -> Sequence[SentimentRequest]:
        """Ask for every text."""
        return [SentimentRequest(text=text) for text in rows["text"]]

    def texts(self, prepared: Prepared, split: str) -> list[str]:
        """Return the texts of a split."""
        found: list[str] = self.rows_of(prepared, split)["text"].tolist()
        return found

    def segments(self, rows: pd.DataFrame) -> dict[str, Array]:
        """Cut by source and by length."""
        sources = sorted(rows["subject_id"].unique())
        found = {f"source:{source}": (rows["subject_id"] == source).to_numpy() for source in sources}
        length = rows["text"].str.len()
        return found | {f"characters:{name}": length.between(low, high).to_numpy() for name, low, high in LENGTHS}

    def data_for_report(self, prepared: Prepared) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Lengths, signs, sources and labels of train and test; no text."""
        rows, part = prepared.rows, prepared.splits["part"]
        groups = {"source": rows["subject_id"].astype(object), "label": rows["label"].astype(object)}
        table = text_features(rows["text"]).assign(**groups)
        return table[(part == "train").to_numpy()], table[(part == "test").to_numpy()]
