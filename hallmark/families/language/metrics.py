"""Language-model metrics: bits per byte, repetition, memorised text; baselines: byte n-grams and lzma.

Bits a byte compare models whose tokens differ. Baselines: a general compressor, and counted bytes.
Source: Witten & Bell, The Zero-Frequency Problem, 1991 (the interpolation of counts).
"""

import lzma
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from hallmark.arrays import Array
from hallmark.contracts import Metric
from hallmark.judge.bootstrap import DRAWS

CLOSED = b"\n\n"  # stands between two texts where bytes are counted


def language_metrics() -> dict[str, Metric]:
    """What is measured, by name."""
    return {
        "bits_per_byte": Metric("bits_per_byte", "bits", "lower"),
        "repetition": Metric("repetition", "", "lower"),
        "longest_copy": Metric("longest_copy", "characters", "lower"),
    }


def bits_per_byte(nats: Array, texts: Sequence[str], seed: int) -> tuple[float, float, float]:
    """Return the bits a byte of texts and their 95% bootstrap interval over texts.

    Args:
        nats: of every text and its end, (N,).
        texts: N of them; an end counts as one byte.
        seed: of the bootstrap.
    """
    size = np.asarray([len(text.encode()) + 1 for text in texts], dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(size), (DRAWS, len(size)))
    low, high = np.quantile(nats[drawn].sum(axis=1) / size[drawn].sum(axis=1), [0.025, 0.975]) / math.log(2)
    return float(nats.sum() / size.sum() / math.log(2)), float(low), float(high)


def compressed(train: Sequence[str], texts: Sequence[str]) -> float:
    """Bits a byte that lzma needs for texts when it has read the training texts before."""

    def packed(parts: Sequence[str]) -> int:
        return len(lzma.compress(CLOSED.join(part.encode() for part in parts), preset=9 | lzma.PRESET_EXTREME))

    size = sum(len(text.encode()) + 1 for text in texts)
    return 8 * (packed([*train, *texts]) - packed(train)) / size


class CountedBytes:
    """Counts which byte follows which few; O(bytes × order) memory."""

    def __init__(self, texts: Sequence[str], order: int = 5) -> None:
        self.order = order
        self.tables: list[defaultdict[bytes, Counter[int]]] = [defaultdict(Counter) for _ in range(order + 1)]
        for text in texts:
            data = CLOSED + text.encode() + CLOSED[:1]
            for i in range(len(CLOSED), len(data)):
                for k in range(min(order, i) + 1):
                    self.tables[k][data[i - k : i]][data[i]] += 1

    def nats(self, text: str) -> float:
        """Cost of a text and its end."""
        data = CLOSED + text.encode() + CLOSED[:1]
        found = 0.0
        for i in range(len(CLOSED), len(data)):
            share = 1 / 256
            for k in range(min(self.order, i) + 1):
                seen = self.tables[k].get(data[i - k : i])
                if seen is None:
                    break
                share = (seen[data[i]] + len(seen) * share) / (seen.total() + len(seen))
            found -= math.log(share)
        return found


def repetition(texts: Sequence[str], words: int = 4) -> float:
    """Share of runs of a few words that have stood in the same text before; NaN if no text is long enough."""
    again = runs = 0
    for text in texts:
        split = text.split()
        found = Counter(tuple(split[i : i + words]) for i in range(len(split) - words + 1))
        runs += found.total()
        again += found.total() - len(found)
    return again / runs if runs else float("nan")


def longest_copy(text: str, holds: Callable[[str], bool]) -> int:
    """Length of the longest piece of a text that is in another; `holds` tells whether a piece is.

    A piece that is in it stays in it when it is shortened, so the two ends only ever move on: O(text) questions.
    """
    start = best = 0
    for end in range(1, len(text) + 1):
        while start < end and not holds(text[start:end]):
            start += 1
        best = max(best, end - start)
    return best
