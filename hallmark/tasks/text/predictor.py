"""TextPredictor: a prompt in, a generated text out, whole or streamed."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from hallmark.families.language.adaptation import LanguageModel
from hallmark.families.language.cleaning import normal, tidy, unreadable
from hallmark.families.language.screens import Screen, harms
from hallmark.tasks.text.messages import DISCLAIMER, LONGEST, TextRequest, TextResponse

RUNNING = 40  # words from which a prompt must hold one of English's commonest


@dataclass(frozen=True)
class TextPredictor:
    """A trained language model with its screens.

    Attributes:
        model: it.
        screens: look at what was made.
        version: of the model.
        digest: sha256 of the hallmark.
    """

    model: LanguageModel
    screens: Sequence[Screen]
    version: str
    digest: str

    def predict(self, requests: Sequence[TextRequest]) -> list[TextResponse]:
        """Answer every request in order."""
        return [self._answer(request) for request in requests]

    def stream(self, request: TextRequest) -> Iterator[str]:
        """Give the text of `predict` out as it is made, word by word; nothing for what `predict` refuses.

        A word is held back until what has been made with it has passed the screens: it ends where `predict` withholds.
        """
        if self._unreadable(request):
            return
        sent = ""
        made: list[int] = []
        for token in self._tokens(request):
            made.append(token)
            text = self.model.text.text(made)
            whole = text[: max(text.rfind(" "), text.rfind("\n")) + 1]  # what follows may still become another word
            if len(whole) > len(sent):
                if harms(self.screens, whole):
                    return
                yield whole[len(sent) :]
                sent = whole
        text = self.model.text.text(made)
        if len(text) > len(sent) and not harms(self.screens, text):
            yield text[len(sent) :]

    def continuation(self, request: TextRequest) -> str:
        """Make a text without looking at it: for evaluation."""
        return self.model.text.text(list(self._tokens(request)))

    def _unreadable(self, request: TextRequest) -> str:
        reason = unreadable(normal(request.prompt), LONGEST, RUNNING)
        return reason.replace("the text", "the prompt")

    def _prompt(self, request: TextRequest) -> list[int]:
        """Read the end of the prompt: half of what the model reads is kept for what it makes."""
        [ids] = self.model.text.ids([tidy(request.prompt)])
        return [self.model.text.end, *ids[-(self.model.context_length // 2) :]]

    def _tokens(self, request: TextRequest) -> Iterator[int]:
        generator = torch.Generator().manual_seed(request.seed)
        return self.model.model.continue_from(
            self._prompt(request),
            request.max_tokens,
            request.temperature,
            request.top_p,
            generator,
            self.model.text.end,
            self.model.context_length,
        )

    def _answer(self, request: TextRequest) -> TextResponse:
        reason = self._unreadable(request)
        made = [] if reason else list(self._tokens(request))
        text = self.model.text.text(made)
        found = harms(self.screens, text)
        if found:
            reason = "what was made is withheld: another seed may give something better"
        finish: Literal["end", "length"] = "length" if len(made) == request.max_tokens else "end"
        return TextResponse(
            status="abstained" if reason else "generated",
            reason=reason,
            text=None if reason else text,
            finish=None if reason else finish,
            tokens=len(made),
            tokens_read=0 if reason and not found else len(self._prompt(request)) - 1,
            harms=found,
            prompt_sha256=hashlib.sha256(request.prompt.encode(errors="replace")).hexdigest(),
            model_version=self.version,
            hallmark_sha256=self.digest,
            disclaimer=DISCLAIMER,
        )
