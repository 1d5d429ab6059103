"""Model: an opened bundle that predicts; what `hallmark.open` returns."""

import json
from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ValidationError

from hallmark.build import build
from hallmark.contracts import AnyLearner, Predictor, Task
from hallmark.errors import BundleError, RequestError
from hallmark.prove.bundle import CARD, Hallmark, open_accepted


class Model:
    """A bundle whose every file was checked; its weights are read when it first predicts.

    Args:
        directory: the bundle.

    Attributes:
        directory: the bundle.
        hallmark: its signed manifest: version, provenance, metrics, verdicts.
        digest: sha256 of the manifest, which every answer names.

    Raises:
        BundleError: a file is missing, changed or unknown, or a gate refused the model.

    Example:
        >>> import hallmark
        >>> model = hallmark.open("bundle")            # doctest: +SKIP
        >>> model.predict([{"asked_at": …}])           # doctest: +SKIP
    """

    def __init__(self, directory: str | PathLike[str]) -> None:
        self.directory = Path(directory)
        self.hallmark: Hallmark
        self.hallmark, self.digest = open_accepted(self.directory)
        self.task: Task = build(self.hallmark.spec["task"], "task")
        self.learner: AnyLearner = build(self.hallmark.spec["learner"], "learner")

    def __repr__(self) -> str:
        """Name task, version and hallmark."""
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
    def predictor(self) -> Predictor:
        """The predictor behind `predict`; the service uses the same."""
        return self.learner.open(self.task, self.directory, self.version, self.digest)

    def predict(self, requests: Sequence[Any] | pd.DataFrame) -> list[BaseModel]:
        """Answer requests, in order; what must not be answered yields an abstention with its reason.

        Args:
            requests: each one a request of the task's type, or a mapping of its fields; or a table with one request a
                row and one of its fields a column.

        Raises:
            RequestError: a request is none of the task's; names its place and the field, never the value.
        """
        rows = _rows(requests) if isinstance(requests, pd.DataFrame) else requests
        return self.predictor.predict([self._request(row, place) for place, row in enumerate(rows)])

    def verify(self) -> Hallmark:
        """Check every file again.

        Raises:
            BundleError: as when it was opened, or the manifest is another one by now.
        """
        found, digest = open_accepted(self.directory)
        if digest != self.digest:
            raise BundleError(f"{self.directory} holds another bundle than was opened: open it again")
        return found

    def _request(self, row: Any, place: int) -> BaseModel:
        kind = self.task.request_type()
        if isinstance(row, kind):
            return row
        try:
            return kind.model_validate_json(json.dumps(row, default=_plain))
        except ValidationError as error:
            raise RequestError(f"request {place} is none for {self.hallmark.task}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """Say in one line what is wrong with a request.

    pydantic's words about a missing, extra or ill-typed field name the rule, never the value.
    """
    first = error.errors()[0]
    return " ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Turn every row into a mapping; what is missing is left out, so that a field's default holds."""
    return [
        {str(name): value for name, value in row.items() if isinstance(value, list | dict) or not pd.isna(value)}
        for row in table.to_dict("records")
    ]


def _plain(value: Any) -> Any:
    """Write what JSON does not know: times, and numbers of numpy."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be part of a request")
