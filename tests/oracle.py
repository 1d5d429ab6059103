"""python tests/oracle.py < cases.json: which files of ours, and whose distributions, are loaded by importing modules.

Independent of hallmark/prove/code.py: it imports and executes, reads `sys.modules`, and finds imports inside functions
in byte code. Cases are `name: [module, …]`; prints one line `[name, [file, …], [top-level module of others, …]]` each.
"""

import dis
import importlib
import json
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

OURS = ("hallmark", "steps", "pipelines", "bentos")
LARGE = ("torch", "transformers", "peft", "sklearn.linear_model", "evidently", "zenml.client", "bentoml")
"""Loaded once for all cases: each is a fork in which nothing of ours has been imported."""


def imported(code: types.CodeType) -> Iterator[str]:
    """Yield every dotted name that byte code imports, in functions too."""
    steps = list(dis.get_instructions(code))
    for i, step in enumerate(steps):
        if step.opname != "IMPORT_NAME":
            continue
        yield step.argval
        for later in steps[i + 1 :]:
            if later.opname == "IMPORT_FROM":
                yield f"{step.argval}.{later.argval}"
            elif later.opname == "IMPORT_NAME":
                break
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from imported(constant)


def load(name: str) -> None:
    """Import a module, or the nearest one above a name that is none."""
    attributes: list[str] = []
    while name:
        try:
            found: Any = importlib.import_module(name)
            break
        except ModuleNotFoundError:
            name, _, last = name.rpartition(".")
            attributes.insert(0, last)
    for attribute in attributes if name else ():
        found = getattr(found, attribute, None)  # libraries may load a module when its attribute is first asked for


def is_ours(name: str) -> bool:
    """Tell whether a module lies in this repository."""
    return name.partition(".")[0] in OURS


def look(modules: list[str], others_too: bool) -> tuple[list[str], list[str]]:
    """Import modules and whatever their functions import, until nothing is new."""
    for name in modules:
        load(name)
    seen: set[str] = set()
    while True:
        ours: dict[str, Any] = {
            n: m for n, m in list(sys.modules.items()) if is_ours(n) and getattr(m, "__file__", None)
        }
        if set(ours) == seen:
            break
        for name in set(ours) - seen:
            with open(ours[name].__file__) as file:
                for wanted in imported(compile(file.read(), name, "exec")):
                    if is_ours(wanted) or (others_too and name.startswith("hallmark")):
                        load(wanted)
        seen = set(ours)
    files = sorted(os.path.relpath(module.__file__) for module in ours.values())
    return files, sorted({name.partition(".")[0] for name in sys.modules if not is_ours(name)})


if __name__ == "__main__":
    cases: dict[str, list[str]] = json.load(sys.stdin)
    sys.path.insert(0, os.getcwd())
    with_others = "--others" in sys.argv  # in processes of their own, for what is loaded must be theirs
    for large in () if with_others else LARGE:
        load(large)
    for case, wanted in cases.items():
        if not os.fork():
            print(json.dumps([case, *look(wanted, with_others)]), flush=True)
            os._exit(0)
        os.wait()
