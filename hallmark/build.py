"""Build objects from configuration: the YAML is the constructor call.

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

import typing_extensions

from hallmark.errors import ConfigError

TARGET = "_target_"
SECTIONS = ("task", "data", "model", "train", "personalise", "calibrate", "evaluate", "package", "tune")
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


def build_experiment(params: Mapping[str, Any]) -> dict[str, Any]:
    """Build the whole composition and hold its parts against each other, before anything runs.

    Raises:
        ConfigError: as in `build`, or evaluation asks for what the task does not give.
    """
    check_sections(params)
    built: dict[str, Any] = build(params)
    evaluator = built["evaluate"]["evaluator"]
    try:
        metrics = evaluator.metrics(built["task"])
    except ValueError as error:
        raise ConfigError(f"evaluate.evaluator: {error}") from error
    except AttributeError as error:  # it asked the task for what only another has
        pair = f"{type(evaluator).__name__} does not belong to {type(built['task']).__name__}"
        raise ConfigError(f"evaluate.evaluator: {pair}: choose both by one preset (conf/experiment)") from error
    _check_parts(built)
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
    """Hold candidates, training, personalisation and calibration against the types that the task's methods take."""
    task = built["task"]
    fit = getattr(task, "fit_one", task.fit)
    for key, method, parameter in (
        ("train", fit, "train"),
        ("personalise", task.personalise, "config"),
        ("calibrate", task.calibrate, "config"),
    ):
        _check_part(key, built[key], typing.get_type_hints(method).get(parameter), task)
    hints = typing.get_type_hints(fit)
    wanted = hints.get("config") or next(iter(typing.get_args(hints.get("candidates"))), None)
    for i, candidate in enumerate(built["model"]["candidates"]):
        _check_part(f"model.candidates[{i}]", candidate, wanted, task)


def _check_part(key: str, part: Any, wanted: Any, task: Any) -> None:
    if not isinstance(wanted, type):
        return
    if getattr(wanted, "_is_protocol", False):
        fits = all(hasattr(part, name) for name in typing_extensions.get_protocol_members(wanted))
    else:
        fits = isinstance(part, wanted)
    if not fits:
        raise ConfigError(
            f"{key}: {type(part).__name__} is not what {type(task).__name__} takes ({wanted.__name__}): "
            "choose task and parts by one preset (conf/experiment)"
        )


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
