"""Metrics of rankings, and a TF-IDF baseline on character n-grams.

Legend of shapes: Q questions, A answers.
Source: RP@K as in Chalkidis et al., Large-Scale Multi-Label Text Classification on EU Legislation, 2019.
"""

from collections.abc import Sequence

import numpy as np

from hallmark.arrays import Array
from hallmark.contracts import Metric


def retrieval_metrics() -> dict[str, Metric]:
    """What `score_ranking` measures, by name."""
    return {name: Metric(name, "", "higher") for name in ("rp_at_5", "mrr_at_10")}


def score_ranking(similarity: Array, right: Sequence[set[int]]) -> dict[str, Array]:
    """Score every question's ranking, (Q,) each.

    Args:
        similarity: of questions and answers, (Q, A); of equal ones the first counts as nearer.
        right: each question's answers; none may be empty.

    Returns:
        `rp_at_5`: right ones among the first five, as a share of as many as there can be; `mrr_at_10`: one over the
        place of the first right one, 0 beyond ten.
    """
    ten = np.argsort(-similarity, axis=1, kind="stable")[:, :10]
    hit = np.asarray([[int(a) in mine for a in row] for row, mine in zip(ten, right, strict=True)])
    most = np.asarray([min(5, len(mine)) for mine in right])
    place = np.where(hit.any(axis=1), 1.0 + hit.argmax(axis=1), np.inf)
    return {"rp_at_5": hit[:, :5].sum(axis=1) / most, "mrr_at_10": 1 / place}


def counted_letters(questions: Sequence[str], answers: Sequence[str]) -> Array:
    """TF-IDF of three to five letters within words, cosines (Q, A); learned from the answers alone."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    known = letters.fit_transform(answers)
    return np.asarray((letters.transform(questions) @ known.T).toarray(), dtype=np.float32)
