"""Filters of harmful generated text: a word list, and the interface for other filters."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol


class Screen(Protocol):
    """Looks for harm; a classifier joins the word list as one more of `task.screens`."""

    def harms(self, text: str) -> Sequence[str]:
        """Name what is wrong with a text; empty if nothing is. Names go into the audit record: never quote the text."""


@dataclass(frozen=True)
class WordList:
    """Words and phrases, whole ones, in any case.

    Attributes:
        words: what is wrong → the words that give it away.
    """

    words: dict[str, list[str]]

    def __post_init__(self) -> None:
        if empty := [kind for kind, listed in self.words.items() if not listed]:
            raise ValueError(f"words.{empty[0]} is empty: it would never find anything")

    @cached_property
    def _patterns(self) -> dict[str, "re.Pattern[str]"]:
        return {
            kind: re.compile(rf"\b(?:{'|'.join(map(re.escape, listed))})\b", re.IGNORECASE)
            for kind, listed in self.words.items()
        }

    def harms(self, text: str) -> Sequence[str]:
        """Name the kinds of which a word occurs."""
        return [kind for kind, pattern in self._patterns.items() if pattern.search(text)]


def harms(screens: Sequence[Screen], text: str) -> list[str]:
    """Ask every screen."""
    return sorted({kind for screen in screens for kind in screen.harms(text)})
