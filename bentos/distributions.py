"""Copies of the distributions installed here, for images: what runs and nothing else, with their bytecode.

A distribution is compiled once and its bytecode kept in .work/bytecode, so that the next image is staged sooner.
"""

import hashlib
import importlib.metadata
import py_compile
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatch
from importlib.metadata import Distribution
from importlib.util import cache_from_source
from pathlib import Path

from bentos.build import ROOT
from hallmark.errors import ConfigError
from hallmark.files import replacing

BYTECODE = ROOT / ".work" / "bytecode"
BUILD_TOOLS = {"setuptools", "pip", "wheel", "ninja", "cmake"}


def required(names: Sequence[str]) -> Iterator[Distribution]:
    """Yield distributions and all that they require, as they are installed here, but those that only build others.

    Raises:
        ConfigError: one is not installed.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    waiting = [(needed.name, tuple(sorted(needed.extras))) for needed in map(Requirement, names)]
    seen, found = set[tuple[str, tuple[str, ...]]](), set[str]()
    while waiting:
        name, extras = waiting.pop()
        if (canonicalize_name(name), extras) in seen:
            continue
        seen.add((canonicalize_name(name), extras))
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            raise ConfigError(
                f"{name} is not installed: run `make setup`, or install the extra of pyproject.toml that has it"
            ) from None
        if canonicalize_name(name) not in found | BUILD_TOOLS:
            found.add(canonicalize_name(name))
            yield distribution
        for text in distribution.requires or ():
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
                waiting.append((needed.name, tuple(sorted(needed.extras))))


def copy_distributions(distributions: Iterable[Distribution], out: Path, unused: Sequence[str]) -> None:
    """Copy distributions and the bytecode of their modules, without the files that match a pattern of `unused`."""
    found = list(distributions)
    with ProcessPoolExecutor() as pool:
        compiled = pool.map(bytecode_of, [distribution.name for distribution in found])
        for distribution, bytecode in zip(found, compiled, strict=True):
            for file in distribution.files or ():
                name, source = file.as_posix(), Path(str(distribution.locate_file(file)))
                if any(fnmatch(name, pattern) for pattern in unused) or not source.is_file():
                    continue
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, out / name)
                if name.endswith(".py") and (kept := bytecode / cache_from_source(name)).is_file():
                    target = out / cache_from_source(name)
                    target.parent.mkdir(exist_ok=True)
                    shutil.copyfile(kept, target)


def bytecode_of(name: str) -> Path:
    """Return the directory with the bytecode of a distribution, which is compiled unless it was before.

    It is never compared with its source, and names no path of this machine. Files that are no Python of this version
    have none.
    """
    distribution = importlib.metadata.distribution(name)
    listed = hashlib.sha256((distribution.read_text("RECORD") or "").encode()).hexdigest()
    kept = BYTECODE / f"{distribution.name}-{distribution.version}-{sys.implementation.cache_tag}-{listed[:12]}"
    if kept.is_dir():
        return kept
    with replacing(kept) as fresh:
        for file in distribution.files or ():
            source = Path(str(distribution.locate_file(file)))
            if file.suffix == ".py" and ".." not in file.parts and source.is_file():
                target = fresh / cache_from_source(file.as_posix())
                target.parent.mkdir(parents=True, exist_ok=True)
                mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
                py_compile.compile(str(source), str(target), file.as_posix(), quiet=2, invalidation_mode=mode)
    return kept
