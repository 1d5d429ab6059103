"""Language-model metrics: bits per byte, repetition, memorised text; baselines: byte n-grams and lzma.

Bits per byte compare models with different tokenizers. Baselines: a general compressor, and byte n-grams.
Source: Witten & Bell, The Zero-Frequency Problem, 1991 (the interpolation of counts).
"""

import lzma
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from hallmark.arrays import Array
from hallmark.contracts import Metric
from hallmark.judge.bootstrap import N_RESAMPLES

SEPARATOR = b"\n\n"  # between two texts for the baselines


def language_metrics() -> dict[str, Metric]:
    """Return the language-model metrics, by name."""
    return {
        "bits_per_byte": Metric("bits_per_byte", "bits", "lower"),
        "repetition": Metric("repetition", "", "lower"),
        "longest_copy": Metric("longest_copy", "characters", "lower"),
    }


def bits_per_byte(nats: Array, texts: Sequence[str], seed: int) -> tuple[float, float, float]:
    """Compute bits per byte with a 95% bootstrap interval over texts.

    Args:
        nats: negative log-likelihood of every text and its closing token, (N,).
        texts: N texts; the closing token counts as one byte.
        seed: seed of the bootstrap.

    Returns:
        Value, low and high end of the interval, in bits.
    """
    n_bytes = np.asarray([len(text.encode()) + 1 for text in texts], dtype=np.float64)
    resampled = np.random.default_rng(seed).integers(0, len(n_bytes), (N_RESAMPLES, len(n_bytes)))
    low, high = np.quantile(nats[resampled].sum(axis=1) / n_bytes[resampled].sum(axis=1), [0.025, 0.975]) / math.log(2)
    return float(nats.sum() / n_bytes.sum() / math.log(2)), float(low), float(high)


def compressed(train: Sequence[str], texts: Sequence[str]) -> float:
    """Compute the bits per byte of lzma on texts, after the training texts."""

    def compressed_size(corpus: Sequence[str]) -> int:
        return len(lzma.compress(SEPARATOR.join(text.encode() for text in corpus), preset=9 | lzma.PRESET_EXTREME))

    n_bytes = sum(len(text.encode()) + 1 for text in texts)
    return 8 * (compressed_size([*train, *texts]) - compressed_size(train)) / n_bytes


class ByteNgrams:
    """Byte n-gram model with Witten-Bell interpolation; memory is O(bytes × order)."""

    def __init__(self, texts: Sequence[str], order: int = 5) -> None:
        self.order = order
        self.tables: list[defaultdict[bytes, Counter[int]]] = [defaultdict(Counter) for _ in range(order + 1)]
        for text in texts:
            data = SEPARATOR + text.encode() + SEPARATOR[:1]
            for i in range(len(SEPARATOR), len(data)):
                for k in range(min(order, i) + 1):
                    self.tables[k][data[i - k : i]][data[i]] += 1

    def nats(self, text: str) -> float:
        """Return the negative log-likelihood of a text and its end, in nats."""
        data = SEPARATOR + text.encode() + SEPARATOR[:1]
        total = 0.0
        for i in range(len(SEPARATOR), len(data)):
            probability = 1 / 256
            for k in range(min(self.order, i) + 1):
                counts = self.tables[k].get(data[i - k : i])
                if counts is None:
                    break
                probability = (counts[data[i]] + len(counts) * probability) / (counts.total() + len(counts))
            total -= math.log(probability)
        return total


def repetition(texts: Sequence[str], words: int = 4) -> float:
    """Compute the share of n-grams of words that occurred earlier in the same text; NaN if no text is long enough."""
    repeated = runs = 0
    for text in texts:
        tokens = text.split()
        counts = Counter(tuple(tokens[i : i + words]) for i in range(len(tokens) - words + 1))
        runs += counts.total()
        repeated += counts.total() - len(counts)
    return repeated / runs if runs else float("nan")


def longest_copy(text: str, holds: Callable[[str], bool]) -> int:
    """Return the length of the longest substring that another text contains; `holds` tells whether it contains one.

    Every substring of a contained string is contained too, so both ends only move forward: O(len(text)) calls.
    """
    start = best = 0
    for end in range(1, len(text) + 1):
        while start < end and not holds(text[start:end]):
            start += 1
        best = max(best, end - start)
    return best
