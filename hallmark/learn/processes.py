"""Run one function in several processes of this machine with torchrun's launcher.

What is split is up to the work: transformers' Trainer wraps the model in DDP, adapters share out their subjects.
Backend: NCCL where there is a GPU, gloo elsewhere.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hallmark.errors import HallmarkError

if TYPE_CHECKING:
    import torch


def rank() -> int:
    """Which of the processes this one is; 0 where there is only one."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many processes share the work."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def device() -> "torch.device":
    """Where this process computes: its own GPU if there is one."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    mine = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(mine)
    return mine


@contextmanager
def own(out: Path, scratch: Path) -> Iterator[Path]:
    """Give the first process `out` and every other one a place in `scratch`, so that all run the same code."""
    if rank() == 0:
        yield out
        return
    mine = scratch / f"rank-{rank()}"
    shutil.rmtree(mine, ignore_errors=True)
    mine.mkdir(parents=True)
    yield mine
    shutil.rmtree(mine)


def run(processes: int, work: Callable[..., None], *arguments: Any) -> None:
    """Call `work` in so many processes and wait for all of them; in this one if it is to be one.

    Args:
        processes: how many.
        work: a function of a module.
        arguments: of it; they are pickled for other processes.

    Raises:
        HallmarkError: a process failed; says which, and its message. Or this one is itself one of several.
    """
    if world() > 1:
        raise HallmarkError(f"WORLD_SIZE={world()} is set: this step starts its own processes, unset it and RANK")
    if processes == 1:
        work(*arguments)
        return
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logs = tempfile.TemporaryDirectory(prefix="hallmark-")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"hallmark-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=0,
        start_method="spawn",
        logs_specs=DefaultLogsSpecs(log_dir=logs.name),
    )
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # as torchrun does: processes share the cores
    try:
        with logs:
            elastic_launch(config, work)(*arguments)
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        message = failure.message if isinstance(failure.message, str) else failure.message.get("message", "")
        raise HallmarkError(
            f"process {number} of {processes} failed: {' '.join(str(message).split())[:400]}"
        ) from error
