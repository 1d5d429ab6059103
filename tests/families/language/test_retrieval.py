"""Rankings are scored as their definitions say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hallmark.families.language.retrieval import letter_ngram_cosines, score_ranking


def test_figures_are_those_of_the_definitions() -> None:
    similarity = np.asarray([[9, 8, 7, 6, 5, 4, 3], [1, 2, 3, 4, 5, 6, 7]], dtype=float)
    found = score_ranking(similarity, [{1, 6}, {6, 5, 4, 3, 2, 1}])
    assert found["rp_at_5"].tolist() == [0.5, 1.0]
    assert found["mrr_at_10"].tolist() == [0.5, 1.0]


def test_what_is_not_among_the_first_ten_counts_nothing() -> None:
    found = score_ranking(-np.arange(20.0)[None], [{15}])
    assert (found["rp_at_5"][0], found["mrr_at_10"][0]) == (0, 0)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_a_slow_loop_gives_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    similarity = rng.normal(size=(4, 12))
    right = [set(rng.choice(12, int(rng.integers(1, 8)), replace=False).tolist()) for _ in range(4)]
    found = score_ranking(similarity, right)
    for q, mine in enumerate(right):
        order = sorted(range(12), key=lambda a: -similarity[q, a])
        assert found["rp_at_5"][q] == pytest.approx(sum(a in mine for a in order[:5]) / min(5, len(mine)))
        places = [i + 1 for i, a in enumerate(order[:10]) if a in mine]
        assert found["mrr_at_10"][q] == pytest.approx(1 / places[0] if places else 0)


def test_counted_letters_know_words_of_one_stem() -> None:
    found = letter_ngram_cosines(["managing projects"], ["project management", "bake bread"])
    assert found[0, 0] > found[0, 1]
