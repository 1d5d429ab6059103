"""Figures of an answer: one number for everything that its request and its response hold, by path.

Every figure of a subject's day is kept as a count and a sum, so that days, versions and parts of a log can be added up.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Figures = dict[str, list[float]]
"""Name → [count, sum]."""

MOST_ITEMS = 64  # of a list; a longer one is read at equal distances
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d")


def request_figures(request: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a request, as JSON values: numbers, lengths of texts and lists, and what is missing.

    A number inside a list gives its mean and, as `.sd`, its spread. Times and the subject's id are no figures.
    """
    found: dict[str, float] = {}
    for name, value in request.items():
        if name != "subject_id":
            found[f"request.{name}.missing"] = float(value is None)
            found |= _numbers(f"request.{name}", value, lengths=True)
    return found


def response_figures(response: Mapping[str, Any], labels: Sequence[str]) -> dict[str, float]:
    """Return the figures of a response, as JSON values: its numbers, and for every label whether it was given.

    Args:
        response: of any task.
        labels: of a classification; empty for other tasks.
    """
    found: dict[str, float] = {}
    for name, value in response.items():
        if isinstance(value, str):  # of a text, only a label is a figure
            if value in labels:
                found |= {f"response.{name}={label}": float(label == value) for label in labels}
        elif value is not None:
            found |= _numbers(f"response.{name}", value, lengths=False)
    return found


def add(figures: Figures, values: Mapping[str, float]) -> None:
    """Add one value of each name."""
    for name, value in values.items():
        pair = figures.setdefault(name, [0, 0.0])
        pair[0] += 1
        pair[1] += value


def merge(figures: Figures, others: Mapping[str, Sequence[float]]) -> None:
    """Add counts and sums."""
    for name, (count, total) in others.items():
        pair = figures.setdefault(name, [0, 0.0])
        pair[0] += count
        pair[1] += total


def mean_over_subjects(of_subjects: Iterable[Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """Return the mean over subjects of their means, by name; a subject without a value counts for nothing."""
    means: Figures = {}
    for figures in of_subjects:
        add(means, {name: total / count for name, (count, total) in figures.items() if count})
    return {name: total / count for name, (count, total) in means.items()}


def _numbers(path: str, value: Any, lengths: bool) -> dict[str, float]:
    """Walk through JSON values, without recursion into more than `MOST_ITEMS` items of a list."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {f"{path}.length": float(len(value))} if lengths and not _TIME.match(value) else {}
    if not isinstance(value, (dict, list)):
        return {path: float(value)} if math.isfinite(value) else {}
    sums: dict[str, list[float]] = {}
    counts: dict[str, float] = {}
    waiting: list[tuple[str, Any]] = [(path, value)]
    while waiting:
        name, item = waiting.pop()
        if isinstance(item, dict):
            waiting += [(f"{name}.{key}", part) for key, part in item.items()]
        elif isinstance(item, list):
            counts[f"{name}.count"] = float(len(item))
            waiting += [(name, part) for part in item[:: -(-len(item) // MOST_ITEMS) or 1]]
        elif isinstance(item, str):
            if lengths and not _TIME.match(item):
                _note(sums, f"{name}.length", float(len(item)))
        elif item is not None and math.isfinite(item):
            _note(sums, name, float(item))
    for name, (count, total, squares) in sums.items():
        counts[name] = total / count
        if count > 1:
            counts[f"{name}.sd"] = math.sqrt(max(0.0, squares / count - (total / count) ** 2))
    return counts


def _note(sums: dict[str, list[float]], name: str, value: float) -> None:
    kept = sums.setdefault(name, [0, 0.0, 0.0])
    kept[0] += 1
    kept[1] += value
    kept[2] += value * value
