"""Classification baselines: majority class, and logistic regression on TF-IDF or pretrained embeddings."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hallmark.arrays import Array


def commonest(train: Array, labels: int, texts: int) -> Array:
    """Give every text the shares of the labels in training, (texts, labels)."""
    shares = np.bincount(train, minlength=labels) / len(train)
    return np.repeat(shares[None], texts, axis=0)


def counted_words(train: tuple[Sequence[str], Array], valid: tuple[Sequence[str], Array], test: Sequence[str]) -> Array:
    """TF-IDF of words and pairs of words with logistic regression, whose penalty valid chooses, (test, labels)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    return regression(
        (words.fit_transform(train[0]), train[1]), (words.transform(valid[0]), valid[1]), words.transform(test)
    )


def regression(train: tuple[Any, Array], valid: tuple[Any, Array], test: Any) -> Array:
    """Logistic regression on columns, such as a frozen encoder's, whose penalty valid chooses, (test, labels)."""
    from sklearn.linear_model import LogisticRegression

    models = [LogisticRegression(C=c, max_iter=2000).fit(*train) for c in (0.1, 1.0, 10.0, 100.0)]
    best = max(models, key=lambda model: model.score(*valid))
    return np.asarray(best.predict_proba(test))
