"""List the source files and installed distributions that some modules import, with digests and versions.

The digest of a file is that of its syntax tree: comments and formatting do not count, docstrings do (they become
descriptions in schemas). Files are parsed, not imported, so that listing takes a tenth of a second.
"""

import ast
import functools
import hashlib
import importlib.metadata
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hallmark.files import write_text

ROOT = Path(__file__).resolve().parents[2]
ABSENT = "not installed"
CACHE = Path(".work/code.json")
NOT_FOLLOWED = ("torch",)
"""Distributions whose own requirements depend on the accelerator that they were built for."""


@dataclass(frozen=True)
class CodeList:
    """What some modules compute with.

    Attributes:
        files: path relative to the repository → sha256 of its syntax tree.
        versions: distribution → installed version, `not installed` for an optional one.
    """

    files: Mapping[str, str]
    versions: Mapping[str, str]

    def __str__(self) -> str:
        """Return one line a distribution and one a file, sorted."""
        python = f"python {sys.version_info.major}.{sys.version_info.minor}"
        return "\n".join(
            [python, *(f"{n} {v}" for n, v in self.versions.items()), *(f"{p} {d}" for p, d in self.files.items()), ""]
        )


@dataclass(frozen=True)
class _Parsed:
    """What is kept of one file: the digest of its syntax tree, and every name that it imports."""

    digest: str
    imports: tuple[str, ...]


class SourceTree:
    """The packages of a repository, read once; a file that changes later is seen by a new `SourceTree`.

    Args:
        root: the repository.
        packages: names of its top-level packages whose files count.
        cache: a file in which parsed results are kept by the sha256 of the source; None to parse everything.
        versions_from: packages whose imports of other distributions count; all of `packages` by default.
    """

    def __init__(
        self,
        root: Path = ROOT,
        packages: Sequence[str] = ("hallmark",),
        cache: Path | None = CACHE,
        versions_from: Sequence[str] | None = None,
    ) -> None:
        self.root, self.packages = root, tuple(packages)
        self._versions_from = self.packages if versions_from is None else tuple(versions_from)
        self._cache = _Cache(cache)
        self._parsed: dict[str, _Parsed] = {}

    def imported_by(self, modules: Iterable[str]) -> CodeList:
        """List what modules import, directly or not, also inside functions, but not for type checking alone.

        Args:
            modules: dotted names of modules, or of classes in them such as a `_target_`.

        Raises:
            SyntaxError: a file is no Python.
        """
        waiting = [module for name in modules if (module := self._module(name))]
        files: dict[str, str] = {}
        foreign: set[str] = set()
        while waiting:
            module = waiting.pop()
            path = self._files[module]
            if path in files:
                continue
            parsed = self._parse(path)
            files[path] = parsed.digest
            for name in parsed.imports:
                if own := self._module(name):
                    waiting.append(own)
                elif module.partition(".")[0] in self._versions_from:
                    foreign.add(name.partition(".")[0])
            if "." in module:
                waiting.append(module.rpartition(".")[0])  # Python imports the packages above a module first
        self._cache.save()
        return CodeList(dict(sorted(files.items())), self._versions(foreign))

    @functools.cached_property
    def _files(self) -> dict[str, str]:
        """Path of every module."""
        found = {}
        for package in self.packages:
            for file in (self.root / package).rglob("*.py"):
                parts = file.relative_to(self.root).with_suffix("").parts
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file.relative_to(
                    self.root
                ).as_posix()
        return found

    def _module(self, name: str) -> str:
        """Return the module of ours that a dotted name lies in; empty where it lies elsewhere."""
        if name.partition(".")[0] not in self.packages:
            return ""
        while name and name not in self._files:
            name = name.rpartition(".")[0]
        return name

    def _parse(self, path: str) -> _Parsed:
        if path not in self._parsed:
            source = (self.root / path).read_bytes()
            key = hashlib.sha256(f"{path}\n".encode() + source).hexdigest()
            kept = self._cache.get("files", key)
            if kept is None:
                tree = ast.parse(source, path)
                digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
                kept = [digest, sorted(set(_imports(tree, path)))]
                self._cache.put("files", key, kept)
            self._parsed[path] = _Parsed(kept[0], tuple(kept[1]))
        return self._parsed[path]

    def _versions(self, modules: set[str]) -> dict[str, str]:
        """Give the version of every distribution that modules belong to, and of those that these require."""
        installed = _Installed.read(self._cache)
        found: dict[str, str] = {}
        waiting = [
            name for module in modules - sys.stdlib_module_names for name in installed.owners.get(module, [module])
        ]
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            found[name] = installed.versions.get(name, ABSENT)
            if name not in NOT_FOLLOWED:
                waiting += [other for other in installed.requires.get(name, []) if other in installed.versions]
        return dict(sorted(found.items()))


