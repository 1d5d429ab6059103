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
from pipelines import BUNDLE, BUNDLES, EVALUATION, MODEL, PREPARED, VALIDATION

ASIDE = Path(".work/earlier")
OUTS: dict[str, Sequence[str]] = {
    "prepare": (PREPARED, VALIDATION),
    "train": (MODEL,),
    "evaluate": (EVALUATION,),
    "package": (BUNDLE,),
}


@contextmanager
def earlier_kept(stage: str) -> Iterator[None]:
    """Put a stage's outputs back unless the block ends well.

    DVC removes them before it runs a stage, so they come back from its cache. Where the stage is run by hand they are
    still there and are set aside; what a killed run had set aside is put back by the next one. A refused gate is the
    exception: its report must be there to be read.
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
    """Copy the bundle to where every task's last one lies: the next task's run replaces it."""
    if not (Path(BUNDLE) / MANIFEST).is_file():
        return
    kept = Path(BUNDLES) / str(read_json(Path(BUNDLE) / MANIFEST)["task"])
    if not (kept / MANIFEST).is_file() or sha256(kept / MANIFEST) != sha256(Path(BUNDLE) / MANIFEST):
        with replacing(kept) as fresh:
            shutil.copytree(BUNDLE, fresh, dirs_exist_ok=True)


def _put_back(places: Sequence[tuple[Path, Path]]) -> None:
    for out, aside in places:
        if aside.exists():
            shutil.rmtree(out, ignore_errors=True)
            out.parent.mkdir(parents=True, exist_ok=True)
            os.replace(aside, out)


def _check_out(stage: str) -> None:
    """Restore from DVC's cache what dvc.lock names: the locks of the repository are held by the `dvc` that runs us."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    with Repo(os.environ["DVC_ROOT"]) as repo:
        for out in repo.stage.get_target(stage).outs:
            if not out.hash_info:
                continue
            # What was never cached here, as in a fresh clone, cannot come back.
            cached = Path(repo.cache.local.oid_to_path(out.hash_info.value))
            try:
                if out.use_cache and cached.exists():
                    out.checkout(force=True)
                elif cached.is_file():  # figures that git keeps: DVC has a copy for its own cache of runs
                    Path(out.fs_path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(cached, out.fs_path)
            except (DvcException, OSError) as error:
                print(f"warning: {out} could not be restored ({error}): run `dvc checkout`", file=sys.stderr)


def _forget(stage: str) -> None:
    shutil.rmtree(ASIDE / stage, ignore_errors=True)
