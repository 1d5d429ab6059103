"""Rewrite a CV: sort list items by relevance and append shown skills; check that a rewriting adds no facts."""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from hallmark.build import configuration
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
_OPEN = re.compile(r"\b(?:present|today|now|ongoing|current)\b")  # an employment without an end date
_TOKEN = re.compile(r"[^\W\d_](?:[\w&'’+#]|-(?=\w))*")
_STEM = 4  # first letters that forms of the same word share
# Function words, which claim nothing.
_JOINING = frozenset(
    """
also and are been being both but during each for from had has have her his its into more most other our over
some such than that the their them then there these they this those through under until upon very was were
what when where which while who will with within your
""".split()
)

HEADING = "Relevant skills"


@runtime_checkable
class Rewriter(Protocol):
    """Rewrites a CV for a job."""

    def rewrite(self, cv: str, relevance: Callable[[str], float], parts: Sequence[Part], skills: Sequence[str]) -> str:
        """Return the rewritten text.

        Args:
            cv: the tidy document, not redacted: it is returned to its owner.
            relevance: relevance of one line for the job.
            parts: parts of the score.
            skills: names of the skills, by index.
        """


@configuration
class Extractive:
    """Moves relevant lines up and names the skills that are shown; writes no sentence of its own.

    Attributes:
        name_skills: maximum number of shown skills that are named at the end of the CV, in the list's own words.
    """

    name_skills: int

    def rewrite(self, cv: str, relevance: Callable[[str], float], parts: Sequence[Part], skills: Sequence[str]) -> str:
        """Sort the items of every list by relevance, and list skills; see `Rewriter`."""
        lines: list[str] = []
        block: list[list[str]] = []  # adjacent items of one list, each with its lines

        def flush_block() -> None:
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
                    flush_block()
                block.append([line])
            else:
                flush_block()
                lines.append(line)
        text = "\n".join(lines[:-1])
        best = sorted((part for part in parts if part.coverage >= SHOWN), key=lambda part: -part.points)
        best_names = [skills[part.wanted.skill] for part in best[: self.name_skills]]
        unnamed = [skill for skill in best_names if skill.lower() not in cv.lower()]
        if not unnamed:
            return text
        return text.rstrip("\n") + f"\n\n{HEADING}\n" + "\n".join(f"- {skill}" for skill in unnamed)


@dataclass(frozen=True)
class Invented:
    """A claim of a rewritten CV that its source does not support.

    Attributes:
        kind: number, date, name, word or skill.
        text: the word, the skill or the line.
    """

    kind: str
    text: str


def invented(
    source: str, rewritten: str, told: str, skills_of: Callable[[str], list[str]], shows: Callable[[str], bool]
) -> list[Invented]:
    """List the claims that a rewriter has invented; a rewriting with any invention is refused.

    The numbers, months and names of a new line must occur together in one line of the source, with half of its other
    words, so that a year cannot move to another employer. Its other words must occur anywhere in the source, in any
    form. The check prefers to refuse too much rather than too little.

    Args:
        source: the CV.
        rewritten: the text of the rewriter.
        told: the CV without personal data: a birth year or a street is no fact about work.
        skills_of: returns the skills that a new line mentions.
        shows: returns whether the source shows a skill.
    """
    known_lines = {line.strip() for line in source.split("\n")}
    new_lines = [line.strip() for line in rewritten.split("\n") if line.strip() and line.strip() not in known_lines]
    source_lines = []
    for line in told.split("\n"):
        line_words = {word.lower() for word in _TOKEN.findall(line)}
        source_lines.append((_facts(line), line_words, set(map(_stem, line_words))))
    source_stems = {stem for *_, stems in source_lines for stem in stems}
    inventions: list[Invented] = []
    for line in new_lines:
        if is_heading(line):
            continue
        mentioned = {
            skill: shows(skill) for unit in units(line) for part in clauses(unit.text) for skill in skills_of(part)
        }
        inventions += [Invented("skill", skill) for skill, is_shown in mentioned.items() if not is_shown]
        shown_stems = {
            _stem(word) for skill, is_shown in mentioned.items() if is_shown for word in _TOKEN.findall(skill)
        }
        words = [
            word
            for word in _TOKEN.findall(line)
            if len(word) >= (2 if word[0].isupper() else _STEM) and word.lower() not in _JOINING
        ]
        inventions += [
            Invented("name" if word[0].isupper() else "word", word)
            for word in words
            if _stem(word) not in source_stems | shown_stems
        ]
        facts, names = _facts(line), {word.lower() for word in words[1:] if word[0].isupper()}
        names -= {word.lower() for skill, is_shown in mentioned.items() if is_shown for word in _TOKEN.findall(skill)}
        word_stems = {_stem(word) for word in words}
        if (facts or names) and not any(
            facts <= line_facts and names <= line_words and 2 * len(word_stems & stems) >= len(word_stems)
            for line_facts, line_words, stems in source_lines
        ):
            kinds = {"date" if _MONTH.fullmatch(fact) else "number" for fact in facts} or {"name"}
            inventions += [Invented(kind, line) for kind in sorted(kinds)]
    return list(dict.fromkeys(inventions))


def _facts(line: str) -> set[str]:
    """Return the numbers and months of a line, and "present" beside them; lower case, no thousands separators."""
    facts = [text.lower() for pattern in (_NUMBER, _MONTH) for text in pattern.findall(line)]
    open_ended = _OPEN.findall(line.lower()) if facts else []
    return {re.sub(r"(?<=\d),(?=\d{3}\b)", "", text) for text in (*facts, *open_ended)}


def _stem(word: str) -> str:
    return word.lower()[:_STEM]


def diff(source: str, rewritten: str) -> str:
    """Compare line by line, as `diff -u` does."""
    pair = (source.split("\n"), rewritten.split("\n"))
    return "\n".join(difflib.unified_diff(*pair, "cv", "rewritten", lineterm="", n=1))
