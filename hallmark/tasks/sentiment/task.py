"""The sentiment task: classify whether a short English text is positive or negative."""

from collections.abc import Sequence

import pandas as pd

from hallmark.arrays import Array
from hallmark.build import Tuple, configuration
from hallmark.contracts import Clean, Prepared, Raw
from hallmark.families.classification.task import ClassTask
from hallmark.families.language.cleaning import clean_texts, key_of, merge_labelled, text_features
from hallmark.read.splits import GroupSplitConfig
from hallmark.read.validation import CleaningLimits, Ledger, require_columns
from hallmark.tasks.sentiment.messages import DISCLAIMER, LONGEST, SentimentRequest, SentimentResponse

LENGTHS = (("under 40", 0, 39), ("40 to 89", 40, 89), ("90 and more", 90, LONGEST))


@configuration
class SentimentTask(ClassTask):
    """Configuration and contract of the task.

    Attributes:
        name: name of the ZenML model and of the Bento.
        labels: label names, in the order of the model's outputs.
        limits: maximum shares of dropped and changed rows; cleaning fails above them.
        split_config: how sentences are split.
    """

    name: str
    labels: Tuple[str]
    limits: CleaningLimits
    split_config: GroupSplitConfig
    request, response = SentimentRequest, SentimentResponse

    def __post_init__(self) -> None:
        if len(set(self.labels)) != len(self.labels) or len(self.labels) < 2:
            raise ValueError(f"labels={self.labels} must be two or more, each once")

    @property
    def purpose(self) -> str:
        """Return the intended use, for the model card."""
        return (
            f"The tone of a short English text ({', '.join(self.labels)}), with a calibrated probability. {DISCLAIMER}"
        )

    @property
    def card_limits(self) -> Sequence[str]:
        """Return excluded uses and known weaknesses, for the model card."""
        return (
            "Not for judging people by what they write.",
            "English only; other languages in Latin letters are refused by a rough rule, not by a language model.",
            "One text is one tone: mixed reviews get what prevails, or an abstention.",
            "Irony is read literally; negation and typos are tested in the report.",
        )

    def clean(self, raw: Raw) -> Clean:
        """Check and clean sentences; every dropped, merged or changed row is counted.

        Raises:
            DataError: a column is missing, too many rows are dropped, or a label is left without a row.
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
        """Return the group of every row: texts that differ only in case, spaces or punctuation share a split."""
        return rows["text"].map(key_of)

    def requests(self, prepared: Prepared, rows: pd.DataFrame) -> Sequence[SentimentRequest]:
        """Build a request for every text."""
        return [SentimentRequest(text=text) for text in rows["text"]]

    def texts(self, prepared: Prepared, split: str) -> list[str]:
        """Return the texts of a split."""
        texts: list[str] = self.rows_of(prepared, split)["text"].tolist()
        return texts

    def segments(self, rows: pd.DataFrame) -> dict[str, Array]:
        """Return masks of the segments by source and by length."""
        sources = sorted(rows["subject_id"].unique())
        by_source = {f"source:{source}": (rows["subject_id"] == source).to_numpy() for source in sources}
        length = rows["text"].str.len()
        return by_source | {f"characters:{name}": length.between(low, high).to_numpy() for name, low, high in LENGTHS}

    def data_for_report(self, prepared: Prepared) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return lengths, character shares, sources and labels of train and test; no text."""
        rows, split = prepared.rows, prepared.splits["split"]
        groups = {"source": rows["subject_id"].astype(object), "label": rows["label"].astype(object)}
        table = text_features(rows["text"]).assign(**groups)
        return table[(split == "train").to_numpy()], table[(split == "test").to_numpy()]
