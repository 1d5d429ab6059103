"""Classification baselines: majority class, and logistic regression on TF-IDF or pretrained embeddings."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hallmark.arrays import Array


def majority_class(train: Array, labels: int, texts: int) -> Array:
    """Predict the label shares of train for every text, (texts, labels)."""
    shares = np.bincount(train, minlength=labels) / len(train)
    return np.repeat(shares[None], texts, axis=0)


def tfidf_logistic(
    train: tuple[Sequence[str], Array], valid: tuple[Sequence[str], Array], test: Sequence[str]
) -> Array:
    """Predict with logistic regression on TF-IDF of words and word pairs, penalty chosen on valid, (test, labels)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    tfidf = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    return logistic_regression(
        (tfidf.fit_transform(train[0]), train[1]), (tfidf.transform(valid[0]), valid[1]), tfidf.transform(test)
    )


def logistic_regression(train: tuple[Any, Array], valid: tuple[Any, Array], test: Any) -> Array:
    """Predict with logistic regression on numeric columns, penalty chosen on valid, (test, labels)."""
    from sklearn.linear_model import LogisticRegression

    models = [LogisticRegression(C=c, max_iter=2000).fit(*train) for c in (0.1, 1.0, 10.0, 100.0)]
    best = max(models, key=lambda model: model.score(*valid))
    return np.asarray(best.predict_proba(test))
