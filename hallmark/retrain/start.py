"""Find what a new fit starts from: the version that serves, and the state that its adapters go on from."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from hallmark.abilities import Refreshing
from hallmark.build import build
from hallmark.contracts import AnyLearner, Task
from hallmark.errors import BundleError, ConfigError
from hallmark.files import replacing
from hallmark.prove.bundle import MANIFEST, Hallmark, read_hallmark
from hallmark.prove.serving import CURRENT, ServedVersions
from hallmark.stages.refresh import trained_from

CHALLENGERS = Path("challengers")
REFRESHED = Path("refreshed")
TRAINED = Path("models/current/refresh_state")
STATES = "states"


@dataclass(frozen=True)
class Champion:
    """The version that serves.

    Attributes:
        pointer: `served/TASK/current`.
        hallmark: its manifest.
        digest: sha256 of it.
        task: of it.
        learner: of it.
    """

    pointer: Path
    hallmark: Hallmark
    digest: str
    task: Task
    learner: AnyLearner

    @property
    def trained(self) -> str:
        """Digest of the trained bundle that it goes back to."""
        return trained_from(self.hallmark, self.digest)

    @property
    def personal(self) -> bool:
        """Whether adapters can be fitted again without training the base model."""
        return isinstance(self.learner, Refreshing)

    @property
    def directory(self) -> Path:
        """Where its challengers lie."""
        return CHALLENGERS / self.hallmark.task

    @property
    def states(self) -> Path:
        """Where the refresh states of its refits lie, by the names of their versions."""
        return self.directory / STATES

    def versions(self, public_key: Path | None = None) -> ServedVersions:
        """Return the versions that may serve in its place."""
        return ServedVersions(self.hallmark.task, self.pointer.parent.parent, public_key)

    def lineage(self) -> list[str]:
        """Return the digests of all versions here whose adapters were fitted on the same base model."""
        directories = [self.pointer.parent / name for name in self.versions().names()]
        found = [read_hallmark(directory) for directory in directories]
        return [digest for hallmark, digest in found if trained_from(hallmark, digest) == self.trained]


def open_champion(pointer: Path) -> Champion:
    """Open the version that a pointer leads to.

    Raises:
        ConfigError: nothing was promoted: there is no champion to challenge.
        BundleError: it is damaged.
    """
    if pointer.name != CURRENT or not pointer.is_symlink():
        raise ConfigError(f"{pointer} is no champion: run `make promote`, then a challenger can be compared with it")
    hallmark, digest = read_hallmark(pointer.resolve())
    task, learner = build(hallmark.spec["task"], "task"), build(hallmark.spec["learner"], "learner")
    return Champion(pointer, hallmark, digest, task, learner)


def state_of(champion: Champion) -> tuple[Path, Path]:
    """Return the champion's bundle and the refresh state that was written with it.

    Raises:
        BundleError: it is the state of no refit that has served, of the last refresh, or of the last training.
    """
    bundle = champion.pointer.resolve()
    if (kept := champion.states / bundle.name).is_dir():
        return bundle, kept
    for made, state in ((REFRESHED / "bundle", REFRESHED / "refresh_state"), (Path("bundle"), TRAINED)):
        if (made / MANIFEST).is_file() and state.is_dir() and read_hallmark(made)[1] == champion.digest:
            return bundle, state
    raise BundleError(
        f"the refresh state of {champion.hallmark.task} {champion.hallmark.version} ({champion.digest[:12]}) is not "
        "here: let a version serve whose state is (`hallmark versions`, `hallmark rollback --to`), or train again and "
        "promote that (`make repro`, `make promote`)"
    )


def keep_own_state(champion: Champion) -> None:
    """Keep the state of the version that serves: another training is about to take its place in `models/current`.

    Raises:
        BundleError: it is not here.
    """
    if not champion.personal:
        return
    state, name = state_of(champion)[1], champion.pointer.resolve().name
    if state != champion.states / name:
        keep_state(champion, state, name)


def keep_state(champion: Champion, state: Path, name: str) -> None:
    """Keep the state of a version that is to serve; those of versions that are gone are deleted."""
    with replacing(champion.states / name) as fresh:
        shutil.copytree(state, fresh, dirs_exist_ok=True)
    here = {*champion.versions().names(), name}
    for kept in champion.states.iterdir():
        if kept.name not in here and not kept.name.startswith("."):
            shutil.rmtree(kept)
