"""python -m runtime.stack check|register NAME: stacks of conf/stack, and the settings that they give pipelines."""

import difflib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hallmark.errors import ConfigError, HallmarkError

ROOT = Path(__file__).resolve().parent.parent
STACKS = ROOT / "conf" / "stack"
KEYS = ("components", "lock", "image", "secrets", "pipelines")


def names() -> list[str]:
    """List the stacks."""
    return sorted(path.stem for path in STACKS.glob("*.yaml"))


def read(name: str) -> dict[str, Any]:
    """Read a stack.

    Raises:
        ConfigError: there is no such stack, or its file is no mapping with the keys of one.
    """
    import yaml

    file = STACKS / f"{name}.yaml"
    if not file.is_file():
        near = difflib.get_close_matches(name, names(), 1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names())}"
        raise ConfigError(f"{name} is no stack of conf/stack: {hint}")
    where = f"conf/stack/{name}.yaml"
    try:
        stack = as_mapping(yaml.safe_load(file.read_text(encoding="utf-8")), where)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} is no YAML: {' '.join(str(error).split())[:200]}") from error
    refuse_unknown(stack, KEYS, where)
    if missing := [key for key in KEYS if key not in stack]:
        raise ConfigError(f"{where} has no {missing[0]}: it needs {', '.join(KEYS)}")
    for key in ("components", "pipelines"):
        for inner, value in as_mapping(stack[key], f"{where}: {key}").items():
            for last, entry in as_mapping(value, f"{where}: {key}.{inner}").items():
                if key == "pipelines":
                    as_mapping(entry, f"{where}: {key}.{inner}.{last}")
    if not isinstance(stack["secrets"], list) or not all(isinstance(secret, str) for secret in stack["secrets"]):
        raise ConfigError(f"{where}: secrets must be a list of names, empty if there are none")
    return stack


def refuse_unknown(values: Mapping[str, Any], allowed: Any, where: str) -> None:
    """Refuse a key that is not allowed, with the one that may be meant."""
    for key in values:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), list(allowed), 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(allowed))}"
            raise ConfigError(f"{where}: {key} is not known: {hint}")


def as_mapping(value: Any, where: str) -> dict[str, Any]:
    """Return a value that must be a mapping."""
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is {value!r}: it must hold keys and values")
    return value


def settings_of(name: str, pipeline: str) -> dict[str, Any]:
    """Return the options of a pipeline on a stack, as ZenML's `with_options` takes them."""
    if name not in names():
        return {}
    stack = read(name)
    options: dict[str, Any] = {}
    if stack["image"]:
        docker = {"parent_image": stack["image"], "skip_build": True}
        options["settings"] = {"docker": docker}
    steps = {}
    for step, entry in stack["pipelines"].get(pipeline, {}).items():
        settings = {key: entry[key] for key in ("orchestrator", "step_operator", "resources") if entry.get(key)}
        steps[step] = {"settings": settings} | ({"retry": entry["retry"]} if "retry" in entry else {})
    return options | ({"steps": steps} if steps else {})


def check_server(version: str) -> None:
    """Check that the ZenML server with which stacks are registered is as new as the client here.

    Raises:
        ConfigError: it is older or newer by more than a patch, so that it may drop what this client sends.
    """
    import zenml

    if version.split(".")[:2] != zenml.__version__.split(".")[:2]:
        raise ConfigError(
            f"the ZenML server has version {version}, the client here {zenml.__version__}: upgrade the server to "
            f"{zenml.__version__}, or connect to another one by `zenml login`"
        )


def register(name: str) -> None:
    """Register a stack in ZenML, or bring it up to date, and make it the active one.

    Raises:
        ConfigError: see `check` and `check_server`.
    """
    from zenml.client import Client
    from zenml.enums import StackComponentType

    from runtime.stack_check import check

    check(name)
    client, components = Client(), read(name)["components"]
    check_server(client.zen_store.get_store_info().version)
    if not components:
        client.activate_stack("default")
        return
    chosen = {}
    for kind, entry in components.items():
        chosen[StackComponentType(kind)] = component = f"hallmark_{name}"
        known = {c.name for c in client.list_stack_components(StackComponentType(kind), size=1000)}
        configuration = entry.get("configuration") or {}
        if component in known:
            client.update_stack_component(component, StackComponentType(kind), configuration=configuration)
        else:
            client.create_stack_component(component, entry["flavor"], StackComponentType(kind), configuration)
    if name in {stack.name for stack in client.list_stacks(size=1000)}:
        client.update_stack(name, component_updates={kind: [component] for kind, component in chosen.items()})
    else:
        client.create_stack(name, chosen)
    client.activate_stack(name)


def main(arguments: list[str]) -> int:
    """Check or register a stack; an error is one line."""
    if len(arguments) != 2 or arguments[0] not in ("check", "register"):
        print(f"usage: python -m runtime.stack {{check,register}} {{{','.join(names())}}}", file=sys.stderr)
        return 2
    command, name = arguments
    try:
        read(name)
        from runtime import store
        from runtime.stack_check import check

        store.start()
        for line in check(name):
            print(f"ok      {line}")
        if command == "register":
            register(name)
            print(f"active  {name}: `make repro` runs there; `make stack STACK=local` comes back")
    except HallmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
