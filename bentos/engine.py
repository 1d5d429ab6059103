"""The model that the service answers with: opened from a bundle, tried, and replaced when the bundle changes."""

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from hallmark.contracts import AnyPredictor
from hallmark.errors import BundleError, ConfigError, HallmarkError
from hallmark.evidence import Evidence, answers_with_evidence
from hallmark.files import sha256
from hallmark.model import Model, explain
from hallmark.prove.beside import Beside, read_beside
from hallmark.prove.bundle import MANIFEST, Hallmark
from hallmark.prove.serving import CURRENT, NAME
from hallmark.prove.signature import signature_of, verify

log = logging.getLogger("bentoml.hallmark")

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@dataclass(frozen=True, eq=False)
class Served:
    """A model that answers.

    Attributes:
        model: the opened bundle.
        example: a request that it was tried with; None if the task has no `examples/TASK.json`.
    """

    model: Model
    example: BaseModel | None

    @property
    def hallmark(self) -> Hallmark:
        """Its manifest."""
        return self.model.hallmark

    @property
    def digest(self) -> str:
        """sha256 of its manifest."""
        return self.model.digest

    @property
    def base_sha256(self) -> str:
        """Digest of all weights."""
        return str(self.hallmark.digests["weights"])

    @cached_property
    def request_type(self) -> type[BaseModel]:
        """Type of a request."""
        return self.model.task.request_type()

    def answer(self, requests: Sequence[Any]) -> Sequence[tuple[Any, Evidence]]:
        """Answer requests, each with its evidence."""
        return answers_with_evidence(self.model.predictor, requests, self.base_sha256)

    def evidence(self) -> Evidence:
        """Return the evidence of an answer without an adapter."""
        return Evidence(self.base_sha256)

    def open_again(self) -> AnyPredictor:
        """Open the bundle's files anew: a predictor that shares no memory with the one that answers."""
        return self.model.open_again()

    def try_out(self) -> None:
        """Answer the example.

        Raises:
            BundleError: there was no answer.
            ConfigError: the model cannot answer on the configured device.
        """
        if self.example is None:
            return
        try:
            [(answer, _)] = self.answer([self.example])
        except ConfigError:
            raise
        except Exception as error:
            raise BundleError(f"{self.model.directory} cannot answer its example ({type(error).__name__})") from error
        if getattr(answer, "served_by", "") == "baseline" and not self.model.damaged:
            raise BundleError(f"{self.model.directory}: its network fails on the example; only its baseline answers")


def check_device(device: str) -> None:
    """Check that torch sees the device.

    Raises:
        ConfigError: it does not.
    """
    if device == "cpu":
        return
    from torch import nn

    from hallmark.learn.placement import place

    try:
        place(nn.Identity(), device)
    except ConfigError as error:
        raise ConfigError(f"HALLMARK_DEVICE: {error}") from None


def load(directory: Path, public_key: Path | None = None, device: str = "cpu") -> Served:
    """Open a bundle and try it.

    Raises:
        BundleError: a file that the model cannot do without is missing or changed, one is unknown, a gate refused it,
            it is not signed by the owner of the key that is given, or it cannot answer.
        ConfigError: the model cannot answer on the device.
    """
    from hallmark.learn.trainer import quiet, seed_everything

    quiet()
    seed_everything(0, 1)
    if public_key is not None:
        verify(directory, public_key)
    model = Model(directory, degraded=True, device=device)
    if model.damaged:
        count = len(model.damaged)
        log.error("%d files of %s are missing or changed: run `hallmark verify %s`", count, directory, directory)
    served = Served(model, read_example(model))
    served.try_out()
    return served


def read_example(model: Model) -> BaseModel | None:
    """Read the example request of a model's task."""
    file = EXAMPLES / f"{model.hallmark.task}.json"
    if not file.is_file():
        return None
    try:
        return model.task.request_type().model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise BundleError(f"{file} is no request for {model.hallmark.task}: {explain(error)}") from None


@dataclass(frozen=True)
class Question:
    """A request, and who decides on the version that answers it.

    Attributes:
        request: of the task.
        owner: the subject or client, by whom a version is drawn; None for the champion.
        digest: of the version that answers, whoever the owner is; empty draws one.
    """

    request: Any
    owner: str | None = None
    digest: str = ""


@dataclass(frozen=True)
class Answer:
    """An answer, what it was computed with, and the model that gave it; seconds are its share of the computation."""

    response: BaseModel
    evidence: Evidence
    served: Served
    seconds: float = 0.0


