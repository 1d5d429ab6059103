"""The sentiment task: does a short English text speak well or ill of its subject?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel

from hallmark.contracts import Clean, Prepared, Progress, Raw
from hallmark.errors import DataError
from hallmark.learn.candidates import Follow, distinct, fit_candidates
from hallmark.learn.impersonal import Impersonal, write_nobody
from hallmark.learn.temperature import TemperatureConfig, fit_temperature, load_temperature, save_temperature
from hallmark.learn.text_classifier import Classifier, fit_classifier, load_classifier, save_classifier
from hallmark.learn.trainer import TrainConfig, TrainResult, quiet, seed_everything
from hallmark.models.encoder import EncoderConfig
from hallmark.read.parts import PartsConfig, check_parts, split_groups
from hallmark.read.texts import clean_texts, key_of, merge_labelled, text_features
from hallmark.read.validation import Ledger, Limits, require_columns
from hallmark.tasks.sentiment.messages import DISCLAIMER, LONGEST, SentimentRequest, SentimentResponse
from hallmark.tasks.sentiment.predictor import SentimentPredictor


@dataclass(frozen=True)
class SentimentTask:
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
        ledger.enforce(self.limits)
        if absent := [label for label in self.labels if not (frame["label"] == label).any()]:
            raise DataError(f"no row has the label {absent[0]!r}: task.labels names {', '.join(self.labels)}")
        rows = frame[["subject_id", "text", "label"]].astype(str).reset_index(drop=True)
        subjects = pd.DataFrame({"subject_id": sorted(rows["subject_id"].unique())})
        notes = {"labels": rows["label"].value_counts().sort_index().to_dict()}
        return Clean(rows, subjects, ledger.report(len(rows), notes))

    def split(self, clean: Clean) -> pd.DataFrame:
        """Share sentences out, sources and labels alike in every part; the same text never lies in two."""
        strata = clean.rows["subject_id"] + "/" + clean.rows["label"]
        part = split_groups(clean.rows["text"].map(key_of), strata, self.parts)
        return pd.DataFrame({"row": np.arange(len(part)), "part": part})

    def check_leakage(self, prepared: Prepared) -> dict[str, int]:
        """Check that no text lies in two parts, whatever its case, spaces and signs."""
        return check_parts(prepared.rows["text"].map(key_of), prepared.splits["part"])

    def rows_of(self, prepared: Prepared, part: str) -> pd.DataFrame:
        """Select one part's rows."""
        return prepared.rows[(prepared.splits["part"] == part).to_numpy()].reset_index(drop=True)

    def fit(
        self,
        prepared: Prepared,
        candidates: Sequence[EncoderConfig],
        nodes: Sequence[Mapping[str, Any]],
        train: TrainConfig,
        out: Path,
        scratch: Path,
        progress: Progress,
        look: Callable[[int, float], None] | None = None,
    ) -> dict[str, Any]:
        """Fit every candidate; see `Task.fit`."""
        quiet()
        seed_everything(train.seed, train.threads)
        distinct(candidates)
        learn, valid = self._texts(prepared, "train"), self._texts(prepared, "valid")

        def fit_one(config: EncoderConfig, follow: Follow) -> tuple[Classifier, TrainResult]:
            return fit_classifier(config, self.labels, learn, valid, train, scratch / config.name, follow)

        facts = {"train_texts": len(learn[0]), "valid_texts": len(valid[0])}
        return fit_candidates(candidates, nodes, fit_one, save_classifier, out, facts, progress, look)

    def personalise(
        self, prepared: Prepared, model: Path, config: Impersonal, scratch: Path, progress: Progress
    ) -> dict[str, Any]:
        """Nobody is personalised."""
        write_nobody(model / "people")
        return {}

    def calibrate(
        self, prepared: Prepared, model: Path, config: TemperatureConfig, progress: Progress
    ) -> dict[str, Any]:
        """Fit temperature and threshold on valid."""
        quiet()
        valid = self.rows_of(prepared, "valid")
        classifier = load_classifier(model / "base")
        logits = classifier.logits(classifier.tokens.ids(valid["text"].tolist()))
        found = fit_temperature(logits, self.numbers(valid["label"]), config)
        save_temperature(model / "calibration", found)
        return {"temperature": found.temperature, "threshold": found.threshold}

    def numbers(self, labels: "pd.Series[str]") -> Any:
        """Turn names into numbers, (B,)."""
        return labels.map({label: i for i, label in enumerate(self.labels)}).to_numpy()

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

    def request_type(self) -> type[BaseModel]:
        """The pydantic type of a request."""
        return SentimentRequest

    def response_type(self) -> type[BaseModel]:
        """The pydantic type of an answer."""
        return SentimentResponse

    def _texts(self, prepared: Prepared, part: str) -> tuple[list[str], list[str]]:
        rows = self.rows_of(prepared, part)
        return rows["text"].tolist(), rows["label"].tolist()
