"""Permutation importance of the columns of a table, and the difference of recall between groups.

Legend of shapes: B examples, F features, L labels.
Sources: Breiman 2001, "Random Forests" (permutation importance); Hardt, Price, Srebro 2016, "Equality of Opportunity in
Supervised Learning".
"""

from collections.abc import Callable, Sequence

import numpy as np

from hallmark.arrays import Array

MAX_EXAMPLES = 2000
REPEATS = 2  # permutations of each column


def permutation_importance(
    probabilities: Callable[[Array], Array], x: Array, target: Array, names: Sequence[str], seed: int
) -> dict[str, float]:
    """Measure the rise of the log loss when one column is shuffled.

    Args:
        probabilities: prediction of a fitted model, (B, F) → (B, L).
        x: (B, F) features of test; a sample of 2,000 is used.
        target: (B,) indices of the labels.
        names: (F,) names of the columns.
        seed: seed of the sample and the permutations.

    Returns:
        Name → mean rise over two permutations, the largest first. Correlated columns share their importance.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(x))[:MAX_EXAMPLES]
    x, target = x[chosen], target[chosen]

    def loss(inputs: Array) -> float:
        right = probabilities(inputs)[np.arange(len(target)), target]
        return float(-np.log(np.maximum(right, 1e-12)).mean())

    unshuffled, rises = loss(x), {}
    for column, name in enumerate(names):
        shuffled = x.copy()
        total = 0.0
        for _ in range(REPEATS):
            shuffled[:, column] = x[rng.permutation(len(x)), column]
            total += loss(shuffled) - unshuffled
        rises[name] = total / REPEATS
    return dict(sorted(rises.items(), key=lambda rise: -rise[1]))


def opportunity_difference(guess: Array, target: Array, groups: Sequence[Array], min_examples: int) -> float:
    """Compute the equal opportunity difference: the largest gap of a label's recall between groups.

    Args:
        guess: (B,) predicted labels.
        target: (B,) right labels.
        groups: a mask (B,) for each group.
        min_examples: a group with fewer examples of a label is left out for this label.

    Returns:
        The largest difference between two groups' recall of one label; NaN if no label has two groups.
    """
    differences = []
    for label in np.unique(target):
        of_label = [group & (target == label) for group in groups]
        recalls = [float((guess[rows] == label).mean()) for rows in of_label if np.count_nonzero(rows) >= min_examples]
        if len(recalls) > 1:
            differences.append(max(recalls) - min(recalls))
    return max(differences, default=float("nan"))
