"""What an answer rests on, and how much it changes when one of these observations is left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from hallmark.contracts import AnyPredictor
from hallmark.evidence import Observations, Traceable

WITHOUT_PAST = ("none", "baseline")
PAST = "past"
"""Stands for the subject's past as a whole: a bundle keeps what was learned from it, not the readings."""


@dataclass(frozen=True)
class Influence:
    """Influence of one observation.

    Attributes:
        id: of the observation, or `past`.
        change: largest change of a figure of the answer without it; None if there would be no such figure.
    """

    id: str
    change: float | None


@dataclass(frozen=True)
class Trace:
    """Observations of a request, and the requests that measure their influence.

    Attributes:
        observations: what its answer rests on.
        unit: what influences are measured in; empty if the predictor measures none.
        left_out: the request without one observation each.
    """

    observations: Observations
    unit: str = ""
    left_out: Sequence[tuple[str, Any]] = ()


def trace(predictor: AnyPredictor, request: BaseModel, response: BaseModel, measured: bool = True) -> Trace:
    """Name what an answer rests on: the fields of the request, if the predictor knows no better.

    Args:
        predictor: which gave the answer.
        request: the whole one.
        response: to it. An abstention and a baseline rest on no past, and an abstention has no figures to compare.
        measured: whether influences will be asked for.
    """
    if not isinstance(predictor, Traceable):
        return Trace(Observations(tuple(type(request).model_fields)))
    observed = predictor.observations(request)
    if getattr(response, "served_by", "base") in WITHOUT_PAST:
        observed = Observations(observed.request)
    if not (measured and predictor.figures(response)):
        return Trace(observed, predictor.influence_unit)
    left: list[tuple[str, Any]] = [(name, predictor.without(request, name)) for name in observed.request]
    if observed.past or observed.fitted:
        left.append((PAST, predictor.without(request, None)))
    return Trace(observed, predictor.influence_unit, [(name, rest) for name, rest in left if rest is not None])


def influences(predictor: AnyPredictor, response: BaseModel, traced: Trace, answers: Sequence[Any]) -> list[Influence]:
    """Compare an answer with those that lack one observation, the most influential first.

    Args:
        predictor: which gave all answers.
        response: to the whole request.
        traced: what `trace` returned.
        answers: to `traced.left_out`, in order; None where computing one failed.
    """
    if not isinstance(predictor, Traceable):
        return []
    whole = predictor.figures(response)
    found = [
        Influence(name, None if answer is None else _change(whole, predictor.figures(answer)))
        for (name, _), answer in zip(traced.left_out, answers, strict=True)
    ]
    return sorted(found, key=lambda influence: (influence.change is not None, -(influence.change or 0.0), influence.id))


def _change(whole: Sequence[float], rest: Sequence[float]) -> float | None:
    if len(whole) != len(rest) or not whole:
        return None
    return max(abs(a - b) for a, b in zip(whole, rest, strict=True))
