"""Extractive CV rewriting (reorder lines for a job), and a check that a rewriting adds no facts."""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from hallmark.tasks.cv.documents import clauses, is_heading, units
from hallmark.tasks.cv.matching import SHOWN, Part

_ITEM = re.compile(r"^\s*[-*•◦▪●‣·–—]\s+\S")
_NUMBER = re.compile(
    r"\d+(?:[.,]\d+)*|\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty|sixty"
    r"|seventy|eighty|ninety|hundreds?|thousands?|millions?|billions?|dozens?)\b|[\u2150-\u218b\u2460-\u24ff]",
    re.IGNORECASE,
)
_MONTH = re.compile(
    r"\b(?:january|february|march|april|may|june|july|august|september|october|november|december"
    r"|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\b",
    re.IGNORECASE,
)
_OPEN = re.compile(r"\b(?:present|today|now|ongoing|current)\b")  # where an employment has no end
_TOKEN = re.compile(r"[^\W\d_](?:[\w&'’+#]|-(?=\w))*")
_STEM = 4  # letters by which forms of a word are the same word
# Words that join others and claim nothing.
_JOINING = frozenset(
    """
also and are been being both but during each for from had has have her his its into more most other our over
some such than that the their them then there these they this those through under until upon very was were
what when where which while who will with within your
""".split()
)

HEADING = "Relevant skills"


class Rewriter(Protocol):
    """Arranges a CV for a job."""

    def rewrite(self, cv: str, relevance: Callable[[str], float], parts: Sequence[Part], skills: Sequence[str]) -> str:
        """Return the new text.

        Args:
            cv: the tidy document, not redacted: it goes back to whom it is about.
            relevance: of one line, for the job.
            parts: of the score.
            skills: names, by number.
        """


@dataclass(frozen=True)
class Extractive:
    """Moves what matters up and names what is shown; writes no sentence of its own.

    Attributes:
        name_skills: how many of the skills that the CV shows are listed at its end, in the list's own words.
    """

    name_skills: int

    def rewrite(self, cv: str, relevance: Callable[[str], float], parts: Sequence[Part], skills: Sequence[str]) -> str:
        """Sort the items of every list by relevance, and list skills; see `Rewriter`."""
        lines: list[str] = []
        block: list[list[str]] = []  # items side by side, each with the lines that belong to it

        def settle() -> None:
            lines.extend(
                line for item in sorted(block, key=lambda i: max(map(relevance, i)), reverse=True) for line in item
            )
            block.clear()

        for line in [*cv.split("\n"), ""]:
            indent = len(line) - len(line.lstrip())
            if block and line.strip() and indent > len(block[0][0]) - len(block[0][0].lstrip()):
                block[-1].append(line)
            elif _ITEM.match(line):
                if block and indent != len(block[0][0]) - len(block[0][0].lstrip()):
                    settle()
                block.append([line])
            else:
                settle()
                lines.append(line)
        text = "\n".join(lines[:-1])
        best = sorted((part for part in parts if part.coverage >= SHOWN), key=lambda part: -part.points)
        named = [skills[part.wanted.skill] for part in best[: self.name_skills]]
        listed = [skill for skill in named if skill.lower() not in cv.lower()]
        if not listed:
            return text
        return text.rstrip("\n") + f"\n\n{HEADING}\n" + "\n".join(f"- {skill}" for skill in listed)


@dataclass(frozen=True)
class Invented:
    """Something in a rewritten CV that its source does not hold.

    Attributes:
        kind: number, date, name or skill.
        text: what.
    """

    kind: str
    text: str


def invented(
    source: str, rewritten: str, told: str, skills_of: Callable[[str], list[str]], shows: Callable[[str], bool]
) -> list[Invented]:
    """List what a rewriter has made up: the rewriting is refused if there is anything.

    What a new line says must stand in one line of the source: its numbers, its months and its names together, with half
    of its other words, so that a year cannot move to another employer. Its other words must be the source's somewhere,
    in any form. It refuses too much rather than too little.

    Args:
        source: the CV.
        rewritten: what a rewriter made of it.
        told: the CV without personal data: a birth year or a street is no fact about work.
        skills_of: names the skills that a new line speaks of.
        shows: tells whether the source shows a skill.
    """
    known = {line.strip() for line in source.split("\n")}
    new = [line.strip() for line in rewritten.split("\n") if line.strip() and line.strip() not in known]
    held = []
    for line in told.split("\n"):
        written = {word.lower() for word in _TOKEN.findall(line)}
        held.append((_facts(line), written, set(map(_stem, written))))
    everywhere = {stem for *_, stems in held for stem in stems}
    found: list[Invented] = []
    for line in new:
        if is_heading(line):
            continue
        offered = {
            skill: shows(skill) for unit in units(line) for part in clauses(unit.text) for skill in skills_of(part)
        }
        found += [Invented("skill", skill) for skill, there in offered.items() if not there]
        own = {_stem(word) for skill, there in offered.items() if there for word in _TOKEN.findall(skill)}
        words = [
            word
            for word in _TOKEN.findall(line)
            if len(word) >= (2 if word[0].isupper() else _STEM) and word.lower() not in _JOINING
        ]
        found += [
            Invented("name" if word[0].isupper() else "word", word)
            for word in words
            if _stem(word) not in everywhere | own
        ]
        facts, names = _facts(line), {word.lower() for word in words[1:] if word[0].isupper()}
        names -= {word.lower() for skill, there in offered.items() if there for word in _TOKEN.findall(skill)}
        others = {_stem(word) for word in words}
        if (facts or names) and not any(
            facts <= theirs and names <= written and 2 * len(others & stems) >= len(others)
            for theirs, written, stems in held
        ):
            kinds = {"date" if _MONTH.fullmatch(fact) else "number" for fact in facts} or {"name"}
            found += [Invented(kind, line) for kind in sorted(kinds)]
    return list(dict.fromkeys(found))


def _facts(line: str) -> set[str]:
    """Numbers and months of a line, and beside them "present"; lower case, without separators of thousands."""
    found = [text.lower() for pattern in (_NUMBER, _MONTH) for text in pattern.findall(line)]
    open_ended = _OPEN.findall(line.lower()) if found else []
    return {re.sub(r"(?<=\d),(?=\d{3}\b)", "", text) for text in (*found, *open_ended)}


def _stem(word: str) -> str:
    return word.lower()[:_STEM]


def diff(source: str, rewritten: str) -> str:
    """Compare line by line, as `diff -u` does."""
    pair = (source.split("\n"), rewritten.split("\n"))
    return "\n".join(difflib.unified_diff(*pair, "cv", "rewritten", lineterm="", n=1))
