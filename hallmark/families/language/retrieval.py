"""Ranking metrics RP@5 and MRR@10, and a TF-IDF baseline on character n-grams.

Legend of shapes: Q questions, A answers.
Source: RP@K as in Chalkidis et al., Large-Scale Multi-Label Text Classification on EU Legislation, 2019.
"""

from collections.abc import Sequence

import numpy as np

from hallmark.arrays import Array
from hallmark.contracts import Metric


def retrieval_metrics() -> dict[str, Metric]:
    """Return the metrics of `score_ranking`, by name."""
    return {name: Metric(name, "", "higher") for name in ("rp_at_5", "mrr_at_10")}


def score_ranking(similarity: Array, right: Sequence[set[int]]) -> dict[str, Array]:
    """Score every question's ranking, (Q,) each.

    Args:
        similarity: similarity of questions and answers, (Q, A); ties go to the answer with the lower index.
        right: indices of each question's right answers; no set may be empty.

    Returns:
        `rp_at_5`: right answers among the first five, divided by the largest possible number; `mrr_at_10`: one divided
        by the rank of the first right answer, 0 if that rank is above ten.
    """
    top_ten = np.argsort(-similarity, axis=1, kind="stable")[:, :10]
    hit = np.asarray([[int(a) in answers for a in row] for row, answers in zip(top_ten, right, strict=True)])
    best_possible = np.asarray([min(5, len(answers)) for answers in right])
    rank = np.where(hit.any(axis=1), 1.0 + hit.argmax(axis=1), np.inf)
    return {"rp_at_5": hit[:, :5].sum(axis=1) / best_possible, "mrr_at_10": 1 / rank}


def letter_ngram_cosines(questions: Sequence[str], answers: Sequence[str]) -> Array:
    """Compute cosines (Q, A) of TF-IDF vectors of three to five letters within words, fitted on the answers."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    answer_vectors = vectorizer.fit_transform(answers)
    return np.asarray((vectorizer.transform(questions) @ answer_vectors.T).toarray(), dtype=np.float32)
