"""Classify texts, with calibrated probabilities or abstentions."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hallmark.families.classification.temperature import Temperature
from hallmark.families.language.cleaning import normalise_line, rejection_reason
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
        version: version of the model.
        digest: sha256 of the hallmark.
    """

    classifier: Classifier
    calibration: Temperature
    version: str
    digest: str

    def probabilities(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Compute the calibrated probabilities of readable texts, (B, labels)."""
        ids = self.classifier.tokens.ids([normalise_line(text) for text in texts])
        return self.calibration.probabilities(self.classifier.logits(ids))

    def predict(self, requests: Sequence[SentimentRequest]) -> list[SentimentResponse]:
        """Answer every request in order."""
        return [self._answer(normalise_line(request.text)) for request in requests]

    def _answer(self, text: str) -> SentimentResponse:
        reason, ids, probabilities = rejection_reason(text, LONGEST), [], np.empty(0)
        if not reason:
            [ids] = self.classifier.tokens.ids([text])
            max_tokens = self.classifier.tokens.max_tokens
            if len(ids) > max_tokens:
                reason = f"the text has {len(ids):,} tokens, the model reads {max_tokens} at once: cut it into parts"
                ids = []
            else:
                probabilities = self.calibration.probabilities(self.classifier.logits([ids]))[0]
                if probabilities.max() < self.calibration.threshold:
                    reason = f"no label reaches the probability {self.calibration.threshold:.2f}"
        labels = self.classifier.labels
        return SentimentResponse(
            status="abstained" if reason else "classified",
            reason=reason,
            label=None if reason else labels[int(probabilities.argmax())],
            probabilities=[
                LabelProbability(label=label, probability=round(float(p), 6))
                for label, p in zip(labels, probabilities, strict=False)
            ],
            threshold=self.calibration.threshold,
            tokens=len(ids),
            text_sha256=hashlib.sha256(text.encode()).hexdigest(),
            model_version=self.version,
            hallmark_sha256=self.digest,
            disclaimer=DISCLAIMER,
        )
