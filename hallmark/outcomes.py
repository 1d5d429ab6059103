"""Outcomes: what really happened after an answer, which the task checks and compares with the answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import pandas as pd

from hallmark.errors import RequestError

Response = TypeVar("Response", contravariant=True)

CLOCK_SKEW = timedelta(minutes=5)
"""How far the clock of whoever tells an outcome may be from that of the service."""


@dataclass(frozen=True)
class Outcome:
    """What really happened.

    Attributes:
        horizon: of a forecast, in minutes, such as `60`; empty for other tasks.
        value: a number in the task's unit, or a label.
        observed_at: when, with the offset in which it was sent.
    """

    horizon: str
    value: float | str
    observed_at: datetime


@runtime_checkable
class Estimating(Protocol[Response]):
    """A task whose answers say how large their errors will be, before outcomes are known."""

    def expected(self, response: Response, horizon: str) -> Mapping[str, float]:
        """Estimate the errors of an answer from its own uncertainty, named as by `HasOutcomes.errors`.

        It is an estimate: a model that is wrong about its uncertainty, as after the population moved, is wrong here.
        """


@dataclass(frozen=True)
class Answered:
    """A recorded answer, and what really happened after it.

    Attributes:
        subject_id: whose it is.
        asked_at: when, by the clock of the service; with a zone.
        request: the request as the predictor read it.
        response: the answer.
        outcomes: of it, the time of each with a zone.
    """

    subject_id: str
    asked_at: datetime
    request: Any
    response: Any
    outcomes: Sequence[Outcome]


class OutcomeError(RequestError):
    """An outcome that cannot be that of an answer.

    Attributes:
        field: what is wrong with it.
    """

    def __init__(self, field: Literal["prediction_id", "horizon", "value", "observed_at"], problem: str) -> None:
        super().__init__(problem)
        self.field = field


@runtime_checkable
class HasOutcomes(Protocol[Response]):
    """A task whose answers can be compared with what really happened."""

    def check_outcome(self, response: Response, outcome: Outcome, asked_at: datetime) -> None:
        """Check that an outcome can be one of an answer.

        Args:
            response: the answer.
            outcome: of it.
            asked_at: when the answer was given, by the clock of the service; with a zone.

        Raises:
            OutcomeError: it cannot.
        """

    def errors(self, response: Response, horizon: str, value: float | str) -> Mapping[str, float]:
        """Compare an answer with an outcome that was checked.

        Returns:
            Errors by name, each the smaller the better: `absolute_error` and `squared_error` in the task's unit, or
            `brier` and `error` (0 or 1). For every interval also `covered_90` (0 or 1), by its nominal coverage in
            percent. Empty if there is nothing to compare.
        """


@runtime_checkable
class Observing(Protocol):
    """A task whose recorded answers hold rows that a model can learn from."""

    def observed(self, answers: Sequence[Answered]) -> pd.DataFrame:
        """Collect the rows that requests and outcomes hold.

        Returns:
            Rows in the form that the task's `own_source` reads, each once, and when the service could have known it:
            column `known_at`, UTC.
        """


FEEDBACK = "feedback"
"""In place of the horizon: what somebody says about an answer. No horizon of a task has this name."""

HELPFUL, UNHELPFUL = "helpful", "unhelpful"
"""Values of a feedback."""


def errors_of(task: Any, response: Any, horizon: str, value: float | str) -> Mapping[str, float]:
    """Compare an answer of any task with an outcome that was checked; see `HasOutcomes.errors`.

    Of a feedback, `unhelpful` is 0 or 1; answers of every task may have one.
    """
    if horizon == FEEDBACK:
        return {UNHELPFUL: float(value != HELPFUL)}
    return task.errors(response, horizon, value) if isinstance(task, HasOutcomes) else {}


def check(task: Any, response: Any, outcome: Outcome, asked_at: datetime, now: datetime) -> None:
    """Check an outcome of any task; see `HasOutcomes.check_outcome`.

    Raises:
        OutcomeError: it lies in the future, it cannot be an outcome of this answer, or answers of this task have none.
    """
    if not isinstance(task, HasOutcomes):
        raise OutcomeError("prediction_id", f"answers of the task {task.name} have no outcome")
    if outcome.observed_at > now + CLOCK_SKEW:
        raise OutcomeError("observed_at", "lies in the future")
    task.check_outcome(response, outcome, asked_at)
