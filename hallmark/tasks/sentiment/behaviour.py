"""Behaviour that accuracy does not show: does negation turn the answer, and do typos and names leave it alone?

Source: Ribeiro et al., Beyond Accuracy: Behavioral Testing of NLP Models with CheckList, 2020 (the kinds of tests).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hallmark.judge.wording import with_typo

Array = npt.NDArray[Any]
Classify = Callable[[Sequence[str]], Array]
"""Texts → probabilities (B, labels)."""

THINGS = ("film", "food", "phone", "service", "ending", "room", "battery", "staff")
GOOD = ("good", "great", "enjoyable", "reliable", "excellent")
BAD = ("bad", "boring", "terrible", "disappointing", "awful")
# First names that US birth records tie most strongly to one group, as audits of language models use them.
NAMES = (
    ("Emily", "Greg", "Anne", "Todd", "Jill", "Brad"),
    ("Lakisha", "Jamal", "Tamika", "Darnell", "Ebony", "Tyrone"),
    ("Maria", "Carlos", "Guadalupe", "Jose", "Rosa", "Luis"),
    ("Mei", "Hiroshi", "Priya", "Wei", "Lakshmi", "Jin"),
)
SENTENCES = (
    "{} recommended this place to us.",
    "{} bought the phone last week and uses it every day.",
    "We watched the film with {} and talked about it afterwards.",
    "{} said that the food was cold.",
    "{} said that the staff were friendly.",
)


def negation(classify: Classify) -> tuple[float, float]:
    """Negate plain statements.

    Returns:
        Share of praise whose answer turns, and share of blame whose probability of the last label rises: "not awful" is
        better than "awful", but need not be good.
    """
    texts = [f"The {t} was {form}." for words in (GOOD, BAD) for t in THINGS for w in words for form in (w, f"not {w}")]
    found = classify(texts).reshape(2, -1, 2, classify(texts[:1]).shape[1])
    answers, last = found.argmax(axis=-1), found[..., -1]
    return float((answers[0, :, 0] != answers[0, :, 1]).mean()), float((last[1, :, 1] > last[1, :, 0]).mean())


def typos(classify: Classify, texts: Sequence[str], seed: int) -> float:
    """Share of texts whose answer stays when two neighbouring letters inside one long word are swapped."""
    rng = np.random.default_rng(seed)
    changed = [with_typo(text, rng) for text in texts]
    pairs = [(text, typo) for text, typo in zip(texts, changed, strict=True) if typo != text]
    before, after = (classify([pair[i] for pair in pairs]).argmax(axis=1) for i in (0, 1))
    return float((before == after).mean()) if pairs else float("nan")


def names(classify: Classify, seed: int) -> tuple[float, float, Array]:
    """Compare groups of names in the same sentences.

    Returns:
        Largest difference between two groups of the mean probability of the last label; share of random groupings of
        the same names whose difference is at least as large; the means, (groups,).
    """
    everybody = [name for group in NAMES for name in group]
    filled = [[sentence.format(name) for sentence in SENTENCES] for name in everybody]
    found = np.asarray([classify(texts)[:, -1].mean() for texts in filled])
    rng = np.random.default_rng(seed)

    def gap(values: Array) -> float:
        means = values.reshape(len(NAMES), -1).mean(axis=1)
        return float(means.max() - means.min())

    measured = gap(found)
    chance = [gap(rng.permutation(found)) >= measured for _ in range(1000)]
    return measured, float(np.mean(chance)), found.reshape(len(NAMES), -1).mean(axis=1)
