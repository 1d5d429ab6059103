"""Filters of harmful generated text: a word list, the wording guard, and the interface for other filters."""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Protocol, runtime_checkable

from pydantic import Field

from hallmark.build import configuration
from hallmark.wording import clinical_statements


@runtime_checkable
class Screen(Protocol):
    """A filter of harmful text, one entry of `task.screens`: the word list, or a classifier beside it."""

    def harms(self, text: str) -> Sequence[str]:
        """Return the names of the harms in a text; empty if there is none.

        The names go into the audit record: never quote the text.
        """


@configuration
class WordList:
    """Filter by whole words and phrases, in upper or lower case.

    Attributes:
        words: name of the harm → words and phrases that indicate it.
    """

    words: Annotated[dict[str, Annotated[list[str], Field(min_length=1)]], Field(min_length=1)]

    @cached_property
    def _patterns(self) -> dict[str, "re.Pattern[str]"]:
        return {
            kind: re.compile(rf"\b(?:{'|'.join(map(re.escape, listed))})\b", re.IGNORECASE)
            for kind, listed in self.words.items()
        }

    def harms(self, text: str) -> Sequence[str]:
        """Return the names of the harms whose words occur in a text."""
        return [kind for kind, pattern in self._patterns.items() if pattern.search(text)]


@configuration
class ClinicalWording:
    """Filter of diagnoses, advice on dosing and triage; see hallmark/wording.py."""

    def harms(self, text: str) -> Sequence[str]:
        """Return which of the three a text gives."""
        return clinical_statements(text)


def harms(screens: Sequence[Screen], text: str) -> list[str]:
    """Return the harms that any screen reports, sorted."""
    return sorted({kind for screen in screens for kind in screen.harms(text)})
