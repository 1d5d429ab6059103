"""Data of a run that machines of steps pull from the DVC remote by their pointers."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hallmark.errors import BundleError, HallmarkError
from hallmark.files import sha256

log = logging.getLogger(__name__)


def in_remote(files: Iterable[Path]) -> list[str]:
    """Return pointers of those files that are here as their pointers say, and in the default remote of .dvc/config."""
    pointers = [pointer for file in files if Path(pointer := f"{file.as_posix()}.dvc").is_file()]
    if not pointers:
        return []
    try:
        with _repository() as repository:
            if not repository.config.load_one("repo").get("core", {}).get("remote"):
                return []
            changed = {p for p in pointers if repository.status(targets=[p])}
            return [p for p in pointers if p not in changed and not repository.status(targets=[p], cloud=True)]
    except Exception as error:  # also of the client of the remote, or that there is none
        log.warning("the DVC remote cannot be asked (%s): data are uploaded to the artifact store", error)
        return []


def pull(pointed: Mapping[Path, str]) -> None:
    """Pull data from the DVC remote.

    Args:
        pointed: pointer → sha256 that the file must have; one that has it is not pulled.

    Raises:
        HallmarkError: the remote does not answer or refuses.
        BundleError: the pointer here is another one than where the run began.
    """
    missing = [pointer for pointer, digest in pointed.items() if not _has(pointer.with_suffix(""), digest)]
    if not missing:
        return
    try:
        with _repository() as repository:
            repository.pull(targets=[pointer.as_posix() for pointer in missing], force=True)
    except Exception as error:
        why = " ".join(str(error).split())[:200]
        raise HallmarkError(
            f"{missing[0]} cannot be pulled ({why}): the machines of steps need the remote of .dvc/config, its client "
            "and its credentials in their environment"
        ) from error
    if wrong := [pointer for pointer in missing if not _has(pointer.with_suffix(""), pointed[pointer])]:
        raise BundleError(
            f"{wrong[0]} here points to other data than where the run began: build the image again by `make image`"
        )


def _has(file: Path, digest: str) -> bool:
    return file.is_file() and sha256(file) == digest


def _repository() -> Any:
    """Open DVC's repository here; an image has no Git."""
    from dvc.repo import Repo

    return Repo(".", config={"core": {"no_scm": not Path(".git").exists()}})
