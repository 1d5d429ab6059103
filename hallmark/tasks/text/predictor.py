"""Generate a text from a prompt, whole or streamed."""

import hashlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from hallmark.families.language.adaptation import LanguageModel
from hallmark.families.language.cleaning import normalise_line, rejection_reason, tidy
from hallmark.families.language.screens import ClinicalWording, Screen, harms
from hallmark.tasks.text.messages import DISCLAIMER, LONGEST, TextRequest, TextResponse
from hallmark.wording import complete_sentences

RUNNING = 40  # words; a prompt of this length or more must contain a common English word


@dataclass(frozen=True)
class TextPredictor:
    """A trained language model with its screens.

    Attributes:
        model: the language model.
        screens: checks of the generated text for harm, beside the wording guard, which every text passes.
        version: version of the model.
        digest: sha256 of the hallmark.
    """

    model: LanguageModel
    screens: Sequence[Screen]
    version: str
    digest: str

    def predict(self, requests: Sequence[TextRequest]) -> list[TextResponse]:
        """Answer every request in order."""
        return [self._answer(request) for request in requests]

    def stream(self, request: TextRequest) -> Generator[str, None, TextResponse]:
        """Yield the text of `predict` sentence by sentence while it is generated, nothing where `predict` abstains.

        A sentence is yielded only after the text up to its end has passed the screens; otherwise the stream ends.

        Returns:
            The response that `predict` gives.
        """
        if reason := self._unreadable(request):
            return self._respond(request, [], reason)
        sent, withheld = "", False
        tokens: list[int] = []
        for token in self._tokens(request):
            tokens.append(token)
            text = self.model.text.text(tokens)
            complete = complete_sentences(text)
            if len(complete) > len(sent) and not withheld:
                if withheld := bool(self._harms(complete)):
                    continue
                yield complete[len(sent) :]
                sent = complete
        text = self.model.text.text(tokens)
        if len(text) > len(sent) and not withheld and not self._harms(text):
            yield text[len(sent) :]
        return self._respond(request, tokens, "")

    def continuation(self, request: TextRequest) -> str:
        """Generate a text without screening it: for evaluation."""
        return self.model.text.text(list(self._tokens(request)))

    def _harms(self, text: str) -> list[str]:
        return harms((*self.screens, ClinicalWording()), text)

    def _unreadable(self, request: TextRequest) -> str:
        reason = rejection_reason(normalise_line(request.prompt), LONGEST, RUNNING)
        return reason.replace("the text", "the prompt")

    def _prompt(self, request: TextRequest) -> list[int]:
        """Tokenise the end of the prompt; half of the context length is reserved for generated tokens."""
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
        return self._respond(request, [] if reason else list(self._tokens(request)), reason)

    def _respond(self, request: TextRequest, tokens: list[int], reason: str) -> TextResponse:
        """Make the response of generated tokens, or of a reason why there are none."""
        text = self.model.text.text(tokens)
        harm_kinds = self._harms(text)
        if harm_kinds:
            reason = "what was made is withheld: another seed may give something better"
        finish: Literal["end", "length"] = "length" if len(tokens) == request.max_tokens else "end"
        return TextResponse(
            status="abstained" if reason else "generated",
            reason=reason,
            text=None if reason else text,
            finish=None if reason else finish,
            tokens=len(tokens),
            tokens_read=0 if reason and not harm_kinds else len(self._prompt(request)) - 1,
            harms=harm_kinds,
            prompt_sha256=hashlib.sha256(request.prompt.encode(errors="replace")).hexdigest(),
            model_version=self.version,
            hallmark_sha256=self.digest,
            disclaimer=DISCLAIMER,
        )
