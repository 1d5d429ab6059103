"""Restore a stage's earlier outputs when it fails."""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hallmark.errors import GateError
from hallmark.files import read_json, replacing, sha256
from hallmark.prove.bundle import MANIFEST
from pipelines import BUNDLE, BUNDLES, EVALUATION, LOCK, MODEL, PREPARED, VALIDATION

ASIDE = Path(".work/earlier")
OUTS: dict[str, Sequence[str]] = {
    "prepare": (PREPARED, VALIDATION),
    "train": (MODEL,),
    "evaluate": (EVALUATION,),
    "package": (BUNDLE,),
}


@contextmanager
def earlier_kept(stage: str) -> Iterator[None]:
    """Restore the earlier outputs of a stage if the block fails.

    DVC removes them before it runs a stage, so they are restored from its cache. If the stage runs without DVC, they
    still exist and are moved aside; the next run restores what a killed run had moved. A failed gate is the exception:
    its report is kept, because the user must read it.
    """
    places = [(Path(out), ASIDE / stage / str(i)) for i, out in enumerate(OUTS[stage])]
    _put_back(places)
    for out, aside in places:
        if out.exists():
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.replace(out, aside)
    try:
        yield
    except GateError:
        _forget(stage)
        raise
    except BaseException:
        for out, _ in places:
            shutil.rmtree(out, ignore_errors=True)
        _put_back(places)
        if os.environ.get("DVC_STAGE") == stage:
            _check_out(stage)
        raise
    _forget(stage)


def keep_bundle() -> None:
    """Copy the bundle to the directory of its task in bundles/, because a run of another task replaces it."""
    if not (Path(BUNDLE) / MANIFEST).is_file():
        return
    kept = Path(BUNDLES) / str(read_json(Path(BUNDLE) / MANIFEST)["task"])
    if not (kept / MANIFEST).is_file() or sha256(kept / MANIFEST) != sha256(Path(BUNDLE) / MANIFEST):
        with replacing(kept) as fresh:
            shutil.copytree(BUNDLE, fresh, dirs_exist_ok=True)


def rebuild_bento() -> None:
    """Build the Bento of the bundle that is here, if parameters ask for one and the store holds another."""
    from bentos.build import build_bento, is_built
    from hallmark.build import read_params

    if (Path(BUNDLE) / MANIFEST).is_file() and read_params()["package"]["bento"] and not is_built(Path(BUNDLE)):
        build_bento(Path(BUNDLE), Path(LOCK))


def _put_back(places: Sequence[tuple[Path, Path]]) -> None:
    for out, aside in places:
        if aside.exists():
            shutil.rmtree(out, ignore_errors=True)
            out.parent.mkdir(parents=True, exist_ok=True)
            os.replace(aside, out)


def _check_out(stage: str) -> None:
    """Restore outputs from DVC's cache, without a `dvc` command: the `dvc` that runs us holds the locks."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    with Repo(os.environ["DVC_ROOT"]) as repo:
        for out in repo.stage.get_target(stage).outs:
            if not out.hash_info:
                continue
            # Outputs that were never cached, as in a fresh clone, cannot be restored.
            cached = Path(repo.cache.local.oid_to_path(out.hash_info.value))
            try:
                if out.use_cache and cached.exists():
                    out.checkout(force=True)
                elif cached.is_file():  # metrics that git tracks: DVC has a copy in its run cache
                    Path(out.fs_path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(cached, out.fs_path)
            except (DvcException, OSError) as error:
                print(f"warning: {out} could not be restored ({error}): run `dvc checkout`", file=sys.stderr)


def _forget(stage: str) -> None:
    shutil.rmtree(ASIDE / stage, ignore_errors=True)
