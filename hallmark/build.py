"""Build objects from YAML `_target_` nodes, with keys and types checked; `dump` is the inverse.

A node with `_target_` becomes a call of that class with the node's other keys. Keys are checked
against the constructor before anything runs, so that a misspelt one is an error, never a default.
"""

import dataclasses
import difflib
import importlib
import inspect
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hallmark.errors import ConfigError

TARGET = "_target_"
SECTIONS = ("task", "learner", "data", "model", "train", "personalise", "calibrate", "evaluate", "package", "tune")
"""What a composition consists of."""


def build(node: Any, key: str = "") -> Any:
    """Build a configuration node and everything in it.

    Args:
        node: plain values; a mapping with `_target_` becomes an object of that class.
        key: where the node stands in params.yaml, for messages.

    Raises:
        ConfigError: an unknown target or key, a missing key, or a value that the class refuses.
    """
    if isinstance(node, list):
        return [build(item, f"{key}[{i}]") for i, item in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    values = {name: build(value, f"{key}.{name}".lstrip(".")) for name, value in node.items() if name != TARGET}
    if TARGET not in node:
        return values
    target = _resolve(str(node[TARGET]), key)
    _check_keys(target, values, key)
    _check_types(target, values, key)
    try:
        return target(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key or 'configuration'}: {error}") from error


def dump(value: Any) -> Any:
    """Write an object as the configuration node that builds it: the inverse of `build`.

    Args:
        value: plain values, sequences and mappings of them, and dataclasses of `hallmark.*`.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        fields = {f.name: dump(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return {TARGET: f"{kind.__module__}.{kind.__qualname__}", **fields}
    if isinstance(value, Mapping):
        return {str(key): dump(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [dump(item) for item in value]
    return value


def build_experiment(params: Mapping[str, Any]) -> dict[str, Any]:
    """Build the whole composition and hold its parts against each other, before anything runs.

    Raises:
        ConfigError: as in `build`, or two parts do not belong together.
    """
    from hallmark.contracts import Checking  # with pandas, which reading parameters does not need

    check_sections(params)
    built: dict[str, Any] = build(params)
    task, learner, evaluator = built["task"], built["learner"], built["evaluate"]["evaluator"]
    _check_parts(built)
    try:
        if isinstance(learner, Checking):
            learner.check(task)
    except ValueError as error:
        raise ConfigError(f"learner: {error}") from error
    try:
        metrics = evaluator.metrics(task, learner)
    except ValueError as error:
        raise ConfigError(f"evaluate.evaluator: {error}") from error
    for gate in built["evaluate"]["gates"]:
        gate.check(metrics, evaluator.segmentations)
    return built


def check_sections(params: Mapping[str, Any]) -> None:
    """Check that a composition is whole.

    Raises:
        ConfigError: a section is missing; names the nearest key.
    """
    for section in SECTIONS:
        if section not in params:
            near = difflib.get_close_matches(section, params, 1)
            hint = f"it has {near[0]!r}" if near else "run `make params` to compose it from conf/"
            raise ConfigError(f"params.yaml has no section {section!r}: {hint}")


def _check_parts(built: Mapping[str, Any]) -> None:
    """Hold every section against the types that the learner and the evaluator declare."""
    learner, evaluator = built["learner"], built["evaluate"]["evaluator"]
    accepts = learner.accepts
    of_task, of_learner = evaluator.evaluates
    table: list[tuple[str, Any, tuple[type | None, ...], Any]] = [
        ("task", built["task"], (accepts.task,), learner),
        *((f"model.candidates[{i}]", c, accepts.candidates, learner) for i, c in enumerate(_candidates(built))),
        ("train", built["train"], (accepts.train,), learner),
        ("personalise", built["personalise"], (accepts.personalise, None), learner),
        ("calibrate", built["calibrate"], (accepts.calibrate, None), learner),
        ("task", built["task"], (of_task,), evaluator),
        ("learner", learner, (of_learner,), evaluator),
    ]
    for key, part, wanted, owner in table:
        kinds = tuple(kind for kind in wanted if kind is not None)
        if isinstance(part, kinds) or (part is None and None in wanted):
            continue
        names = " or ".join([kind.__name__ for kind in kinds] or ["null"])
        found = "null" if part is None else type(part).__name__
        raise ConfigError(
            f"{key}: {found} does not belong to {type(owner).__name__}, which takes {names}: "
            "choose parts that belong together by one preset (conf/experiment)"
        )


def _candidates(built: Mapping[str, Any]) -> list[Any]:
    candidates = built["model"].get("candidates") if isinstance(built["model"], Mapping) else None
    if not isinstance(candidates, list) or not candidates:
        raise ConfigError("model.candidates is empty: choose a model (conf/model), or list at least one candidate")
    return candidates


def read_params(path: Path = Path("params.yaml")) -> dict[str, Any]:
    """Read the resolved composition that every stage runs from.

    Raises:
        ConfigError: no such file, or not a mapping.
    """
    import yaml

    if not path.is_file():
        raise ConfigError(f"{path} is missing: run `make params` to compose it from conf/")
    try:
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = f"line {mark.line + 1}" if (mark := getattr(error, "problem_mark", None)) else "the file"
        why = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{path} is no YAML ({where}: {why}): mend it, or run `make params`") from error
    if not isinstance(params, dict):
        raise ConfigError(f"{path} holds no mapping: run `make params` to compose it from conf/")
    return params


def targets(node: Any) -> set[str]:
    """Collect every `_target_` below a node."""
    if isinstance(node, list):
        return set().union(*map(targets, node)) if node else set()
    if not isinstance(node, Mapping):
        return set()
    below = set().union(*map(targets, node.values())) if node else set()
    return below | ({str(node[TARGET])} if TARGET in node else set())


def _resolve(dotted: str, key: str) -> Any:
    if not dotted.startswith("hallmark."):
        raise ConfigError(f"{key}.{TARGET}={dotted}: only hallmark.* may be built from configuration")
    module, _, name = dotted.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}.{TARGET}={dotted} cannot be found: {error}") from error
    # A bundle's spec is built too: a stranger's bundle must not be able to call a function.
    if not (inspect.isclass(found) and dataclasses.is_dataclass(found)):
        raise ConfigError(f"{key}.{TARGET}={dotted} is no configuration class: only dataclasses may be built")
    return found


def _check_keys(target: Any, values: dict[str, Any], key: str) -> None:
    parameters = inspect.signature(target).parameters
    for name in values:
        if name not in parameters:
            near = difflib.get_close_matches(name, parameters, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(parameters)}"
            raise ConfigError(f"{key}.{name} is not a setting of {target.__name__}: {hint}")
    missing = [
        n for n, p in parameters.items() if p.default is p.empty and n not in values and p.kind is not p.VAR_KEYWORD
    ]
    if missing:
        raise ConfigError(f"{key}.{missing[0]} is missing: {target.__name__} needs it")


PLAIN: dict[Any, tuple[type, ...]] = {int: (int,), float: (int, float), bool: (bool,), str: (str,)}


def _check_types(target: Any, values: dict[str, Any], key: str) -> None:
    """Check plain values against their annotations: `seed: abc` must not be found out in the middle of a run."""
    hints = typing.get_type_hints(target)
    for name, value in values.items():
        wanted = hints.get(name)
        accepted = PLAIN.get(wanted)
        if accepted is None or (isinstance(value, accepted) and isinstance(value, bool) == (wanted is bool)):
            continue
        raise ConfigError(f"{key}.{name}={value!r} must be of type {getattr(wanted, '__name__', wanted)}")
