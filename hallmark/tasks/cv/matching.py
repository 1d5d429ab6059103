"""Match a job with a CV: required skills, the lines that show them, and a score that is the sum of its parts.

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
WHOLE_SHARE = 0.5  # weight of the whole unit in its similarity; the rest is the weight of its best clause
ALIKE = 0.75  # cosine from which two skills count as the same


class Vectors(Protocol):
    """Encodes texts as vectors of length one, (U, D)."""

    def __call__(self, texts: Sequence[str]) -> Array: ...


@dataclass(frozen=True)
class EncodedDocument:
    """An encoded document.

    Attributes:
        units: units of the document.
        whole: vectors of the units, (U, D).
        parts: vectors of each unit's clauses, (clauses, D) each.
    """

    units: tuple[Unit, ...]
    whole: Array
    parts: tuple[Array, ...]

    def similarity(self, known: Array) -> Array:
        """Compare every unit with skills (K, D), (U, K): weighted mean of its own cosine and its best clause's."""
        if not self.units:
            return np.empty((0, len(known)))
        best = np.stack([(part @ known.T).max(axis=0) for part in self.parts])
        return np.asarray(WHOLE_SHARE * (self.whole @ known.T) + (1 - WHOLE_SHARE) * best)


@dataclass(frozen=True)
class Wanted:
    """A skill that a job asks for.

    Attributes:
        skill: index of the skill in the list.
        probability: probability that the job asks for it.
        unit: unit of the job that asks for it most clearly.
    """

    skill: int
    probability: float
    unit: Unit


@dataclass(frozen=True)
class Part:
    """A skill's share of the score.

    Attributes:
        wanted: the skill that the job asks for.
        weight: maximum points of the skill; all weights add up to 100.
        coverage: probability that the CV shows the skill.
        points: points of the skill; all points add up to the score.
        evidence: units of the CV that show it, the clearest first, with their probability.
    """

    wanted: Wanted
    weight: float
    coverage: float
    points: float
    evidence: tuple[tuple[Unit, float], ...]


def read(pieces: Sequence[Unit], vectors: Vectors) -> EncodedDocument:
    """Encode units that hold letters besides placeholders, together with their clauses, in one batch."""
    kept = [(unit, plain(unit.text)) for unit in pieces]
    kept = [(unit, text) for unit, text in kept if legible(text)]
    unit_clauses = [clauses(text) for _, text in kept]
    texts = [text for _, text in kept] + [clause for clauses_of_unit in unit_clauses for clause in clauses_of_unit]
    encoded = vectors(texts) if texts else np.empty((0, 1), dtype=np.float32)
    ends = np.cumsum([len(clauses_of_unit) for clauses_of_unit in unit_clauses]) + len(kept)
    parts = tuple(
        encoded[end - len(clauses_of_unit) : end] for clauses_of_unit, end in zip(unit_clauses, ends, strict=True)
    )
    return EncodedDocument(tuple(unit for unit, _ in kept), encoded[: len(kept)], parts)


def read_sentences(sentences: Sequence[str], vectors: Vectors) -> EncodedDocument:
    """Encode each sentence as one unit, however long; each must be `legible`."""
    return read([Unit(0, len(sentence), sentence) for sentence in sentences], vectors)


@dataclass(frozen=True)
class Matcher:
    """Compares jobs and CVs by the skills of a list.

    Attributes:
        vectors: encodes texts.
        known: vectors of the skills, (K, D).
        curves: cosines → probabilities.
        most: maximum number of skills of one job.
        least: minimum probability at which a line counts as asking for a skill.
    """

    vectors: Vectors
    known: Array
    curves: Curves
    most: int
    least: float

    def read(self, document: str) -> EncodedDocument:
        """Encode a tidy and redacted document."""
        return read(units(document), self.vectors)

    def asked(self, job: EncodedDocument) -> list[Wanted]:
        """Return the skills that a job asks for, the most probable first: every line asks for its nearest skill.

        Lines with a probability below `least` are left out; of nearly equal skills, only the most probable is kept.
        """
        if not job.units:
            return []
        cosines = job.similarity(self.known)
        nearest = cosines.argmax(axis=1)
        probability = self.curves.requirement.probability(cosines.max(axis=1))
        wanted: list[Wanted] = []
        for line in np.argsort(-probability, kind="stable"):
            if len(wanted) == self.most or probability[line] < self.least:
                break
            skill = int(nearest[line])
            if all(float(self.known[skill] @ self.known[w.skill]) < ALIKE for w in wanted):
                wanted.append(Wanted(skill, float(probability[line]), job.units[int(line)]))
        return wanted

    def compare(self, cv: EncodedDocument, wanted: Sequence[Wanted]) -> list[Part]:
        """Score the CV for every required skill; each can give the same share of 100 points."""
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

    def relevance(self, cv: EncodedDocument, wanted: Sequence[Wanted]) -> Array:
        """Compute the probability that each unit shows each required skill, (U, K); 0 where a unit has a negation."""
        probability = self.curves.evidence.probability(cv.similarity(self.known[[w.skill for w in wanted]]))
        probability[[denies(unit.text) for unit in cv.units]] = 0.0
        return probability


def total(parts: Sequence[Part]) -> float:
    """Add up the score, 0 to 100."""
    return round(sum(part.points for part in parts), 4)
