"""Transitive imports of given modules: digests of our files' syntax trees, and names of third-party modules.

The digest of a file is that of its syntax tree: comments and formatting do not count, docstrings do (they become
descriptions in schemas). Files are parsed, not imported, so that listing takes a tenth of a second.
"""

import ast
import functools
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hallmark.files import write_text

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(".work/code.json")
MOST_KEPT = 2000  # parsed files in the cache: ten versions of the repository


@dataclass(frozen=True)
class Code:
    """Transitive imports of some modules.

    Attributes:
        files: path relative to the repository → sha256 of its syntax tree.
        others: dotted names that these files import from other distributions, without the standard library.
    """

    files: Mapping[str, str]
    others: frozenset[str]


@dataclass(frozen=True)
class _Parsed:
    """What the cache holds of one file: the digest of its syntax tree, and every name that it imports."""

    digest: str
    imports: tuple[str, ...]


class SourceTree:
    """Packages of a repository. Every file is read once: make a new `SourceTree` after a change.

    Args:
        root: directory of the repository.
        packages: names of the top-level packages whose files are listed.
        cache: file that caches parsed results by the sha256 of their source; None to parse every file.
        others_from: packages whose imports from other distributions are listed; all of `packages` by default.
    """

    def __init__(
        self,
        root: Path = ROOT,
        packages: Sequence[str] = ("hallmark",),
        cache: Path | None = CACHE,
        others_from: Sequence[str] | None = None,
    ) -> None:
        self.root, self.packages = root, tuple(packages)
        self._others_from = self.packages if others_from is None else tuple(others_from)
        self._cache = _Cache(cache)
        self._parsed: dict[str, _Parsed] = {}

    def imported_by(self, modules: Iterable[str]) -> Code:
        """List what modules import, directly or indirectly, also inside functions, but not under TYPE_CHECKING.

        Args:
            modules: dotted names of modules, or of classes in them such as a `_target_`.

        Raises:
            SyntaxError: a file is not valid Python.
        """
        waiting = [module for name in modules if (module := self._module(name))]
        files: dict[str, str] = {}
        others: set[str] = set()
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
                elif module.partition(".")[0] in self._others_from:
                    others.add(name)
            if "." in module:
                waiting.append(module.rpartition(".")[0])  # Python imports the parent packages of a module first
        self._cache.save()
        foreign = (name for name in others if name.partition(".")[0] not in sys.stdlib_module_names)
        return Code(dict(sorted(files.items())), frozenset(foreign))

    @functools.cached_property
    def _files(self) -> dict[str, str]:
        """Dotted name of every module → its path relative to the repository."""
        paths = {}
        for package in self.packages:
            for file in (self.root / package).rglob("*.py"):
                names = file.relative_to(self.root).with_suffix("").parts
                paths[".".join(names[:-1] if names[-1] == "__init__" else names)] = file.relative_to(
                    self.root
                ).as_posix()
        return paths

    def _module(self, name: str) -> str:
        """Return the module in `packages` that defines a dotted name; empty for any other name."""
        if name.partition(".")[0] not in self.packages:
            return ""
        while name and name not in self._files:
            name = name.rpartition(".")[0]
        return name

    def _parse(self, path: str) -> _Parsed:
        if path not in self._parsed:
            source = (self.root / path).read_bytes()
            key = hashlib.sha256(f"{path}\n".encode() + source).hexdigest()
            kept = self._cache.get(key)
            if kept is None:
                tree = ast.parse(source, path)
                digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
                kept = [digest, sorted(set(_imports(tree, path)))]
                self._cache.put(key, kept)
            self._parsed[path] = _Parsed(kept[0], tuple(kept[1]))
        return self._parsed[path]


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
    """Walk a tree without the blocks under `if TYPE_CHECKING`."""
    yield node
    checked = isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING"
    for child in node.orelse if checked and isinstance(node, ast.If) else ast.iter_child_nodes(node):
        yield from _walk(child)


def _name(node: ast.expr) -> str:
    """Return the last component of a dotted name; empty for any other expression."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


class _Cache:
    """Cache of results by the sha256 of their source; a change of this file or of Python empties it."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._new = path, False
        self._maker = hashlib.sha256(Path(__file__).read_bytes() + sys.version.encode()).hexdigest()
        self._kept: dict[str, Any] = {}
        if path is not None:
            with suppress(OSError, ValueError, KeyError):
                read = json.loads(path.read_text(encoding="utf-8"))
                if read["maker"] == self._maker:
                    self._kept = read["kept"]

    def get(self, key: str) -> Any:
        """Return the cached result, or None."""
        return self._kept.get(key)

    def put(self, key: str, value: Any) -> None:
        """Add a result."""
        self._kept[key], self._new = value, True

    def save(self) -> None:
        """Write the file if there are new results; keep only the latest `MOST_KEPT`."""
        if self._path is not None and self._new:
            self._kept = dict(list(self._kept.items())[-MOST_KEPT:])
            write_text(self._path, json.dumps({"maker": self._maker, "kept": self._kept}))
            self._new = False
