"""Split CVs and job ads into sentences, list items and clauses, with character offsets.

A whole CV is longer than the context of an encoder, and one line is enough to show a skill. A document is therefore
neither truncated nor averaged: every unit is encoded separately.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_BULLET = re.compile(r"^[\s>*_#|•◦▪●‣·–—-]*(?:\(?\d{1,2}[.)]\s+)?[\s*_#|]*")
_SENTENCE = re.compile(r"(?<=[.!?;])\s+(?=[A-Z0-9\[])")
_CLAUSE = re.compile(
    r"\s*[;:()•|]\s*|,\s+|(?<!\d)/|/(?!\d)|\s+[–—-]\s+|\s+(?:and|or|as well as|including|such as|e\.g\.)\s+"
)
_LETTERS = re.compile(r"[^\W\d_]")

# Headings, which name what follows and have no content of their own.
_HEADINGS = frozenset((
    "about", "about me", "academic background", "achievements", "additional requirements", "awards",
    "career history", "career objective", "career summary", "certifications", "contact", "contact information",
    "core competencies", "curriculum vitae", "description", "duties", "education", "educational background",
    "employment", "employment history", "experience", "interests", "job responsibilities", "key achievements",
    "key qualifications", "key skills", "languages", "objective", "personal information",
    "preferred qualifications", "previous experience", "professional experience", "professional summary",
    "profile", "projects", "qualifications", "references", "relevant experience", "relevant skills",
    "required qualifications", "responsibilities", "resume", "skills", "summary", "tasks", "technical skills",
    "training", "volunteering", "work experience", "work history", "your profile",
))  # fmt: skip

_NEGATION = re.compile(
    r"\b(?:no|not|never|cannot|without|lack(?:s|ed|ing)?|unable|neither|nor)\b|n['’]t\b", re.IGNORECASE
)

LONGEST_UNIT = 60  # words; a longer sentence is cut into pieces of this length
FEWEST_LETTERS = 2


@dataclass(frozen=True)
class Unit:
    """A piece of a document that is encoded separately.

    Attributes:
        start: offset of its first character in the document.
        end: offset after its last character.
        text: its characters.
    """

    start: int
    end: int
    text: str


def units(document: str) -> list[Unit]:
    """Cut a document into sentences and list items, without bullets and emphasis characters; O(characters)."""
    pieces: list[Unit] = []
    line_start = 0
    for line in document.split("\n"):
        bullet = _BULLET.match(line)
        first = bullet.end() if bullet else 0
        end = max(first, len(line.rstrip(" \t*_#|:")))
        for start, stop in _pieces(line, first, end):
            pieces += _short(document, line_start + start, line_start + stop)
        line_start += len(line) + 1
    return [unit for unit in pieces if len(_LETTERS.findall(unit.text)) >= FEWEST_LETTERS and not is_heading(unit.text)]


def is_heading(line: str) -> bool:
    """Return whether a line is a heading, which names what follows and has no content of its own."""
    return line.strip(" .:*_#|•-").lower() in _HEADINGS


def denies(unit: str) -> bool:
    """Return whether a unit holds a negation: then it shows no skill."""
    return bool(_NEGATION.search(unit))


def clauses(unit: str) -> list[str]:
    """Cut a unit at list separators and conjunctions; return the unit itself if there are none."""
    parts = [part.strip(" .*_") for part in _CLAUSE.split(" ".join(unit.split()))]
    return [part for part in parts if len(_LETTERS.findall(part)) >= FEWEST_LETTERS] or [unit]


def _pieces(line: str, first: int, end: int) -> list[tuple[int, int]]:
    starts = [first, *(m.end() for m in _SENTENCE.finditer(line, first, end))]
    stops = [*(m.start() for m in _SENTENCE.finditer(line, first, end)), end]
    return [(start, stop) for start, stop in zip(starts, stops, strict=True) if stop > start]


def _short(document: str, start: int, end: int) -> Sequence[Unit]:
    words = list(re.finditer(r"\S+", document[start:end]))
    pieces = []
    for i in range(0, len(words), LONGEST_UNIT):
        chunk = words[i : i + LONGEST_UNIT]
        chunk_start, chunk_end = start + chunk[0].start(), start + chunk[-1].end()
        pieces.append(Unit(chunk_start, chunk_end, document[chunk_start:chunk_end]))
    return pieces
