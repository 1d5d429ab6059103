"""The sentiment task: does a short English text speak well or ill of its subject?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from hallmark.arrays import Array
from hallmark.contracts import Clean, Prepared, Raw
from hallmark.families.classification.baselines import counted_words, regression
from hallmark.families.classification.task import ClassTask
from hallmark.families.classification.temperature import load_temperature
from hallmark.families.language.cleaning import clean_texts, key_of, merge_labelled, text_features
from hallmark.families.language.encoder import Encoder, EncoderConfig, merged, vectors
from hallmark.families.language.text_classifier import Classifier, fit_classifier, load_classifier, save_classifier
from hallmark.learn.candidates import Follow
from hallmark.learn.export import Onnx, export_encoder
from hallmark.learn.trainer import TrainConfig, TrainResult, quiet, seed_everything
from hallmark.read.splits import PARTS, PartsConfig
from hallmark.read.validation import Ledger, Limits, require_columns
from hallmark.tasks.sentiment.messages import DISCLAIMER, LONGEST, SentimentRequest, SentimentResponse
from hallmark.tasks.sentiment.predictor import SentimentPredictor

COMPARED = 200  # texts of test that another form of the model is compared on
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
    inputs: ClassVar = {
        "tfidf": "words and pairs of words of the training texts",
        "frozen": "the pretrained encoder's vectors as they are",
        "hallmark": "the text; the encoder has learned too",
    }

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

    def fit_one(
        self, prepared: Prepared, config: EncoderConfig, train: TrainConfig, scratch: Path, follow: Follow
    ) -> tuple[Classifier, TrainResult]:
        """Fine-tune an encoder; see `ClassTask.fit_one`."""
        quiet()
        seed_everything(train.seed, train.threads)
        learn, valid = self._texts(prepared, "train"), self._texts(prepared, "valid")
        return fit_classifier(config, self.labels, learn, valid, train, scratch, follow)

    def save(self, model: Classifier, node: Mapping[str, Any], directory: Path) -> dict[str, Any]:
        """Write what was learned; see `ClassTask.save`."""
        return save_classifier(model, node, directory)

    def logits(self, prepared: Prepared, base: Path, part: str) -> tuple[Array, Array]:
        """Classify one part's texts; see `ClassTask.logits`."""
        quiet()
        rows, classifier = self.rows_of(prepared, part), load_classifier(base)
        return classifier.logits(classifier.tokens.ids(rows["text"].tolist())), self.numbers(rows["label"])

    def requests(self, prepared: Prepared, rows: pd.DataFrame) -> Sequence[SentimentRequest]:
        """Ask for every text."""
        return [SentimentRequest(text=text) for text in rows["text"]]

    def baselines(self, prepared: Prepared, model: Path) -> dict[str, Array]:
        """Counted words, and the pretrained encoder left as it is; valid chooses their penalties."""
        rows = {part: self._texts(prepared, part) for part in PARTS}
        target = {part: self.numbers(pd.Series(labels)) for part, (_, labels) in rows.items()}
        words = [(rows[part][0], target[part]) for part in ("train", "valid")]
        tokens = load_classifier(model / "base").tokens
        encoder = Encoder(tokens.directory).eval()
        frozen = {part: vectors(encoder, tokens, texts) for part, (texts, _) in rows.items()}
        seen = [(frozen[part], target[part]) for part in ("train", "valid")]
        return {
            "tfidf": counted_words(words[0], words[1], rows["test"][0]),
            "frozen": regression(seen[0], seen[1], frozen["test"]),
        }

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

    def predictor(self, model: Path, version: str = "", digest: str = "") -> SentimentPredictor:
        """Open a model directory."""
        quiet()
        return SentimentPredictor(
            load_classifier(model / "base"), load_temperature(model / "calibration"), version, digest
        )

    def export(self, model: Path, form: Onnx) -> None:
        """Write the encoder; see `Exporting`."""
        export_encoder(merged(load_classifier(model / "base").model.encoder), model / "base", form)

    def compared(self, prepared: Prepared, model: Path) -> Array:
        """Probabilities of test texts; see `Exporting`."""
        return self.predictor(model).probabilities(self._texts(prepared, "test")[0][:COMPARED])

    def _texts(self, prepared: Prepared, part: str) -> tuple[list[str], list[str]]:
        rows = self.rows_of(prepared, part)
        return rows["text"].tolist(), rows["label"].tolist()
