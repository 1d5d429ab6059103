"""Steps that find their files on any stack.

With a local artifact store, a step reads and writes the paths that DVC tracks, and a reference is all that moves. With
a remote one, the machine of a step may have an empty checkout. Then the files of its stage come from the store before
it and go back after it: each under its sha256, uploaded once, checked when it is fetched. Checkpoints of training go
there while it runs, so that the next machine resumes after the first was lost. Data that are in the DVC remote of
.dvc/config are pulled from there by their pointers instead.
"""

import functools
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from zenml import get_step_context
from zenml import step as zenml_step

from hallmark import kernels
from hallmark.errors import ConfigError
from steps.carrier import Carrier

FILES = "hallmark_files"
"""Key of a run's `extra`: where in the store the list of its files lies, and which paths it covers."""
CHECKPOINT_SECONDS = 5.0  # between two looks for new checkpoints
log = logging.getLogger(__name__)


def is_remote(store: Any) -> bool:
    """Return whether other machines can reach an artifact store."""
    return not store.config.is_local


def carrier_of_step() -> Carrier | None:
    """Fetch the files of the run whose step this process runs; None if they are here anyway."""
    try:
        files = get_step_context().pipeline_run.config.extra.get(FILES)
    except RuntimeError:  # called as a function, without a store
        return None
    return None if files is None else _taken(files["name"], tuple(files["paths"]))


@functools.cache
def _taken(name: str, paths: tuple[str, ...]) -> Carrier:
    """Fetch the files of a run, once in a process."""
    from zenml.client import Client

    carrier = Carrier(Client().active_stack.artifact_store, name, paths)
    carrier.take(checkpoints=True)
    return carrier


@contextmanager
def files_of_run(store: Any, paths: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Let the steps of a run find files where the artifact store is remote, and fetch what they wrote.

    Yields:
        What the run's `extra` must have; nothing with a local store.
    """
    if not is_remote(store):
        yield {}
        return
    carrier = Carrier(store, uuid.uuid4().hex, paths)
    carrier.point()
    carrier.give()
    try:
        yield {FILES: {"name": carrier.name, "paths": list(carrier.paths)}}
    finally:
        carrier.take()


@contextmanager
def carried() -> Iterator[None]:
    """Have the files of this step's run here, and upload what the step has written, also if it failed."""
    if (carrier := carrier_of_step()) is None:
        yield
        return
    _check_kernels()
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(carrier, done), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        carrier.give()


def _check_kernels() -> None:
    """Refuse to compute with other kernels than a local run: every digest after it would be another one."""
    if other := [name for name, value in kernels.environment().items() if os.environ.get(name) != value]:
        raise ConfigError(
            f"the environment of this step does not set {other[0]}, so that its results would have other bytes than "
            "those of a local run: let conf/stack name an image that `make image` has built"
        )


def _watch(carrier: Carrier, done: threading.Event) -> None:
    while not done.wait(CHECKPOINT_SECONDS):
        try:
            carrier.give_checkpoints()
        except Exception as error:  # a store that is away for a moment must not end training, nor later checkpoints
            log.warning("checkpoints could not be uploaded (%s): tried again", type(error).__name__)


def step(function: Callable[..., Any]) -> Any:
    """Make a ZenML step of a function whose files are carried where they must be."""

    @functools.wraps(function)
    def with_files(*args: Any, **kwargs: Any) -> Any:
        with carried():
            return function(*args, **kwargs)

    return zenml_step(with_files)