def _imports(tree: ast.Module, path: str) -> Iterator[str]:
    """Yield every dotted name that a module imports; `from a import b` may mean a module, so it yields both."""
    for node in _walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = Path(path).parts[: -node.level] if node.level else ()
            start = ".".join([*above, *([node.module] if node.module else [])])
            yield start
            yield from (f"{start}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and _name(node.func) in ("import_module", "__import__"):
            named = node.args[0]
            if isinstance(named, ast.Constant) and isinstance(named.value, str):
                yield named.value


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree without what is read by type checkers alone."""
    yield node
    checked = isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING"
    for child in node.orelse if checked and isinstance(node, ast.If) else ast.iter_child_nodes(node):
        yield from _walk(child)


def _name(node: ast.expr) -> str:
    """Return the last part of a dotted name; empty for any other expression."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


@dataclass(frozen=True)
class _Installed:
    """What is installed: who owns a top-level module, versions without local suffix, and what requires what."""

    owners: Mapping[str, Sequence[str]]
    versions: Mapping[str, str]
    requires: Mapping[str, Sequence[str]]

    @classmethod
    def read(cls, cache: "_Cache") -> "_Installed":
        """Read the metadata of all distributions, or what was kept of the same ones."""
        places = tuple(str(entry) for directory in sys.path for entry in sorted(Path(directory).glob("*.dist-info")))
        key = hashlib.sha256("\n".join(places).encode()).hexdigest()
        kept = cache.get("installed", key)
        if kept is None:
            kept = cls._read_metadata(places)
            cache.put("installed", key, kept)
        return cls(*kept)

    @staticmethod
    @functools.cache
    def _read_metadata(places: tuple[str, ...]) -> list[dict[str, Any]]:
        """Read what takes a second: once for the distributions of these places."""
        owners = {
            module: sorted({_normal(name) for name in names})
            for module, names in importlib.metadata.packages_distributions().items()
        }
        versions: dict[str, str] = {}
        requires: dict[str, list[str]] = {}
        for distribution in importlib.metadata.distributions():
            name = _normal(distribution.metadata["Name"])
            if name not in versions:  # the first one on the path is the one that is imported
                versions[name] = distribution.version.partition("+")[0]
                requires[name] = sorted(set(_required(distribution.requires or [])))
        return [owners, versions, requires]


def _required(lines: Iterable[str]) -> Iterator[str]:
    """Yield the names that requirements without extras ask for on this machine."""
    from packaging.requirements import Requirement

    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _normal(requirement.name)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


class _Cache:
    """Results by the sha256 of what they were made from, and by this file's own: a new parser finds none."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._new = path, False
        self._maker = hashlib.sha256(Path(__file__).read_bytes() + sys.version.encode()).hexdigest()
        self._kept: dict[str, dict[str, Any]] = {}
        self._used: dict[str, dict[str, Any]] = {}
        if path is not None:
            with suppress(OSError, ValueError):
                read = json.loads(path.read_text(encoding="utf-8"))
                if read["maker"] == self._maker:
                    self._kept = read["kept"]

    def get(self, kind: str, key: str) -> Any:
        """Return what was kept, or None."""
        found = self._kept.get(kind, {}).get(key)
        if found is not None:
            self._used.setdefault(kind, {})[key] = found
        return found

    def put(self, kind: str, key: str, value: Any) -> None:
        """Keep a new result."""
        self._kept.setdefault(kind, {})[key] = self._used.setdefault(kind, {})[key] = value
        self._new = True

    def save(self) -> None:
        """Write the file where something is new; what no file has any more is forgotten."""
        if self._path is not None and self._new:
            write_text(self._path, json.dumps({"maker": self._maker, "kept": self._used}, sort_keys=True))
            self._new = False
