"""Match a job with a CV: skills asked for, the lines that show them, and a score that is the sum of its parts.

Legend of shapes: U units of a document, K skills, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hallmark.arrays import Array
from hallmark.families.language.match_curves import Curves
from hallmark.tasks.cv.documents import Unit, clauses, denies, units
from hallmark.tasks.cv.redaction import legible, plain

SHOWN = 0.5  # coverage from which a skill counts as shown
WHOLE_SHARE = 0.5  # of a unit's similarity; the rest is its best clause's
ALIKE = 0.75  # cosine of two skills from which the second asks for nothing new


class Vectors(Protocol):
    """Texts → vectors (U, D) of length one."""

    def __call__(self, texts: Sequence[str]) -> Array: ...


@dataclass(frozen=True)
class Reading:
    """A document as it is read.

    Attributes:
        units: its pieces.
        whole: their vectors, (U, D).
        parts: vectors of each unit's clauses.
    """

    units: tuple[Unit, ...]
    whole: Array
    parts: tuple[Array, ...]

    def similarity(self, known: Array) -> Array:
        """Compare every unit with some skills (K, D): the mean of its own cosine and its best clause's, (U, K)."""
        if not self.units:
            return np.empty((0, len(known)))
        best = np.stack([(part @ known.T).max(axis=0) for part in self.parts])
        return np.asarray(WHOLE_SHARE * (self.whole @ known.T) + (1 - WHOLE_SHARE) * best)


@dataclass(frozen=True)
class Wanted:
    """A skill that a job asks for.

    Attributes:
        skill: its number.
        probability: that it is meant.
        unit: of the job that asks for it most clearly.
    """

    skill: int
    probability: float
    unit: Unit


@dataclass(frozen=True)
class Part:
    """A skill's share of the score.

    Attributes:
        wanted: what is asked for.
        weight: points it can give; all weights add up to 100.
        coverage: probability that the CV shows it.
        points: what it gives; all points add up to the score.
        evidence: units of the CV that show it, the clearest first, with their probability.
    """

    wanted: Wanted
    weight: float
    coverage: float
    points: float
    evidence: tuple[tuple[Unit, float], ...]


def read(pieces: Sequence[Unit], vectors: Vectors) -> Reading:
    """Read units that hold letters beside placeholders, each one and its clauses in one go."""
    kept = [(unit, plain(unit.text)) for unit in pieces]
    kept = [(unit, text) for unit, text in kept if legible(text)]
    cut = [clauses(text) for _, text in kept]
    texts = [text for _, text in kept] + [clause for of_one in cut for clause in of_one]
    found = vectors(texts) if texts else np.empty((0, 1), dtype=np.float32)
    ends = np.cumsum([len(of_one) for of_one in cut]) + len(kept)
    parts = tuple(found[end - len(of_one) : end] for of_one, end in zip(cut, ends, strict=True))
    return Reading(tuple(unit for unit, _ in kept), found[: len(kept)], parts)


def read_sentences(sentences: Sequence[str], vectors: Vectors) -> Reading:
    """Read sentences as units, however long; each must be `legible`."""
    return read([Unit(0, len(sentence), sentence) for sentence in sentences], vectors)


@dataclass(frozen=True)
class Matcher:
    """Compares jobs and CVs by the skills of a list.

    Attributes:
        vectors: encodes texts.
        known: the skills' vectors, (K, D).
        curves: cosines → probabilities.
        most: skills of one job, at most.
        least: probability from which a line counts as asking for a skill.
    """

    vectors: Vectors
    known: Array
    curves: Curves
    most: int
    least: float

    def read(self, document: str) -> Reading:
        """Read a tidy and redacted document."""
        return read(units(document), self.vectors)

    def asked(self, job: Reading) -> list[Wanted]:
        """Find what a job asks for, the clearest first: every line asks for its nearest skill.

        Lines that hardly ask for anything are left out, and of skills that are nearly the same only the clearest stays.
        """
        if not job.units:
            return []
        cosines = job.similarity(self.known)
        nearest = cosines.argmax(axis=1)
        probability = self.curves.asks.probability(cosines.max(axis=1))
        found: list[Wanted] = []
        for line in np.argsort(-probability, kind="stable"):
            if len(found) == self.most or probability[line] < self.least:
                break
            skill = int(nearest[line])
            if all(float(self.known[skill] @ self.known[w.skill]) < ALIKE for w in found):
                found.append(Wanted(skill, float(probability[line]), job.units[int(line)]))
        return found

    def compare(self, cv: Reading, wanted: Sequence[Wanted]) -> list[Part]:
        """Look for everything that is asked for, each for the same share of 100 points."""
        if not wanted:
            return []
        lines = self.relevance(cv, wanted)
        weight = 100 / len(wanted)
        parts = []
        for k, w in enumerate(wanted):
            order = np.argsort(-lines[:, k], kind="stable")
            coverage = round(float(lines[order[0], k]), 4) if len(order) else 0.0
            evidence = tuple((cv.units[i], round(float(lines[i, k]), 4)) for i in order[:3] if lines[i, k] >= SHOWN)
            parts.append(Part(w, round(weight, 4), coverage, round(weight * coverage, 4), evidence))
        return parts

    def relevance(self, cv: Reading, wanted: Sequence[Wanted]) -> Array:
        """Probability that each unit shows each skill asked for, (U, K); 0 where it denies something."""
        found = self.curves.shows.probability(cv.similarity(self.known[[w.skill for w in wanted]]))
        found[[denies(unit.text) for unit in cv.units]] = 0.0
        return found


def total(parts: Sequence[Part]) -> float:
    """Add up the score, 0 to 100."""
    return round(sum(part.points for part in parts), 4)
