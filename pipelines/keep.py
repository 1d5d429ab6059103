"""Earlier results survive a failed run: they are set aside while a stage runs and come back when it fails."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hallmark.errors import GateError
from pipelines.paths import BUNDLE, EVALUATION, MODEL, PREPARED, VALIDATION

ASIDE = Path(".work/earlier")
OUTS: dict[str, Sequence[str]] = {
    "prepare": (PREPARED, VALIDATION),
    "train": (MODEL,),
    "evaluate": (EVALUATION,),
    "package": (BUNDLE,),
}


@contextmanager
def earlier_kept(stage: str) -> Iterator[None]:
    """Set a stage's outputs aside; put them back unless the block ends well.

    A refused gate is the exception: its report must be there to be read. What a killed run had set aside is put
    back by the next one. (dvc.yaml says `persist`, or DVC would delete the outputs first.)
    """
    places = [(Path(out), ASIDE / stage / str(i)) for i, out in enumerate(OUTS[stage])]
    _restore(places)
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
        _restore(places)
        raise
    _forget(stage)


def _restore(places: Sequence[tuple[Path, Path]]) -> None:
    for out, aside in places:
        if aside.exists():
            shutil.rmtree(out, ignore_errors=True)
            out.parent.mkdir(parents=True, exist_ok=True)
            os.replace(aside, out)


def _forget(stage: str) -> None:
    shutil.rmtree(ASIDE / stage, ignore_errors=True)
