"""Split CVs and job ads into sentences, list items and clauses, with character offsets.

A whole CV is longer than an encoder reads, and one skill is shown by one line: so a document is never cut off and never
averaged, every unit is read for itself.
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

# Lines that name what follows and say nothing themselves.
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

LONGEST_UNIT = 60  # words; a line without stops is cut into pieces of so many
FEWEST_LETTERS = 2


@dataclass(frozen=True)
class Unit:
    """A piece of a document that is read for itself.

    Attributes:
        start: where it begins in the document, in characters.
        end: where it ends.
        text: what stands there.
    """

    start: int
    end: int
    text: str


def units(document: str) -> list[Unit]:
    """Cut a document into sentences and list items, without bullets and marks of emphasis; O(characters)."""
    found: list[Unit] = []
    at = 0
    for line in document.split("\n"):
        inside = _BULLET.match(line)
        first = inside.end() if inside else 0
        end = max(first, len(line.rstrip(" \t*_#|:")))
        for start, stop in _pieces(line, first, end):
            found += _short(document, at + start, at + stop)
        at += len(line) + 1
    return [unit for unit in found if len(_LETTERS.findall(unit.text)) >= FEWEST_LETTERS and not is_heading(unit.text)]


def is_heading(line: str) -> bool:
    """Tell whether a line names what follows and says nothing itself."""
    return line.strip(" .:*_#|•-").lower() in _HEADINGS


def denies(unit: str) -> bool:
    """Tell whether a unit says that something is not so: then it shows no skill."""
    return bool(_NEGATION.search(unit))


def clauses(unit: str) -> list[str]:
    """Cut a unit where it lists or joins; the unit itself if there is nothing to cut."""
    parts = [part.strip(" .*_") for part in _CLAUSE.split(" ".join(unit.split()))]
    return [part for part in parts if len(_LETTERS.findall(part)) >= FEWEST_LETTERS] or [unit]


def _pieces(line: str, first: int, end: int) -> list[tuple[int, int]]:
    starts = [first, *(m.end() for m in _SENTENCE.finditer(line, first, end))]
    stops = [*(m.start() for m in _SENTENCE.finditer(line, first, end)), end]
    return [(start, stop) for start, stop in zip(starts, stops, strict=True) if stop > start]


def _short(document: str, start: int, end: int) -> Sequence[Unit]:
    words = list(re.finditer(r"\S+", document[start:end]))
    found = []
    for i in range(0, len(words), LONGEST_UNIT):
        some = words[i : i + LONGEST_UNIT]
        a, b = start + some[0].start(), start + some[-1].end()
        found.append(Unit(a, b, document[a:b]))
    return found
