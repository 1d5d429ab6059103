"""Build objects from YAML `_target_` nodes, with keys, types and bounds checked; `dump` is the inverse.

A node with `_target_` becomes a call of that class with the node's other keys. The class is decorated with
`configuration`: a frozen pydantic dataclass whose annotations declare the types and bounds of its fields.
"""

import dataclasses
import difflib
import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from hallmark.errors import ConfigError

TARGET = "_target_"
SECTIONS = ("task", "learner", "data", "model", "train", "personalise", "calibrate", "evaluate", "package", "tune")
"""Sections of a composition, which is the resolved configuration in params.yaml."""

K = TypeVar("K")
T = TypeVar("T")

Tuple = Annotated[tuple[T, ...], Field(strict=False)]
"""A tuple that may be written as a YAML list."""
Count = Annotated[int, Field(ge=1)]
"""An integer of at least 1."""
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
"""A share from 0 to 1, both included."""
InnerShare = Annotated[float, Field(gt=0, lt=1)]
"""A share between 0 and 1, both excluded."""


@dataclass_transform(frozen_default=True, field_specifiers=(Field, dataclasses.field))
def configuration(kind: type[K]) -> type[K]:
    """Make a class a frozen pydantic dataclass that `build` can build.

    Types are strict: `"3"` is not a number, but an integer is accepted as a float. NaN and infinity are refused. Bounds
    are declared in the annotations; `__post_init__` checks only conditions on several fields, and raises ValueError.
    """
    config = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)
    made: type[K] = pydantic_dataclass(kind, frozen=True, config=config)  # type: ignore[assignment]  # it is `kind`
    return made


def build(node: Any, key: str = "") -> Any:
    """Build a configuration node and everything in it.

    Args:
        node: plain values; a mapping with `_target_` becomes an object of that class.
        key: dotted position of the node in params.yaml, for error messages.

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
    try:
        return target(**values)
    except ValidationError as error:
        raise ConfigError(_first_error(error, key)) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key or 'configuration'}: {error}") from error


def dump(value: Any) -> Any:
    """Convert an object to the configuration node that builds it; the inverse of `build`.

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
    """Build the whole composition and check that its sections belong together, before any stage runs.

    Returns:
        Section → what was built from it.

    Raises:
        ConfigError: as in `build`, or two sections do not belong together.
    """
    from hallmark.abilities import ChecksTask  # it imports pandas, which reading parameters does not need

    check_sections(params)
    built: dict[str, Any] = build(params)
    task, learner, evaluator = built["task"], built["learner"], built["evaluate"]["evaluator"]
    _check_types(built)
    try:
        if isinstance(learner, ChecksTask):
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
    """Check that a composition has every section.

    Raises:
        ConfigError: a section is missing; names the most similar key.
    """
    for section in SECTIONS:
        if section not in params:
            near = difflib.get_close_matches(section, params, 1)
            hint = f"it has {near[0]!r}" if near else "run `make params` to compose it from conf/"
            raise ConfigError(f"params.yaml has no section {section!r}: {hint}")


def _check_types(built: Mapping[str, Any]) -> None:
    """Check the type of every section against those that the learner and the evaluator accept."""
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
    for key, value, accepted, owner in table:
        kinds = tuple(kind for kind in accepted if kind is not None)
        if isinstance(value, kinds) or (value is None and None in accepted):
            continue
        names = " or ".join([kind.__name__ for kind in kinds] or ["null"])
        actual = "null" if value is None else type(value).__name__
        raise ConfigError(
            f"{key}: {actual} does not belong to {type(owner).__name__}, which takes {names}: "
            "choose sections that belong together with one preset (conf/experiment)"
        )


def _candidates(built: Mapping[str, Any]) -> list[Any]:
    candidates = built["model"].get("candidates") if isinstance(built["model"], Mapping) else None
    if not isinstance(candidates, list) or not candidates:
        raise ConfigError("model.candidates is empty: choose a model (conf/model), or list at least one candidate")
    return candidates


def read_params(path: Path = Path("params.yaml")) -> dict[str, Any]:
    """Read the resolved composition that every stage runs from.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds no mapping.
    """
    import yaml

    if not path.is_file():
        raise ConfigError(f"{path} is missing: run `make params` to compose it from conf/")
    try:
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = f"line {position.line + 1}" if (position := getattr(error, "problem_mark", None)) else "the file"
        why = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{path} is no YAML ({where}: {why}): correct it, or run `make params`") from error
    if not isinstance(params, dict):
        raise ConfigError(f"{path} holds no mapping: run `make params` to compose it from conf/")
    return params


def targets(node: Any) -> set[str]:
    """Collect every `_target_` of a node and of the nodes inside it."""
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
        resolved = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}.{TARGET}={dotted} cannot be found: {error}") from error
    # The spec of a bundle is built too: a bundle of unknown origin must not be able to call a function.
    if not (inspect.isclass(resolved) and dataclasses.is_dataclass(resolved)):
        raise ConfigError(f"{key}.{TARGET}={dotted} is no configuration class: only dataclasses may be built")
    return resolved


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


def _first_error(error: ValidationError, key: str) -> str:
    """Describe the first field that pydantic refuses: its key, its value and what it must be."""
    first = error.errors(include_url=False)[0]
    where = "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in first["loc"])
    if first["type"] == "value_error":  # raised by __post_init__, with its own message
        return f"{key or 'configuration'}{where}: {first['ctx']['error']}"
    wanted = first["msg"].partition(" should ")[2] or first["msg"]  # "Input should be …", "List should have …"
    wanted = wanted.replace("a valid tuple", "a list, such as [1, 2]")
    return f"{f'{key}{where}'.lstrip('.')}={first['input']!r}: must {wanted}"
