"""List the installed version of every distribution that is loaded when some modules are imported.

What a library loads is known by importing it, in a process of its own, and reading `sys.modules`: its metadata name
what it may need, not what it uses (pandas reads Parquet with pyarrow, which it does not require). That takes seconds,
so the result is kept until the imports or the installed distributions change.
"""

import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from hallmark.errors import HallmarkError
from hallmark.files import write_text

CACHE = "HALLMARK_CACHE"
"""Environment variable: a directory that several clones share for what takes long; `.work` of each by default."""
MOST_KEPT = 100  # groups: five compositions under five sets of distributions
_LOAD = """
import importlib, json, os, sys

def load(names):
    for name in sorted(names):
        module, missing = name, []
        while module:
            try:
                found = importlib.import_module(module)
                break
            except ImportError:
                module, _, last = module.rpartition(".")
                missing.insert(0, last)
        for last in missing if module else ():
            found = getattr(found, last, None)  # libraries may load a module when its attribute is first asked for

def report(groups, loaded):
    # What all have in common is imported once, then the smallest group goes on in a fork.
    common = set.intersection(*groups.values()) - loaded
    load(common)
    loaded = loaded | common
    smallest = min(groups, key=lambda key: len(groups[key]))
    if not os.fork():
        load(groups[smallest] - loaded)
        print(json.dumps([smallest, sorted({name.partition(".")[0] for name in sys.modules})]), flush=True)
        os._exit(0)
    if os.wait()[1]:
        sys.exit(1)
    if rest := {key: names for key, names in groups.items() if key != smallest}:
        report(rest, loaded)

report({key: set(names) for key, names in json.load(sys.stdin).items()}, set())
"""


def versions_of(
    imports: Mapping[str, Collection[str]], pinned: Collection[str], cache: Path
) -> dict[str, dict[str, str]]:
    """Give versions without local suffixes, which name a build: `2.13.0+cpu` and `2.13.0` are one version.

    Args:
        imports: name of a group → the modules that it imports, dotted.
        pinned: distributions that count. Others, such as what a build of torch brings for its accelerator, depend on
            the machine.
        cache: where results are kept.

    Returns:
        Name of a group → distribution → version, sorted.

    Raises:
        HallmarkError: a library cannot be imported; names the last line of its error.
    """
    kept: dict[str, list[str]] = {}
    with suppress(OSError, ValueError):
        kept = json.loads(cache.read_text(encoding="utf-8"))
    installed = _installed()
    keys = {group: _key(names, installed) for group, names in imports.items()}
    if missing := {key: imports[group] for group, key in keys.items() if key not in kept}:
        kept = dict(list(kept.items())[-MOST_KEPT:]) | _loaded(missing)
        write_text(cache, json.dumps(kept))
    return {
        group: {name: installed[name].partition("+")[0] for name in kept[key] if name in pinned}
        for group, key in keys.items()
    }


def cache_of(root: Path) -> Path:
    """Return the file in which results are kept; they are named after all that they depend on."""
    return Path(os.environ.get(CACHE, str(root / ".work"))) / "versions.json"


def pinned_by(lock: Path) -> frozenset[str]:
    """List the distributions that a lock file names, and torch, which is installed apart."""
    return frozenset(re.findall(r"(?m)^([a-z0-9-]+)==", lock.read_text(encoding="utf-8"))) | {"torch"}


def _installed() -> dict[str, str]:
    """Name what is installed, as the directories of metadata do: distribution → version."""
    found: dict[str, str] = {}
    for directory in sys.path:
        for place in sorted(Path(directory).glob("*.dist-info")):
            name, _, version = place.name.removesuffix(".dist-info").partition("-")
            found.setdefault(normal(name), version)  # the first one on the path is the one that is imported
    return found


def _key(names: Collection[str], installed: Mapping[str, str]) -> str:
    text = json.dumps([sorted(names), _LOAD, sys.version, installed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _loaded(missing: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """Import every group in a process of its own; returns the distributions that were loaded."""
    done = subprocess.run(
        [sys.executable, "-c", _LOAD],
        input=json.dumps({key: sorted(names) for key, names in missing.items()}),
        env={**os.environ, "DO_NOT_TRACK": "1", "TRANSFORMERS_VERBOSITY": "error"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise HallmarkError(f"a library cannot be imported: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    owners = importlib.metadata.packages_distributions()
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["')]
    return {key: sorted({normal(name) for m in modules for name in owners.get(m, [])}) for key, modules in lines}


def normal(name: str) -> str:
    """Write a distribution's name as package indexes do: `Foo.Bar_baz` → `foo-bar-baz`."""
    return re.sub(r"[-_.]+", "-", name).lower()
