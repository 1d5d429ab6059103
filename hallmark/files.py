"""Files: sha256 digests, canonical JSON, and atomic writes of files and directories."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from safetensors import SafetensorError

from hallmark.errors import BundleError

CHECKPOINTS = Path(".work/checkpoints")
"""Unfinished training, one directory for each set of inputs; nothing of it is left when training has ended."""


@dataclass(frozen=True)
class FileRef:
    """A reference to a file or directory that DVC tracks: what pipelines pass instead of copies.

    Attributes:
        path: relative to the repository.
        sha256: digest of the file, or of the sorted digests of a directory's files.
        rows: number of rows of a table; None for anything else.
    """

    path: str
    sha256: str
    rows: int | None = None

    @classmethod
    def to(cls, path: Path, rows: int | None = None) -> "FileRef":
        """Make a reference to the current content of `path`."""
        return cls(path.as_posix(), sha256(path), rows)

    def open(self) -> Path:
        """Return the path after checking that its content still has the recorded digest.

        Raises:
            BundleError: the path is missing, or its content has changed.
        """
        path = Path(self.path)
        if not path.exists():
            raise BundleError(f"{path} is gone: run `dvc repro` to make it again")
        if (digest := sha256(path)) != self.sha256:
            raise BundleError(f"{path} has sha256 {digest[:12]}…, expected {self.sha256[:12]}…: run `dvc repro`")
        return path

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def sha256(path: Path) -> str:
    """Digest a file, or a directory as the digest of its sorted `name digest` lines."""
    if path.is_dir():
        lines = (f"{name} {digest}\n" for name, digest in sorted(tree_digests(path).items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def directory_of(subject_id: str) -> str:
    """Return a subject's directory name: the percent-encoded id, which cannot point outside its parent folder."""
    return quote(subject_id, safe="").replace(".", "%2E")


@contextmanager
def as_bundle_error(what: Path, remedy: str) -> Iterator[None]:
    """Convert any error while a file or directory is read into one line.

    Raises:
        BundleError: a file is missing, truncated or of another format; names `what` and the remedy.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BundleError(f"{what} cannot be loaded ({reason}): {remedy}") from error


def tree_digests(directory: Path, everything: bool = False) -> dict[str, str]:
    """Digest every file below `directory`, keyed by its relative POSIX path; byte code only if `everything`."""
    files = (
        path for path in directory.rglob("*") if path.is_file() and (everything or "__pycache__" not in path.parts)
    )
    return {path.relative_to(directory).as_posix(): sha256(path) for path in files}


def canonical_json(value: Any) -> str:
    """Serialise as JSON so that equal values have equal bytes: sorted keys, no NaN, a final newline."""
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def digest_text(text: str) -> str:
    """Return the sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write `text` atomically: after a crash or on a full disk, the earlier file is unchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write canonical JSON atomically."""
    write_text(path, canonical_json(value))


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """Yield an empty directory that replaces `directory` if the block ends without an error; see `recover`."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    recover(directory)
    fresh = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    os.chmod(fresh, 0o755)
    try:
        yield fresh
        aside = fresh.with_name(f"{fresh.name}.old")
        if directory.exists():
            os.replace(directory, aside)  # moved, not deleted: `recover` restores it after a kill at this point
        os.replace(fresh, directory)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def recover(directory: Path) -> None:
    """Restore the directory that a killed `replacing` moved aside, or delete it if its replacement exists."""
    for aside in sorted(directory.parent.glob(f".{directory.name}.*.old"), reverse=True):
        if directory.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.replace(aside, directory)
