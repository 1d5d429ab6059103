"""SentimentPredictor: texts in, calibrated probabilities or abstentions out."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hallmark.families.classification.temperature import Temperature
from hallmark.families.language.cleaning import normal, unreadable
from hallmark.families.language.text_classifier import Classifier
from hallmark.tasks.sentiment.messages import (
    DISCLAIMER,
    LONGEST,
    LabelProbability,
    SentimentRequest,
    SentimentResponse,
)


@dataclass(frozen=True)
class SentimentPredictor:
    """A trained classifier with its calibration.

    Attributes:
        classifier: the model.
        calibration: temperature and threshold.
        version: of the model.
        digest: sha256 of the hallmark.
    """

    classifier: Classifier
    calibration: Temperature
    version: str
    digest: str

    def probabilities(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Classify readable texts, (B, labels)."""
        ids = self.classifier.tokens.ids([normal(text) for text in texts])
        return self.calibration.probabilities(self.classifier.logits(ids))

    def predict(self, requests: Sequence[SentimentRequest]) -> list[SentimentResponse]:
        """Answer every request in order."""
        return [self._answer(normal(request.text)) for request in requests]

    def _answer(self, text: str) -> SentimentResponse:
        reason, ids, found = unreadable(text, LONGEST), [], np.empty(0)
        if not reason:
            [ids] = self.classifier.tokens.ids([text])
            longest = self.classifier.tokens.max_tokens
            if len(ids) > longest:
                reason = f"the text has {len(ids):,} tokens, the model reads {longest} at once: cut it into parts"
                ids = []
            else:
                found = self.calibration.probabilities(self.classifier.logits([ids]))[0]
                if found.max() < self.calibration.threshold:
                    reason = f"no label reaches the probability {self.calibration.threshold:.2f}"
        labels = self.classifier.labels
        return SentimentResponse(
            status="abstained" if reason else "classified",
            reason=reason,
            label=None if reason else labels[int(found.argmax())],
            probabilities=[
                LabelProbability(label=label, probability=round(float(p), 6))
                for label, p in zip(labels, found, strict=False)
            ],
            threshold=self.calibration.threshold,
            tokens=len(ids),
            text_sha256=hashlib.sha256(text.encode()).hexdigest(),
            model_version=self.version,
            hallmark_sha256=self.digest,
            disclaimer=DISCLAIMER,
        )
