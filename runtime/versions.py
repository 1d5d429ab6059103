"""List the installed version of every distribution that is loaded when some modules are imported.

What a library loads is measured by importing it in a separate process and reading `sys.modules`: its metadata names
what it may need, not what it uses (pandas reads Parquet with pyarrow, which it does not require). That takes seconds,
so the result is cached until the imports or the installed distributions change.
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
"""Environment variable: a cache directory that several clones can share; by default `.work` of each clone."""
MOST_KEPT = 100  # groups in the cache: five compositions with five sets of distributions
_LOAD = """
import importlib, json, os, sys

def load(names):
    for name in sorted(names):
        module, missing = name, []
        while module:
            try:
                imported = importlib.import_module(module)
                break
            except ImportError:
                module, _, last = module.rpartition(".")
                missing.insert(0, last)
        for last in missing if module else ():
            imported = getattr(imported, last, None)  # libraries may load a module at its first use

def report(groups, loaded):
    # What all groups import is imported once, then a fork imports the rest of the smallest group.
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
    """List the distributions that groups of imports load, with their versions.

    Versions have no local suffix, which names a build: `2.13.0+cpu` and `2.13.0` are the same version.

    Args:
        imports: name of a group → dotted names of the modules that it imports.
        pinned: distributions to list. Others, such as those that a build of torch needs for its accelerator, depend on
            the machine.
        cache: file of cached results.

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
    """Return the file of cached results; their keys are digests of all that they depend on."""
    return Path(os.environ.get(CACHE, str(root / ".work"))) / "versions.json"


def pinned_by(lock: Path) -> frozenset[str]:
    """List the distributions that a lock file names, and torch, which is installed separately."""
    return frozenset(re.findall(r"(?m)^([a-z0-9-]+)==", lock.read_text(encoding="utf-8"))) | {"torch"}


def _installed() -> dict[str, str]:
    """Return the version of every installed distribution, from the names of the metadata directories."""
    versions: dict[str, str] = {}
    for directory in sys.path:
        for metadata in sorted(Path(directory).glob("*.dist-info")):
            name, _, version = metadata.name.removesuffix(".dist-info").partition("-")
            versions.setdefault(normal(name), version)  # Python imports the first match on the path
    return versions


def _key(names: Collection[str], installed: Mapping[str, str]) -> str:
    text = json.dumps([sorted(names), _LOAD, sys.version, installed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _loaded(missing: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """Import every group in a separate process; return the distributions that were loaded."""
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
    """Normalise a distribution's name as package indexes do: `Foo.Bar_baz` → `foo-bar-baz`."""
    return re.sub(r"[-_.]+", "-", name).lower()
