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

    @property
    def networks(self) -> list[Any]:
        """The encoder; see `Placeable`."""
        return [self.classifier.model.encoder]

    def probabilities(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Compute the calibrated probabilities of readable texts, (B, labels)."""
        ids = self.classifier.tokens.ids([normalise_line(text) for text in texts])
        return self.calibration.probabilities(self.classifier.logits(ids))

    def predict(self, requests: Sequence[SentimentRequest]) -> list[SentimentResponse]:
        """Answer every request in order; texts of the same length share a pass."""
        texts = [normalise_line(request.text) for request in requests]
        refusals = [rejection_reason(text, LONGEST) for text in texts]
        readable = [text for text, why in zip(texts, refusals, strict=True) if not why]
        tokens = iter(self.classifier.tokens.ids(readable) if readable else [])
        ids = [[] if why else next(tokens) for why in refusals]
        most = self.classifier.tokens.max_tokens
        for place, text_ids in enumerate(ids):
            if len(text_ids) > most:
                refusals[place] = (
                    f"the text has {len(text_ids):,} tokens, the model reads {most} at once: cut it into parts"
                )
                ids[place] = []
        read = [place for place, text_ids in enumerate(ids) if text_ids]
        logits = self.classifier.logits([ids[place] for place in read])
        of_text = dict(zip(read, self.calibration.probabilities(logits), strict=True)) if read else {}
        return [
            self._respond(text, why, ids[place], of_text.get(place, np.empty(0)))
            for place, (text, why) in enumerate(zip(texts, refusals, strict=True))
        ]

    def _respond(
        self, text: str, reason: str, ids: Sequence[int], probabilities: npt.NDArray[Any]
    ) -> SentimentResponse:
        if len(probabilities) and probabilities.max() < self.calibration.threshold:
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
