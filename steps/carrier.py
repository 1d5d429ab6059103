"""Files of a run in a remote artifact store: each under its sha256, uploaded once, checked when it is fetched."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hallmark.errors import BundleError, HallmarkError
from hallmark.files import CHECKPOINTS, read_json, sha256
from steps.pointers import in_remote, pull

BLOCK = 2**20


class Carrier:
    """Files of one run in a remote artifact store.

    Args:
        store: ZenML's artifact store.
        name: of the run's list of files.
        paths: files and directories that are carried, relative to the repository.
    """

    def __init__(self, store: Any, name: str, paths: Iterable[str]) -> None:
        self.store, self.paths = store, tuple(paths)
        self.root = f"{store.path.rstrip('/')}/hallmark"
        self.name = name
        self._given: dict[Path, Mapping[Path, tuple[int, int]]] = {}
        self._uploaded: dict[Path, Mapping[str, str]] = {}
        self._listed: Mapping[str, str] = {}

    def take(self, checkpoints: bool = False) -> None:
        """Write the files of the run to their paths; files that are there with the same content stay.

        Raises:
            BundleError: the content of an object is not what its name says.
            HallmarkError: the store, or the DVC remote, does not answer or refuses.
        """
        with self._reached():
            pointed = self._read(f"{self.name}.pointers.json")
            for path, digest in self._read(f"{self.name}.json").items():
                self._fetch(Path(path), digest)
            if checkpoints:
                for path, digest in self._read(f"{self.name}.checkpoints.json").items():
                    self._fetch(Path(path), digest)
        pull({Path(pointer): digest for pointer, digest in pointed.items()})

    def give(self) -> None:
        """Upload what is new under the paths, then the list of all files.

        Raises:
            HallmarkError: the store does not answer or refuses.
        """
        with self._reached():
            pulled = {Path(pointer).with_suffix("") for pointer in self._read(f"{self.name}.pointers.json")}
            files = {path.as_posix(): self._upload(path) for path in self._here() if path not in pulled}
            self._write(f"{self.name}.json", files)

    def point(self) -> None:
        """List the data that every machine pulls from the DVC remote, which `give` then does not upload.

        Raises:
            HallmarkError: the store does not answer or refuses.
        """
        with self._reached():
            pointed = {pointer: sha256(Path(pointer).with_suffix("")) for pointer in in_remote(self._here())}
            self._write(f"{self.name}.pointers.json", pointed)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Say in one line what the store refuses; errors of files here stay what they are."""
        try:
            yield
        except HallmarkError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise HallmarkError(
                f"the artifact store {self.store.path} cannot be used ({why}): check that it answers, and that the "
                "secret of the stack may read, write and list there; then run again, nothing is lost"
            ) from error

    def give_checkpoints(self) -> None:
        """Upload checkpoints that are complete."""
        listed: dict[str, str] = {}
        for directory in sorted(CHECKPOINTS.rglob("checkpoint-*")):
            try:
                read_json(directory / "trainer_state.json")
                files = {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in _files(directory)}
                if self._given.get(directory) != files:
                    self._uploaded[directory] = {path.as_posix(): self._upload(path) for path in files}
                    self._given[directory] = files
            except (FileNotFoundError, ValueError) as error:  # removed meanwhile, or incomplete: its state comes last
                if getattr(error, "filename", None) is None and isinstance(error, OSError):
                    raise  # of the store, not of a file here
                continue
            listed.update(self._uploaded[directory])
        if listed != self._listed:
            self._write(f"{self.name}.checkpoints.json", listed)
            self._listed = listed

    def _here(self) -> list[Path]:
        return [path for place in self.paths for path in _files(Path(place))]

    def _object(self, digest: str) -> str:
        return f"{self.root}/objects/{digest[:2]}/{digest}"

    def _upload(self, path: Path) -> str:
        """Upload a file under its sha256, of a copy: it might change between two readings."""
        with tempfile.TemporaryDirectory(prefix="hallmark-carried-") as scratch:
            copy = Path(shutil.copyfile(path, Path(scratch) / "file"))
            digest = sha256(copy)
            name = self._object(digest)
            if not self.store.exists(name):
                self.store.makedirs(name.rpartition("/")[0])
                target = self.store.open(name, "wb")
                try:
                    with copy.open("rb") as source:
                        shutil.copyfileobj(source, target, BLOCK)
                    target.close()
                except BaseException:  # closing writes what there is under the digest of the whole
                    with suppress(Exception):
                        target.close()
                    with suppress(Exception):
                        self.store.remove(name)
                    raise
        return digest

    def _fetch(self, path: Path, digest: str) -> None:
        if path.is_file() and sha256(path) == digest:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        seen = hashlib.sha256()
        try:
            with os.fdopen(handle, "wb") as target, self.store.open(self._object(digest), "rb") as source:
                while block := source.read(BLOCK):
                    seen.update(block)
                    target.write(block)
            if seen.hexdigest() != digest:
                raise BundleError(
                    f"{path}: the artifact store holds sha256 {seen.hexdigest()[:12]}… under the name {digest[:12]}…: "
                    f"remove {self._object(digest)} and run again"
                )
            os.chmod(fresh, 0o644)
            os.replace(fresh, path)
        finally:
            Path(fresh).unlink(missing_ok=True)

    def _read(self, name: str) -> Mapping[str, str]:
        where = f"{self.root}/runs/{name}"
        if not self.store.exists(where):
            return {}
        with self.store.open(where, "r") as file:
            files: Mapping[str, str] = json.load(file)
        return files

    def _write(self, name: str, files: Mapping[str, str]) -> None:
        self.store.makedirs(f"{self.root}/runs")
        with self.store.open(f"{self.root}/runs/{name}", "w") as file:
            file.write(json.dumps(files, sort_keys=True))


def _files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    return sorted(path for path in place.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
