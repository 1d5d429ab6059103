"""Bits, repetition and copies are what counting by hand gives."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hallmark.families.language.metrics import ByteNgrams, bits_per_byte, compressed, longest_copy, repetition


def test_bits_per_byte_count_bytes_and_ends() -> None:
    mean, low, high = bits_per_byte(np.asarray([math.log(2) * 8, math.log(2) * 8]), ["é", "abc"], 0)
    assert mean == pytest.approx(16 / 7)
    assert low <= mean <= high


def test_counted_bytes_are_a_distribution() -> None:
    counted = ByteNgrams(["abracadabra", "abacus"], order=2)
    base = counted.nats("ab")
    total = sum(math.exp(-(counted.nats("ab" + chr(c)) - base)) for c in range(97, 123))
    assert total > 0  # of letters alone; ends and other bytes have the rest
    known, unknown = counted.nats("abra"), counted.nats("zqxj")
    assert known < unknown


def test_what_was_read_before_costs_less() -> None:
    rng = np.random.default_rng(0)
    texts = ["".join(map(chr, rng.integers(97, 123, 400))) for _ in range(5)]
    assert compressed(texts, texts) < 1.0 < compressed(["something else"], texts)
    counted = ByteNgrams(texts)
    assert counted.nats(texts[0]) / len(texts[0]) < ByteNgrams(["something else"]).nats(texts[0]) / len(texts[0])


def test_repetition_counts_runs_that_came_before() -> None:
    assert repetition(["a b c d a b c d"]) == pytest.approx(1 / 5)
    assert repetition(["a b c d e f g h"]) == 0
    assert math.isnan(repetition(["a b"]))


@settings(max_examples=200)
@given(st.text("ab", max_size=20), st.text("ab", max_size=30))
def test_the_longest_copy_is_that_of_a_slow_search(text: str, other: str) -> None:
    slow = max((j - i for i in range(len(text)) for j in range(i + 1, len(text) + 1) if text[i:j] in other), default=0)
    assert longest_copy(text, other.__contains__) == slow
