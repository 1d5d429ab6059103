"""Test the behaviour of a sentiment classifier: negation, typos, names.

Source: Ribeiro et al., Beyond Accuracy: Behavioral Testing of NLP Models with CheckList, 2020 (the kinds of tests).
"""

from collections.abc import Callable, Sequence

import numpy as np

from hallmark.arrays import Array
from hallmark.families.language.perturbations import with_typo

Classify = Callable[[Sequence[str]], Array]
"""Texts → probabilities (B, labels)."""

THINGS = ("film", "food", "phone", "service", "ending", "room", "battery", "staff")
GOOD = ("good", "great", "enjoyable", "reliable", "excellent")
BAD = ("bad", "boring", "terrible", "disappointing", "awful")
# First names that US birth records tie most strongly to one group, as audits of language models use them.
NAMES = (
    ("Emily", "Greg", "Anne", "Todd", "Jill", "Brad", "Allison", "Brett", "Sarah", "Matthew"),
    ("Lakisha", "Jamal", "Tamika", "Darnell", "Ebony", "Tyrone", "Latoya", "Jermaine", "Aisha", "Rasheed"),
    ("Maria", "Carlos", "Guadalupe", "Jose", "Rosa", "Luis", "Juanita", "Miguel", "Esperanza", "Javier"),
    ("Mei", "Hiroshi", "Priya", "Wei", "Lakshmi", "Jin", "Yuki", "Sanjay", "Hye", "Deepak"),
)
SENTENCES = (
    "{} recommended this place to us.",
    "{} bought the phone last week and uses it every day.",
    "We watched the film with {} and talked about it afterwards.",
    "{} said that the food was cold.",
    "{} said that the staff were friendly.",
    "{} asked for the bill and paid it.",
    "{} returned the battery after two days.",
    "The ending surprised {} more than us.",
)


def negation(classify: Classify) -> tuple[float, float]:
    """Measure how negation changes plain statements.

    Returns:
        Share of positive statements whose label changes, and share of negative statements whose probability of the last
        label rises: "not awful" is better than "awful", but need not be good.
    """
    texts = [f"The {t} was {form}." for words in (GOOD, BAD) for t in THINGS for w in words for form in (w, f"not {w}")]
    probabilities = classify(texts).reshape(2, -1, 2, classify(texts[:1]).shape[1])
    labels, last = probabilities.argmax(axis=-1), probabilities[..., -1]
    return float((labels[0, :, 0] != labels[0, :, 1]).mean()), float((last[1, :, 1] > last[1, :, 0]).mean())


def typos(classify: Classify, texts: Sequence[str], seed: int) -> float:
    """Return the share of texts whose label stays when two neighbouring letters inside one long word are swapped."""
    rng = np.random.default_rng(seed)
    misspelt = [with_typo(text, rng) for text in texts]
    pairs = [(text, typo) for text, typo in zip(texts, misspelt, strict=True) if typo != text]
    before, after = (classify([pair[i] for pair in pairs]).argmax(axis=1) for i in (0, 1))
    return float((before == after).mean()) if pairs else float("nan")


def names(classify: Classify, seed: int) -> tuple[tuple[float, float, float], Array]:
    """Compare groups of names in the same sentences.

    Returns:
        Largest difference between two groups of the mean probability of the last label, with its 95% interval; and the
        group means, (groups,). Names are resampled within their group. The largest of several differences is too large
        by chance alone, so the mean difference of random groupings is subtracted from both ends of the interval.
    """
    all_names = [name for group in NAMES for name in group]
    filled_sentences = [[sentence.format(name) for sentence in SENTENCES] for name in all_names]
    name_means = np.asarray([classify(texts)[:, -1].mean() for texts in filled_sentences])
    rng = np.random.default_rng(seed)

    table = name_means.reshape(len(NAMES), -1)

    def gap(values: Array) -> float:
        means = values.mean(axis=1)
        return float(means.max() - means.min())

    by_chance = float(np.mean([gap(rng.permutation(name_means).reshape(table.shape)) for _ in range(1000)]))
    resampled = [
        gap(np.take_along_axis(table, rng.integers(0, table.shape[1], table.shape), axis=1)) for _ in range(1000)
    ]
    low, high = np.quantile(resampled, [0.025, 0.975]) - by_chance
    measured = gap(table)
    return (measured, max(0.0, min(float(low), measured)), max(float(high), measured)), table.mean(axis=1)
