"""Evaluate text generation: bits per byte on source and target corpus, repetition, memorised text."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hallmark.contracts import Evaluation, Metric, Prepared, Progress, Shown
from hallmark.families.language.adaptation import load_language_model
from hallmark.families.language.metrics import (
    CountedBytes,
    bits_per_byte,
    compressed,
    language_metrics,
    longest_copy,
    repetition,
)  # fmt: skip
from hallmark.judge.gates import CHAMPION, OURS
from hallmark.judge.pictures import draw_bars
from hallmark.judge.report import training_notes
from hallmark.tasks.text.learner import TextLearner
from hallmark.tasks.text.messages import TextRequest
from hallmark.tasks.text.predictor import TextPredictor
from hallmark.tasks.text.sources import NEW, OLD
from hallmark.tasks.text.task import TextTask

BEFORE, COUNTED, LZMA, HUMAN = "before", "counted bytes", "lzma", "human texts"
PROMPT_WORDS = 6


@dataclass(frozen=True)
class TextEvaluation:
    """What evaluation looks at.

    Attributes:
        samples: texts that are made, each from the first words of a test text.
        tokens: of each, at most.
        texts: of a domain's test that are scored, at most.
        seed: of the bootstrap and the draws.
    """

    evaluates = (TextTask, TextLearner)

    samples: int
    tokens: int
    texts: int
    seed: int

    @property
    def segmentations(self) -> Sequence[str]:
        """None: domains are marks."""
        return ()

    @property
    def shown(self) -> Shown:
        """The new domain first."""
        headline = tuple((name, "all") for name in language_metrics())
        return Shown((NEW, OLD), "", headline, headline, "texts")

    def metrics(self, task: TextTask, learner: TextLearner) -> Mapping[str, Metric]:
        """Every metric, by name."""
        return language_metrics()

    def evaluate(
        self,
        task: TextTask,
        learner: TextLearner,
        prepared: Prepared,
        model: Path,
        champion: Path | None,
        out: Path,
        progress: Progress,
    ) -> Evaluation:
        """Score everything on test; see `Evaluator.evaluate`."""
        predictor = learner.open(task, model, "0.0.0", "0" * 64)  # an answer must name a version: these go nowhere
        models = {OURS: predictor.model, BEFORE: predictor.model.before()}
        models |= {path.name: load_language_model(path) for path in sorted((model / "candidates").glob("*"))}
        if champion is not None:
            models[CHAMPION] = load_language_model(champion / "base")
        learned = [text for domain in (OLD, NEW) for text in task.texts(prepared, domain, "train")]
        counted = CountedBytes(learned)
        rows: list[tuple[Any, ...]] = []
        scores: list[tuple[Any, ...]] = []
        for domain in (NEW, OLD):
            texts = task.texts(prepared, domain, "test")[: self.texts]
            for name, cost in {**{n: m.nats for n, m in models.items()}, COUNTED: counted.nats}.items():
                progress("evaluate", len(rows), 2 * len(models) + 6, f"{domain} texts by {name}")
                found = bits_per_byte(np.asarray([cost(text) for text in texts]), texts, self.seed)
                rows.append((name, "bits_per_byte", domain, "all", *found, len(texts)))
                scores.append((domain, name, "bits_per_byte", domain, "all", found[0], len(texts)))
            rows.append((LZMA, "bits_per_byte", domain, "all", *[compressed(learned, texts)] * 3, len(texts)))
        made, human, timings = self._samples(predictor, task.texts(prepared, NEW, "test"))
        whole = "\x00".join(learned)
        for name, texts in ((OURS, made), (HUMAN, human)):
            copies = [longest_copy(text, whole.__contains__) for text in texts]
            rows.append((name, "repetition", NEW, "all", *[repetition(texts)] * 3, len(texts)))
            spread = np.quantile(copies, [0.025, 0.975]) if copies else (np.nan, np.nan)
            rows.append(
                (name, "longest_copy", NEW, "all", float(max(copies, default=0)), *map(float, spread), len(texts))
            )
        panels = {
            f"{domain} domain": {row[0]: row[4] for row in rows if row[1] == "bits_per_byte" and row[2] == domain}
            for domain in (NEW, OLD)
        }
        draw_bars(out / "bits.png", panels, "bits a byte")
        summary = pd.DataFrame(rows, columns=["model", "metric", "at", "segment", "mean", "low", "high", "drawn"])
        columns = ["subject_id", "model", "metric", "at", "segment", "value", "n_examples"]
        notes = {
            **training_notes(model),
            "what every model is given": {
                COUNTED: "how often five bytes are followed by which, in all texts of train",
                LZMA: "all texts of train, then the texts",
                BEFORE: "the model before it has learned the new domain",
                OURS: f"windows of {predictor.model.context_length} tokens",
            },
            "longest_copy": "of all samples the longest; low and high are quantiles over samples",
        }
        progress("evaluate", 1, 1, "")
        pictures = {"bits.png": "Bits a byte of test texts: before and after the new domain was learned, and baselines"}
        return Evaluation(
            pd.DataFrame(scores, columns=columns), summary.dropna(subset=["mean"]), pictures, notes, timings
        )

    def _samples(self, predictor: TextPredictor, texts: Sequence[str]) -> tuple[list[str], list[str], list[float]]:
        """Go on from the first words of test texts; returns what was made, what people wrote, and milliseconds."""
        made, human, times = [], [], []
        for i, text in enumerate(texts[: self.samples]):
            prompt = _first_words(text)
            request = TextRequest(prompt=prompt, max_tokens=self.tokens, seed=self.seed + i)
            start = time.perf_counter()
            written = predictor.continuation(request)
            times.append((time.perf_counter() - start) * 1000)
            made.append(written)
            human.append(text[len(prompt) : len(prompt) + max(len(written), 1)])
        return made, human, times


def _first_words(text: str) -> str:
    """Cut behind the first few words, spaces and lines as they are."""
    at = 0
    for word in text.split()[:PROMPT_WORDS]:
        at = text.index(word, at) + len(word)
    return text[:at]
