"""The model that the service answers with: opened from a bundle, tried, and replaced when the bundle changes."""

import hashlib
import logging
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
from hallmark.prove.bundle import MANIFEST, Hallmark
from hallmark.prove.signature import signature_of, verify

log = logging.getLogger("bentoml.hallmark")

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@dataclass(frozen=True)
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
class Answer:
    """An answer, what it was computed with, and the model that gave it."""

    response: BaseModel
    evidence: Evidence
    served: Served


class Engine:
    """Holds the model that answers now.

    Args:
        directory: of the bundle; another one in the same place replaces the model.
        public_key: of the owner who must have signed it; None asks for no signature.
        device: on which it computes.
    """

    def __init__(self, directory: Path, public_key: Path | None = None, device: str = "cpu") -> None:
        self.directory, self.public_key, self.device = directory, public_key, device
        self.served = load(directory, public_key, device)
        self._refused = ""

    def answer(self, requests: Sequence[Any]) -> Sequence[Answer]:
        """Answer a batch with the model of this moment."""
        served = self.served
        return [Answer(response, evidence, served) for response, evidence in served.answer(requests)]

    def reload(self) -> bool:
        """Take the bundle that is now in the directory, if it is another one or was mended; tells whether it was taken.

        A bundle that cannot be opened, is damaged, or has other types of request and response, is not taken: the model
        that answers stays, and the reason is logged once.
        """
        manifest = self.directory / MANIFEST
        signature = signature_of(self.directory)
        try:
            digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
            signed = hashlib.sha256(signature.read_bytes()).hexdigest() if signature.is_file() else ""
        except OSError:
            return False  # it is being replaced
        if (digest == self.served.digest and not self._mended()) or digest + signed == self._refused:
            return False
        try:
            served = load(self.directory, self.public_key, self.device)
            if served.model.damaged and digest != self.served.digest:
                raise BundleError(f"{len(served.model.damaged)} files of {self.directory} are missing or changed")
            if served.hallmark.schema != self.served.hallmark.schema:
                raise BundleError(f"{self.directory} has other types of request and response: restart the service")
        except HallmarkError as error:
            if digest != self.served.digest:  # files of the one that answers may still be on their way
                self._refused = digest + signed
            log.error("a new bundle is not served: %s", error)
            return False
        self.served = served
        log.info("now serving %s %s", served.hallmark.task, served.hallmark.version)
        return True

    def _mended(self) -> bool:
        """Tell whether a damaged file of the bundle that answers is whole again; only these are read."""
        model = self.served.model
        for name in model.damaged:
            file = self.directory / name
            if file.is_file() and sha256(file) == model.hallmark.files[name]:
                return True
        return False
