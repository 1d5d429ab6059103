"""The versions of a task that may serve, and one pointer to the one that does.

    served/TASK/current -> 3f0c…                   the pointer: a symbolic link, replaced in one step
    served/TASK/3f0c…/                             a bundle, by the sha256 of its hallmark
    served/TASK/3f0c….sig                          its signature, if it has one
    served/TASK/3f0c….json                         which version it was promoted over, and when

A service that was given `current` follows it without a restart.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from hallmark.errors import BundleError, ConfigError
from hallmark.files import read_json, replacing, write_json
from hallmark.prove.beside import Beside, Mode, read_beside, write_beside
from hallmark.prove.bundle import MANIFEST, Hallmark, open_accepted, read_hallmark
from hallmark.prove.signature import signature_of, verify

SERVED = Path("served")
CURRENT = "current"
NAME = 16  # hex digits of a digest that name a version's directory


@dataclass(frozen=True)
class Switch:
    """A change of the version that serves.

    Attributes:
        task: whose.
        before: version and digest that served; both empty for the first one.
        after: version and digest that serve now.
    """

    task: str
    before: tuple[str, str]
    after: tuple[str, str]


def champion_or_last(task: str = "") -> Path:
    """Return where the champion of a task lies, or its last bundle while none was promoted.

    Args:
        task: its name; empty for the task of `bundle`, or for the only one that serves.

    Raises:
        ConfigError: the pointer leads nowhere.
    """
    last = Path("bundles") / task if task else Path("bundle")
    names = serving_tasks(SERVED)
    if not task and (last / MANIFEST).is_file():
        task = str(read_json(last / MANIFEST)["task"])
    elif not task and len(names) == 1:
        [task] = names
    champion = SERVED / task / CURRENT
    if not task or not champion.is_symlink():
        return last
    if not champion.is_dir():
        raise ConfigError(f"{champion} leads to a version that is gone: run `hallmark rollback {task} --to VERSION`")
    return champion


def serving_tasks(root: Path) -> list[str]:
    """Return the tasks of which a version serves."""
    return sorted(path.parent.name for path in root.glob(f"*/{CURRENT}") if path.is_symlink()) if root.is_dir() else []


class ServedVersions:
    """The versions of one task.

    Args:
        task: its name.
        root: directory of all tasks.
        public_key: of the owner who must have signed what serves; None asks for no signature.
    """

    def __init__(self, task: str, root: Path = SERVED, public_key: Path | None = None) -> None:
        self.task, self.directory, self.public_key = task, root / task, public_key
        self.current = self.directory / CURRENT

    def digest(self) -> str:
        """Return the name of the version that serves; empty if none does."""
        return os.readlink(self.current) if self.current.is_symlink() else ""

    def promote(self, bundle: Path, only_over: str = "") -> Switch:
        """Let a bundle serve.

        Args:
            bundle: that is to serve.
            only_over: digest of the version that must still serve; empty for whichever does.

        Raises:
            BundleError: a file is missing or changed, a gate refused it, it is not signed, it is of another task, or
                another version serves meanwhile; what serves stays.
        """
        hallmark, digest = self._checked(bundle)
        name = digest[:NAME]
        with self._alone():
            before = self.digest()
            if only_over and before != only_over[:NAME]:
                raise BundleError(
                    f"{before} serves meanwhile, not {only_over[:NAME]}: compare {bundle} with that first"
                )
            self._add(bundle, name)
            if name != before:
                over = {"promoted_over": before, "at": datetime.now(UTC).isoformat()}
                write_json(self.directory / f"{name}.json", over)
                self._point_to(name)
            if self.beside().challenger == name:
                write_beside(self.directory, self.beside().stopped())
            return Switch(self.task, self._named(before), (hallmark.version, digest))

    def promoted_at(self, digest: str) -> datetime | None:
        """Return when a version was promoted; None if it never was."""
        at = self._record(digest[:NAME]).get("at", "")
        return datetime.fromisoformat(at) if at else None

    def before(self) -> Path | None:
        """Return where the version lies that the present one was promoted over; None if it is gone, or none was."""
        over = self._record(self.digest()).get("promoted_over", "")
        return self.directory / over if over and self._is_here(over) else None

    def roll_back(self, to: str = "") -> Switch:
        """Let an earlier version serve again.

        Args:
            to: its version, or the first digits of its digest; empty for that which the present one was promoted over.

        Raises:
            BundleError: there is none, it is gone, damaged, or not signed; what serves stays.
        """
        switch = self._roll_back(to, "")
        assert switch is not None
        return switch

    def roll_back_from(self, digest: str) -> Switch | None:
        """Let the version before serve again, if the present one is still the one that is meant; None if it is not.

        Raises:
            BundleError: as in `roll_back`.
        """
        return self._roll_back("", digest[:NAME])

    def _roll_back(self, to: str, only_from: str) -> Switch | None:
        with self._alone():
            before = self.digest()
            if only_from and before != only_from:
                return None
            if not before:
                raise BundleError(
                    f"no version of {self.task} serves from {self.directory}: `hallmark promote` makes one"
                )
            name = self._find(to) if to else self._over(before)
            target = self.directory / name
            if not target.is_dir():
                raise BundleError(f"{target} is gone: name another one by --to; {before} goes on serving")
            try:
                hallmark, digest = self._checked(target)
            except BundleError as error:
                raise BundleError(f"{error}; {before} goes on serving") from error
            self._point_to(name)
            if self.beside().challenger == name:
                write_beside(self.directory, self.beside().stopped())
            return Switch(self.task, self._named(before), (hallmark.version, digest))

    def beside(self) -> Beside:
        """Return who is answered by another version than the champion; nobody if the file cannot be read."""
        try:
            return read_beside(self.directory)
        except BundleError:
            return Beside()

    def challenge(self, bundle: Path, share: int, mode: Mode) -> str:
        """Let a bundle serve beside the champion; returns its name.

        Args:
            bundle: the challenger.
            share: per cent of subjects that are its own.
            mode: see `Beside`.

        Raises:
            BundleError: as in `promote`, or nothing serves, or the bundle is what serves.
        """
        _, digest = self._checked(bundle)
        name = digest[:NAME]
        with self._alone():
            champion = self.digest()
            if not champion:
                raise BundleError(f"no version of {self.task} serves from {self.directory}: promote one first")
            if name == champion:
                raise BundleError(f"{bundle} serves already: nothing can be compared with itself")
            if read_hallmark(self.directory / champion)[0].schema != read_hallmark(bundle)[0].schema:
                raise BundleError(f"{bundle} has other types of request and response than what serves")
            self._add(bundle, name)
            since = datetime.now(UTC).isoformat()
            write_beside(
                self.directory,
                replace(read_beside(self.directory), challenger=name, share=share, mode=mode, since=since),
            )
        return name

    def stop_challenger(self, only: str = "") -> str:
        """Let the champion answer everybody but pinned subjects; returns the name of the challenger, empty if none was.

        Args:
            only: name or digest of the challenger that is meant; another one goes on.
        """
        with self._alone():
            beside = self.beside()
            if only and beside.challenger != only[:NAME]:
                return ""
            write_beside(self.directory, beside.stopped())
            return beside.challenger

    def pin(self, owner: str, to: str = "") -> str:
        """Let one version answer a subject, or without one whichever is drawn; returns its name.

        Raises:
            BundleError: there is no such version.
        """
        with self._alone():
            name = self._find(to, self.names()) if to else ""
            write_beside(self.directory, read_beside(self.directory).pinned(owner, name))
        return name

    def names(self) -> list[str]:
        """Return the directories of all versions that are here."""
        return sorted(path.parent.name for path in self.directory.glob(f"*/{MANIFEST}") if not path.parent.is_symlink())

    def succeed(self, name: str, bundle: Path) -> None:
        """Put a bundle in the place of a version that must go: it takes over its pointer and its record.

        Raises:
            BundleError: as in `promote`; what serves stays.
        """
        _, digest = self._checked(bundle)
        with self._alone():
            self._add(bundle, digest[:NAME])
            for file in self.directory.glob("*.json"):
                record = self._record(file.stem)
                if record.get("promoted_over") == name:
                    record = {**record, "promoted_over": digest[:NAME]}
                write_json(self.directory / f"{digest[:NAME] if file.stem == name else file.stem}.json", record)
            if self.digest() == name:
                self._point_to(digest[:NAME])
            if name in self.beside().names:
                write_beside(self.directory, self.beside().renamed(name, digest[:NAME]))
            shutil.rmtree(self.directory / name)
            signature_of(self.directory / name).unlink(missing_ok=True)
            (self.directory / f"{name}.json").unlink(missing_ok=True)

    def versions(self) -> list[tuple[str, str]]:
        """Return (version, name) of every version that is here, in the order in which they were first promoted."""
        records = [(self._record(file.stem).get("at", ""), file.stem) for file in self.directory.glob("*.json")]
        return [(read_hallmark(self.directory / n)[0].version, n) for _, n in sorted(records) if self._is_here(n)]

    def _record(self, name: str) -> dict[str, str]:
        """Return when a version was promoted, and over which; nothing if that is not known."""
        try:
            found: dict[str, str] = read_json(self.directory / f"{name}.json")
        except (OSError, ValueError):
            return {}
        return found

    def _is_here(self, name: str) -> bool:
        return (self.directory / name / MANIFEST).is_file()

    def _checked(self, bundle: Path) -> tuple[Hallmark, str]:
        if self.public_key is not None:
            verify(bundle, self.public_key)
        hallmark, digest = open_accepted(bundle)
        if hallmark.task != self.task:
            raise BundleError(f"{bundle} is a model of {hallmark.task}, not of {self.task}")
        return hallmark, digest

    def _find(self, text: str, names: Sequence[str] | None = None) -> str:
        """Return the directory of a version, among those that were promoted or among all."""
        versions = [(read_hallmark(self.directory / n)[0].version, n) for n in names or ()] or self.versions()
        found = [name for version, name in versions if version == text or name == text[:NAME] or name.startswith(text)]
        if len(found) != 1:
            known = ", ".join(f"{version} ({name})" for version, name in versions)
            what = f"{len(found)} versions of {self.task} are" if found else f"no version of {self.task} is"
            raise BundleError(f"--to {text}: {what} called so; there are {known}")
        return found[0]

    def _over(self, name: str) -> str:
        over = self._record(name).get("promoted_over", "")
        if not over:
            raise BundleError(
                f"{name} was promoted over no version of {self.task}: name one by --to (`hallmark versions` lists them)"
            )
        return over

    def _add(self, bundle: Path, name: str) -> None:
        """Copy a bundle beside the others, unless it lies there whole."""
        target = self.directory / name
        if target.resolve() == bundle.resolve():
            return
        try:
            open_accepted(target)
        except BundleError:  # it is not there, or damaged
            with replacing(target) as fresh:
                shutil.copytree(bundle, fresh, dirs_exist_ok=True)
                open_accepted(fresh)
        if (signature := signature_of(bundle)).is_file():
            shutil.copyfile(signature, signature_of(target))

    def _named(self, name: str) -> tuple[str, str]:
        if not name or not self._is_here(name):
            return "", name
        hallmark, digest = read_hallmark(self.directory / name)
        return hallmark.version, digest

    def _point_to(self, name: str) -> None:
        """Replace the pointer in one step: whoever reads it finds the old or the new version."""
        fresh = self.directory / f".{CURRENT}"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(name)
        os.replace(fresh, self.current)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one change after the other happen, also of several processes."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)
        except OSError as error:
            raise BundleError(
                f"{self.directory} cannot be written ({error.strerror}): name another one by --served"
            ) from None
