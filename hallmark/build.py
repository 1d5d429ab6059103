"""Build objects from configuration: the YAML is the constructor call.

A node with `_target_` becomes a call of that class with the node's other keys. Keys are checked
against the constructor before anything runs, so that a misspelt one is an error, never a default.
"""

import difflib
import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hallmark.errors import ConfigError

TARGET = "_target_"


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
    try:
        return target(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key or 'configuration'}: {error}") from error


def read_params(path: Path = Path("params.yaml")) -> dict[str, Any]:
    """Read the resolved composition that every stage runs from.

    Raises:
        ConfigError: no such file, or not a mapping.
    """
    import yaml

    if not path.is_file():
        raise ConfigError(f"{path} is missing: run `make params` to compose it from conf/")
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
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
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}.{TARGET}={dotted} cannot be found: {error}") from error


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
