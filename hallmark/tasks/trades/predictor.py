"""Predict the side that started the last trade of a request."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from hallmark.evidence import Observations
from hallmark.families.classification.temperature import Temperature
from hallmark.families.classification.trees import Trees
from hallmark.files import as_bundle_error, read_json, write_json, write_text
from hallmark.tasks.trades.features import Feature, Window, compute, describe, names_of, windows
from hallmark.tasks.trades.messages import DISCLAIMER, SIDES, SideProbability, TradesRequest, TradesResponse


@dataclass(frozen=True)
class TradesModel:
    """Trees with the features that they read.

    Attributes:
        trees: the model.
        features: all feature definitions.
        chosen: indices of the columns that the trees read.
        memory: trades of a window.
    """

    trees: Trees
    features: Sequence[Feature]
    chosen: Sequence[int]
    memory: int

    def logits(self, window: Window) -> npt.NDArray[Any]:
        """Compute the logits of windows, (B, 2)."""
        return self.trees.logits(compute(self.features, window)[:, list(self.chosen)])


def save_model(model: TradesModel, out: Path) -> dict[str, Any]:
    """Write trees, the chosen columns and the documentation of the features; return counts for the training record."""
    out.mkdir(parents=True, exist_ok=True)
    save_file(model.trees.tensors(), str(out / "trees.safetensors"))
    names = names_of(model.features)
    chosen = [names[i] for i in model.chosen]
    write_json(out / "spec.json", {"features": chosen, "memory": model.memory})
    write_text(out / "features.md", describe(model.features) + f"\nThe model is given: {', '.join(chosen)}.\n")
    return {"parameters": len(model.trees.feature), "features": len(chosen)}


def load_model(directory: Path, features: Sequence[Feature], memory: int) -> TradesModel:
    """Read what `save_model` wrote.

    Raises:
        BundleError: files are missing or belong to other features.
    """
    with as_bundle_error(directory, "run `dvc repro train`"):
        spec = read_json(directory / "spec.json")
        trees = Trees.of(load_file(str(directory / "trees.safetensors")))
        names = names_of(features)
        if spec["memory"] != memory or set(spec["features"]) - set(names):
            raise ValueError("the model was trained on other features than task.features names")
        return TradesModel(trees, features, [names.index(name) for name in spec["features"]], memory)


@dataclass(frozen=True)
class TradesPredictor:
    """A trained model with its calibration.

    Attributes:
        model: trees and features.
        calibration: temperature and threshold.
        min_trades: a request with fewer trades is not answered.
        max_gap_s: a request whose last two trades lie further apart, in seconds, is not answered.
        version: version of the model.
        digest: sha256 of the hallmark.
    """

    model: TradesModel
    calibration: Temperature
    min_trades: int
    max_gap_s: float
    version: str
    digest: str

    def probabilities(self, window: Window) -> npt.NDArray[Any]:
        """Compute the calibrated probabilities of windows, (B, 2)."""
        return self.calibration.probabilities(self.model.logits(window))

    @property
    def influence_unit(self) -> str:
        """What influences are measured in; see `Traceable`."""
        return "change of the probability that a buyer started the trade"

    def observations(self, request: TradesRequest) -> Observations:
        """Name the trades that an answer rests on, by their places in the request; see `Traceable`."""
        first = max(0, len(request.trades) - self.model.memory)
        return Observations(tuple(f"trades/{place}" for place in range(first, len(request.trades))))

    def without(self, request: TradesRequest, observation: str | None) -> TradesRequest | None:
        """Leave out a trade; see `Traceable`."""
        place = int((observation or "").rpartition("/")[2])
        rest = [*request.trades[:place], *request.trades[place + 1 :]]
        return request.model_copy(update={"trades": rest}) if rest else None

    def figures(self, response: TradesResponse) -> list[float]:
        """Return the probability of a buyer; see `Traceable`."""
        return [p.probability for p in response.probabilities if p.side == "buy"]

    def predict(self, requests: Sequence[TradesRequest]) -> list[TradesResponse]:
        """Answer every request in order."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: TradesRequest) -> TradesResponse:
        used = request.trades[-self.model.memory :]
        time_ms = np.asarray([t.timestamp_ms for t in used], dtype=np.int64)
        reason, probabilities = self._refusal(time_ms), np.empty(0)
        if not reason:
            price, amount = (np.asarray([getattr(t, name) for t in used]) for name in ("price", "amount"))
            window = windows(price, amount, time_ms, [len(used) - 1], self.model.memory)
            probabilities = self.probabilities(window)[0]
            if probabilities.max() < self.calibration.threshold:
                reason = f"no side reaches the probability {self.calibration.threshold:.2f}"
        lines = "".join(f"{t.timestamp_ms},{t.price!r},{t.amount!r}\n" for t in used)
        sides = [
            SideProbability.model_validate({"side": side, "probability": round(float(p), 6)})
            for side, p in zip(SIDES, probabilities, strict=False)
        ]
        return TradesResponse(
            status="abstained" if reason else "classified",
            reason=reason,
            side=None if reason else sides[int(probabilities.argmax())].side,
            probabilities=sides,
            threshold=self.calibration.threshold,
            trades_used=len(used),
            trades_sha256=hashlib.sha256(lines.encode()).hexdigest(),
            model_version=self.version,
            hallmark_sha256=self.digest,
            disclaimer=DISCLAIMER,
        )

    def _refusal(self, time_ms: npt.NDArray[np.int64]) -> str:
        if len(time_ms) < self.min_trades:
            return f"{len(time_ms)} trades are given, {self.min_trades} are needed"
        gap = (time_ms[-1] - time_ms[-2]) / 1000 if len(time_ms) > 1 else 0.0
        if gap > self.max_gap_s:
            return f"the trade before lies {gap:,.0f} s back, at most {self.max_gap_s:g} are accepted"
        return ""