class Engine:
    """Holds the model that answers now.

    Args:
        directory: of the bundle, or a link to it; another bundle in the same place replaces the model.
        public_key: of the owner who must have signed it; None asks for no signature.
        device: on which it computes.
    """

    def __init__(self, directory: Path, public_key: Path | None = None, device: str = "cpu") -> None:
        self.directory, self.public_key, self.device = directory, public_key, device
        self.served = load(directory.resolve(), public_key, device)
        self._before: Served | None = None  # answers again at once after a rollback
        self._refused = ""
        self.beside = Beside()
        self._others: dict[str, Served] = {}
        self._refused_beside: set[str] = set()
        self.reload_beside()

    @property
    def versions(self) -> list[Served]:
        """All models that answer now, the champion first."""
        return [self.served, *self._others.values()]

    def challenger(self) -> Served | None:
        """Return the challenger, if it is open."""
        return self._others.get(self.beside.challenger)

    def version_for(self, question: Question) -> Served:
        """Return the model that answers a question; the champion in place of one that could not be opened."""
        if question.digest:
            return next((served for served in self.versions if served.digest == question.digest), self.served)
        name = self.beside.answers(question.owner) if question.owner is not None else ""
        return self._others.get(name, self.served)

    def answer(self, questions: Sequence[Question]) -> Sequence[Answer]:
        """Answer a batch with the models of this moment."""
        versions = [self.version_for(question) for question in questions]
        answers: list[Answer | None] = [None] * len(questions)
        for served in dict.fromkeys(versions):
            places = [place for place, version in enumerate(versions) if version is served]
            start = time.perf_counter()
            found = served.answer([questions[place].request for place in places])
            seconds = (time.perf_counter() - start) / len(places)
            for place, (response, evidence) in zip(places, found, strict=True):
                answers[place] = Answer(response, evidence, served, seconds)
        return [answer for answer in answers if answer is not None]

    def reload_beside(self) -> bool:
        """Open and close the versions beside the champion as `served/TASK/beside.json` says; tells whether one changed.

        One that cannot be opened, is damaged or has other types does not answer: the champion does, and the log says so
        once.
        """
        if self.directory.name != CURRENT:
            return False
        root = self.directory.parent
        try:
            beside = read_beside(root)
        except HallmarkError as error:
            self._refuse_beside("", error)
            beside = Beside()
        if (beside.names, beside.since) != (self.beside.names, self.beside.since):
            self._refused_beside &= {""}
        wanted = {name for name in beside.names if name != self.served.digest[:NAME] and (root / name).is_dir()}
        opened = {name: served for name, served in self._others.items() if name in wanted}
        for name in sorted(wanted - set(opened) - self._refused_beside):
            try:
                served = self._known_beside(root / name) or load(root / name, self.public_key, self.device)
                if served.model.damaged or served.hallmark.schema != self.served.hallmark.schema:
                    raise BundleError(f"{root / name} is damaged, or has other types of request and response")
                opened[name] = served
            except HallmarkError as error:
                self._refuse_beside(name, error)
        changed = opened.keys() != self._others.keys()
        self._others, self.beside = opened, beside
        return changed

    def _known_beside(self, directory: Path) -> Served | None:
        """Return the model that answered before a promotion or a rollback, if it is that of this directory."""
        before = self._before
        return before if before and before.model.directory == directory.resolve() else None

    def _refuse_beside(self, name: str, error: HallmarkError) -> None:
        if name not in self._refused_beside:
            self._refused_beside.add(name)
            log.error("a version beside the champion does not answer: %s", error)

    def reload(self) -> bool:
        """Take the bundle that is now in the directory, if it is another one or was mended; tells whether it was taken.

        A bundle that cannot be opened, is damaged, or has other types of request and response, is not taken: the model
        that answers stays, and the reason is logged once.
        """
        if self._before is not None and not self._before.model.directory.is_dir():
            self._before = None  # deleted, perhaps because it knew a subject that was erased
        directory = self.directory.resolve()  # files that are read later must be those of the same bundle
        signature = signature_of(directory)
        try:
            digest = hashlib.sha256((directory / MANIFEST).read_bytes()).hexdigest()
            signed = hashlib.sha256(signature.read_bytes()).hexdigest() if signature.is_file() else ""
        except OSError:
            return False  # it is being replaced
        if (digest == self.served.digest and not self._mended()) or digest + signed == self._refused:
            return False
        try:
            served = self._known(digest, directory) or load(directory, self.public_key, self.device)
            if served.model.damaged and digest != self.served.digest:
                raise BundleError(f"{len(served.model.damaged)} files of {directory} are missing or changed")
            if served.hallmark.schema != self.served.hallmark.schema:
                raise BundleError(f"{directory} has other types of request and response: restart the service")
        except HallmarkError as error:
            if digest != self.served.digest:  # files of the one that answers may still be on their way
                self._refused = digest + signed
            log.error("a new bundle is not served: %s", error)
            return False
        self.served, self._before = served, self.served
        log.info("now serving %s %s", served.hallmark.task, served.hallmark.version)
        return True

    def _known(self, digest: str, directory: Path) -> Served | None:
        """Return the model that answered before, if it is that of this bundle: it was checked when it was opened."""
        before = self._before
        return before if before and (before.digest, before.model.directory) == (digest, directory) else None

    def _mended(self) -> bool:
        """Tell whether a damaged file of the bundle that answers is whole again; only these are read."""
        model = self.served.model
        for name in model.damaged:
            file = model.directory / name
            if file.is_file() and sha256(file) == model.hallmark.files[name]:
                return True
        return False
