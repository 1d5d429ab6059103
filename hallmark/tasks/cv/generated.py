"""CV rewriter that adds a profile written by a language model; rewriting.py rejects hallucinations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from hallmark.errors import ConfigError
from hallmark.families.language.adaptation import LanguageModel, load_language_model
from hallmark.files import sha256
from hallmark.tasks.cv.matching import Part

HEADING = "Profile"


@dataclass(frozen=True)
class Generated:
    """Puts a profile before the CV, continued by a causal language model from the lines that matter most.

    What it writes is held to the CV like any rewriting: one word too many, and nothing of it is given out.

    Attributes:
        model: directory of a trained language model, `base` in a bundle of the text task.
        sha256: of that directory.
        lines: of the CV that it is given, the most relevant ones.
        tokens: that it may write.
        temperature: of its draws; 0 takes the likeliest.
        seed: of them.
    """

    model: str
    sha256: str
    lines: int
    tokens: int
    temperature: float
    seed: int

    def __post_init__(self) -> None:
        if self.lines < 1 or self.tokens < 1:
            raise ValueError(f"lines={self.lines} and tokens={self.tokens} must be at least 1")

    @cached_property
    def writer(self) -> LanguageModel:
        """The model, checked when it is first asked.

        Raises:
            ConfigError: it is not there, or another one.
        """
        directory = Path(self.model)
        if not directory.is_dir():
            raise ConfigError(f"task.rewriter.model={self.model} is no directory: name `base` of a text model")
        if (found := sha256(directory)) != self.sha256:
            raise ConfigError(
                f"task.rewriter.model={self.model} has sha256 {found[:12]}…, the configuration says {self.sha256[:12]}…"
            )
        return load_language_model(directory)

    def rewrite(self, cv: str, relevance: Callable[[str], float], parts: Sequence[Part], skills: Sequence[str]) -> str:
        """Write the profile; see `Rewriter`."""
        lines = [line for line in cv.split("\n") if line.strip() and relevance(line) > 0]
        best = sorted(lines, key=relevance, reverse=True)[: self.lines]
        text = self.writer.text
        [ids] = text.ids(["\n".join(best) + f"\n{HEADING}: "])
        made = self.writer.model.continue_from(
            [text.end, *ids][-(self.writer.context_length // 2) :],
            self.tokens,
            self.temperature,
            0.95,
            torch.Generator().manual_seed(self.seed),
            text.end,
            self.writer.context_length,
        )
        return f"{HEADING}\n{text.text(list(made)).strip()}\n\n{cv}"
