"""A CV arranged for a job without a word that is not in it, and the guard that holds any rewriter to that."""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from hallmark.tasks.cv.documents import clauses, units
from hallmark.tasks.cv.matching import SHOWN, Part

_ITEM = re.compile(r"^\s*[-*•◦▪●‣·–—]\s+\S")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_MONTH = re.compile(
    r"\b(?:january|february|march|april|may|june|july|august|september|october|november|december"
    r"|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\b",
    re.IGNORECASE,
)
_CAPITAL = re.compile(r"(?<![\w'’-])[A-ZÀ-Þ][\w&'’.+#-]*")
_TOKEN = re.compile(r"[\w&'’+#-]+")

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
    """Moves what matters up and names what is shown; writes nothing of its own.

    Attributes:
        name_skills: how many of the skills that the CV shows are listed at its end, in the list's own words.
    """

    name_skills: int

    def rewrite(self, cv: str, relevance: Callable[[str], float], parts: Sequence[Part], skills: Sequence[str]) -> str:
        """Sort the items of every list by relevance, and list skills; see `Rewriter`."""
        lines: list[str] = []
        block: list[str] = []
        for line in [*cv.split("\n"), ""]:
            if _ITEM.match(line):
                block.append(line)
                continue
            lines += sorted(block, key=relevance, reverse=True)
            lines.append(line)
            block = []
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
    source: str, rewritten: str, skills_of: Callable[[str], list[str]], shows: Callable[[str], bool]
) -> list[Invented]:
    """List what a rewriter has made up: the rewriting is refused if there is anything.

    Any number, month or word with a capital that the source does not have counts, whatever it may be: an employer, a
    title, a place. It refuses too much rather than too little.

    Args:
        source: the CV.
        rewritten: what a rewriter made of it.
        skills_of: names the skills that a new line speaks of.
        shows: tells whether the source shows a skill.
    """
    found: list[Invented] = []
    for kind, pattern in (("number", _NUMBER), ("date", _MONTH)):
        held = {text.lower() for text in pattern.findall(source)}
        found += [Invented(kind, text) for text in pattern.findall(rewritten) if text.lower() not in held]
    held = {token.lower() for token in _TOKEN.findall(source)} | {token.lower() for token in _TOKEN.findall(HEADING)}
    known = {line.strip() for line in source.split("\n")}
    new = [line for line in rewritten.split("\n") if line.strip() and line.strip() not in known]
    offered: dict[str, bool] = {}
    for line in new:
        for unit in units(line):
            for clause in clauses(unit.text):
                for skill in skills_of(clause):
                    offered.setdefault(skill, shows(skill))
    found += [Invented("skill", skill) for skill, there in offered.items() if not there]
    held |= {token.lower() for skill, there in offered.items() if there for token in _TOKEN.findall(skill)}
    for line in new:
        words = (word.strip(".") for word in _CAPITAL.findall(line))
        found += [Invented("name", word) for word in words if word and word.lower() not in held]
    return list(dict.fromkeys(found))


def diff(source: str, rewritten: str) -> str:
    """Compare line by line, as `diff -u` does."""
    pair = (source.split("\n"), rewritten.split("\n"))
    return "\n".join(difflib.unified_diff(*pair, "cv", "rewritten", lineterm="", n=1))
