"""Evidence of an answer: digests of the weights that the forward pass multiplied, and the observations it rests on.

A response says which model should have answered. Evidence is taken from the memory that was multiplied, so that an
adapter in the wrong slot, a stale slot or a flipped bit shows up when an answer is compared with the bundle's files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from hallmark.contracts import AnyPredictor

Request = TypeVar("Request", contravariant=True)
Response = TypeVar("Response", covariant=True)


@dataclass(frozen=True)
class Evidence:
    """Digests of what one answer was computed with.

    Attributes:
        base_sha256: of the base model's weights.
        adapter_sha256: of the adapter's numbers in the slot that was multiplied; empty if no adapter was.
        history_sha256: of the numbers that summarise the subject's past, as they were read; empty if none were.
    """

    base_sha256: str
    adapter_sha256: str = ""
    history_sha256: str = ""


@dataclass(frozen=True)
class Observations:
    """What an answer rests on, by id.

    Attributes:
        request: those of its request that were used: the time of a reading, or the place in the request.
        past: readings of the subject's past that its statistics are computed from, by their time on the grid.
        fitted: first and last day of the past that the subject's linear adapter was fitted on; None if it has none. A
            reading of these days that is in no complete window, such as one beside a gap, has no influence on it.
    """

    request: tuple[str, ...]
    past: tuple[str, ...] = ()
    fitted: tuple[str, str] | None = None


@runtime_checkable
class Traceable(Protocol):
    """A predictor that names the observations of an answer, and answers without one of them."""

    @property
    def influence_unit(self) -> str:
        """What `figures` are, with their unit."""

    def observations(self, request: Any) -> Observations:
        """Return what the answer to a request rests on."""

    def without(self, request: Any, observation: str | None) -> Any:
        """Return the request without one of its observations, or without the subject's past (None).

        Returns None if nothing would be left to ask.
        """

    def figures(self, response: Any) -> Sequence[float]:
        """Return the figures of an answer whose change measures an influence; none if it has abstained."""


@runtime_checkable
class Witnessing(Protocol[Request, Response]):
    """A predictor that reports evidence with every answer."""

    def predict_with_evidence(self, requests: Sequence[Request]) -> Sequence[tuple[Response, Evidence]]:
        """Answer as `predict` does, each answer with its evidence."""


def answers_with_evidence(
    predictor: AnyPredictor, requests: Sequence[Any], base_sha256: str
) -> Sequence[tuple[Any, Evidence]]:
    """Answer requests; a predictor without adapters multiplies the same weights for every request.

    Args:
        predictor: of any task.
        requests: of its type.
        base_sha256: digest of all weights of the bundle, the evidence of a predictor that is not `Witnessing`.
    """
    if isinstance(predictor, Witnessing):
        return predictor.predict_with_evidence(requests)
    evidence = Evidence(base_sha256)
    return [(answer, evidence) for answer in predictor.predict(requests)]
