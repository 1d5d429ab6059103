"""Model: an opened bundle with `predict`; `hallmark.open` returns it."""

import json
from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ValidationError

from hallmark.abilities import Degrading, Placeable
from hallmark.build import build
from hallmark.contracts import AnyLearner, AnyPredictor, Task
from hallmark.errors import BundleError, ConfigError, RequestError
from hallmark.prove.bundle import CARD, Hallmark, check_verdicts, damage, open_accepted, read_hallmark


class Model:
    """An opened bundle: every file is checked at once, the weights are read at the first prediction.

    Args:
        directory: of the bundle.
        degraded: open it even if files are missing or changed that the model can do without (`Degrading`): what they
            hold is then answered by a simpler model, and every such answer says so.
        device: `cpu`, or `cuda` where the task's predictor can use it (`Placeable`).
        named: version and digest that its answers name instead of its own: those of the bundle that it was made from
            by taking a subject out, whose other answers it computes again.

    Attributes:
        directory: of the bundle.
        damaged: those files; empty if the bundle is whole.
        hallmark: its manifest: version, provenance, metrics, verdicts.
        digest: sha256 of the manifest, which every answer contains.

    Raises:
        BundleError: a file is missing, changed or unknown, or a gate refused the model.

    Example:
        >>> import hallmark
        >>> model = hallmark.open("bundle")            # doctest: +SKIP
        >>> model.predict([{"asked_at": …}])           # doctest: +SKIP
    """

    def __init__(
        self,
        directory: str | PathLike[str],
        degraded: bool = False,
        device: str = "cpu",
        named: tuple[str, str] | None = None,
    ) -> None:
        self.directory, self.device = Path(directory), device
        self.hallmark: Hallmark
        self.hallmark, self.digest = read_hallmark(self.directory)
        self.named = named or (self.hallmark.version, self.digest)
        found = damage(self.directory, self.hallmark.files)
        check_verdicts(self.directory, self.hallmark)
        self.task: Task = build(self.hallmark.spec["task"], "task")
        self.learner: AnyLearner = build(self.hallmark.spec["learner"], "learner")
        for file, what in found.items():
            spared = degraded and isinstance(self.learner, Degrading) and self.learner.spares(file)
            if not spared or file not in self.hallmark.files:
                raise BundleError(what)
        self.damaged = tuple(found)

    def __repr__(self) -> str:
        """Show task, version and the digest of the hallmark."""
        return f"<hallmark {self.hallmark.task} {self.hallmark.version}, sha256 {self.digest[:12]}…>"

    @property
    def version(self) -> str:
        """Semantic version."""
        return self.hallmark.version

    @property
    def card(self) -> str:
        """The model card, Markdown."""
        return (self.directory / CARD).read_text(encoding="utf-8")

    @cached_property
    def predictor(self) -> AnyPredictor:
        """The predictor that `predict` calls; the service uses it too."""
        return self.open_again()

    def open_again(self) -> AnyPredictor:
        """Open the bundle's files anew: a predictor that shares no memory with `predictor`."""
        opened = (self.task, self.directory, *self.named)
        if self.damaged and isinstance(self.learner, Degrading):
            predictor = self.learner.open_damaged(*opened, self.damaged)
        else:
            predictor = self.learner.open(*opened)
        if self.device != "cpu":
            self._place(predictor)
        return predictor

    def _place(self, predictor: AnyPredictor) -> None:
        from hallmark.learn.placement import place

        if not isinstance(predictor, Placeable):
            raise ConfigError(f"device={self.device}: the models of {self.hallmark.task} answer on the CPU alone")
        for network in predictor.networks:
            place(network, self.device)

    def predict(self, requests: Sequence[Any] | pd.DataFrame) -> list[BaseModel]:
        """Answer requests, in order; a request that must not be answered gets an abstention with its reason.

        Args:
            requests: requests of the task's type or mappings of their fields; or a table with one request per row and
                one field per column.

        Returns:
            One response per request.

        Raises:
            RequestError: a request is not valid for the task; names its position and the field, never the value.
        """
        rows = _rows(requests) if isinstance(requests, pd.DataFrame) else requests
        return self.predictor.predict([self._request(row, place) for place, row in enumerate(rows)])

    def verify(self) -> Hallmark:
        """Check every file again.

        Raises:
            BundleError: as when it was opened, or the manifest has changed since.
        """
        hallmark, digest = open_accepted(self.directory)
        if digest != self.digest:
            raise BundleError(f"{self.directory} holds another bundle than was opened: open it again")
        return hallmark

    def _request(self, row: Any, place: int) -> BaseModel:
        kind = self.task.request_type()
        if isinstance(row, kind):
            return row
        try:
            return kind.model_validate_json(json.dumps(row, default=plain))
        except ValidationError as error:
            raise RequestError(f"request {place} is none for {self.hallmark.task}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """Describe in one line what is wrong with a request.

    pydantic's messages about a missing, extra or ill-typed field name the rule, never the value.
    """
    first = error.errors()[0]
    return " ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Convert every row to a mapping without its missing values, so that the fields' defaults apply."""
    return [
        {str(name): value for name, value in row.items() if isinstance(value, list | dict) or not pd.isna(value)}
        for row in table.to_dict("records")
    ]


def plain(value: Any) -> Any:
    """Convert values that JSON does not have: times, and numbers of NumPy."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be part of a request")
