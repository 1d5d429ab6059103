"""Evaluate text generation: bits per byte on source and target corpus, repetition, memorised text."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hallmark.build import configuration
from hallmark.contracts import CHAMPION, OURS, Evaluation, Metric, Prepared, Progress, ReportLayout
from hallmark.families.language.adaptation import load_language_model
from hallmark.families.language.metrics import (
    ByteNgrams,
    bits_per_byte,
    compressed,
    language_metrics,
    longest_copy,
    repetition,
)  # fmt: skip
from hallmark.judge.bootstrap import SCORE_COLUMNS, SUMMARY_COLUMNS
from hallmark.judge.pictures import draw_bars
from hallmark.judge.report import training_notes
from hallmark.tasks.text.learner import TextLearner
from hallmark.tasks.text.messages import TextRequest
from hallmark.tasks.text.predictor import TextPredictor
from hallmark.tasks.text.sources import SOURCE, TARGET
from hallmark.tasks.text.task import TextTask

BEFORE, COUNTED, LZMA, HUMAN = "before adaptation", "byte n-grams", "lzma", "human texts"
PROMPT_WORDS = 6


@configuration
class TextEvaluation:
    """Evaluates text generation on test.

    Attributes:
        samples: number of generated texts; each continues the first words of a test text.
        tokens: maximum tokens of a generated text.
        texts: maximum number of test texts that are scored per domain.
        seed: seed of the bootstrap and of sampling.
    """

    evaluates = (TextTask, TextLearner)

    samples: int
    tokens: int
    texts: int
    seed: int

    @property
    def segmentations(self) -> Sequence[str]:
        """Return no segmentation, because each domain is reported as a split."""
        return ()

    @property
    def layout(self) -> ReportLayout:
        """Return the report layout, with the target domain first."""
        tables = tuple((name, "all") for name in language_metrics())
        bits = tuple(("bits_per_byte", domain, "all") for domain in (TARGET, SOURCE))
        headline = (*bits, ("repetition", TARGET, "all"), ("longest_copy", TARGET, "all"))
        return ReportLayout((TARGET, SOURCE), "", headline, tables, "texts")

    def metrics(self, task: TextTask, learner: TextLearner) -> Mapping[str, Metric]:
        """Return every metric, by name."""
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
        predictor = learner.open(task, model, "0.0.0", "0" * 64)  # placeholders: answers need a version
        models = {OURS: predictor.model, BEFORE: predictor.model.before()}
        models |= {path.name: load_language_model(path) for path in sorted((model / "candidates").glob("*"))}
        if champion is not None:
            models[CHAMPION] = load_language_model(champion / "base")
        train_texts = [text for domain in (SOURCE, TARGET) for text in task.texts(prepared, domain, "train")]
        counted = ByteNgrams(train_texts)
        rows: list[tuple[Any, ...]] = []
        scores: list[tuple[Any, ...]] = []
        for domain in (TARGET, SOURCE):
            texts = task.texts(prepared, domain, "test")[: self.texts]
            for name, cost in {**{n: m.nats for n, m in models.items()}, COUNTED: counted.nats}.items():
                progress("evaluate", len(rows), 2 * len(models) + 6, f"{domain} texts by {name}")
                estimate = bits_per_byte(np.asarray([cost(text) for text in texts]), texts, self.seed)
                rows.append((name, "bits_per_byte", domain, "all", *estimate, len(texts)))
                scores.append((domain, name, "bits_per_byte", domain, "all", estimate[0], len(texts)))
            rows.append((LZMA, "bits_per_byte", domain, "all", *[compressed(train_texts, texts)] * 3, len(texts)))
        generated, human, timings = self._samples(predictor, task.texts(prepared, TARGET, "test"))
        train_text = "\x00".join(train_texts)
        for name, texts in ((OURS, generated), (HUMAN, human)):
            copies = [longest_copy(text, train_text.__contains__) for text in texts]
            rows.append((name, "repetition", TARGET, "all", *[repetition(texts)] * 3, len(texts)))
            interval = np.quantile(copies, [0.025, 0.975]) if copies else (np.nan, np.nan)
            rows.append(
                (name, "longest_copy", TARGET, "all", float(max(copies, default=0)), *map(float, interval), len(texts))
            )
        panels = {
            f"{domain} domain": {row[0]: row[4] for row in rows if row[1] == "bits_per_byte" and row[2] == domain}
            for domain in (TARGET, SOURCE)
        }
        draw_bars(out / "bits.png", panels, "bits a byte")
        summary = pd.DataFrame(rows, columns=SUMMARY_COLUMNS)
        notes = {
            **training_notes(model),
            "what every model is given": {
                COUNTED: "how often five bytes are followed by which, in all texts of train",
                LZMA: "all texts of train, then the texts",
                BEFORE: "our model before it was fitted to the target domain",
                OURS: f"windows of {predictor.model.context_length} tokens",
            },
            "longest_copy": "of all samples the longest; low and high are quantiles over samples",
        }
        progress("evaluate", 1, 1, "")
        pictures = {
            "bits.png": "Bits a byte of test texts: before and after adaptation to the target domain, and baselines"
        }
        return Evaluation(
            pd.DataFrame(scores, columns=SCORE_COLUMNS),
            summary.dropna(subset=["mean"]),
            (BEFORE, COUNTED, LZMA),
            pictures,
            notes,
            timings,
        )

    def _samples(self, predictor: TextPredictor, texts: Sequence[str]) -> tuple[list[str], list[str], list[float]]:
        """Continue the first words of test texts; return generated texts, human continuations and latencies in ms."""
        generated, human, latencies_ms = [], [], []
        for i, text in enumerate(texts[: self.samples]):
            prompt = _first_words(text)
            request = TextRequest(prompt=prompt, max_tokens=self.tokens, seed=self.seed + i)
            start = time.perf_counter()
            continuation = predictor.continuation(request)
            latencies_ms.append((time.perf_counter() - start) * 1000)
            generated.append(continuation)
            human.append(text[len(prompt) : len(prompt) + max(len(continuation), 1)])
        return generated, human, latencies_ms


def _first_words(text: str) -> str:
    """Return the first words of a text, with its spaces and line breaks."""
    end = 0
    for word in text.split()[:PROMPT_WORDS]:
        end = text.index(word, end) + len(word)
    return text[:end]
