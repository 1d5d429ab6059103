"""Run a function in several processes, on one machine or several, with torchrun's launcher.

The function decides what is parallel: transformers' Trainer wraps the model in DDP, adapters divide the subjects.
Backend: NCCL with a GPU, gloo without.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hallmark.errors import ConfigError, HallmarkError

if TYPE_CHECKING:
    import torch


def rank() -> int:
    """Return the rank of this process; 0 if there is only one."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """Return the number of processes (world size)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def device() -> "torch.device":
    """Return the device of this process: its own GPU if there is one, else the CPU.

    Raises:
        ConfigError: there are GPUs, but fewer than processes on this machine.
    """
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= gpus:
        raise ConfigError(
            f"train.processes is more than the {gpus} GPUs of this machine, and every process needs its own: "
            f"set -S train.processes={gpus}"
        )
    gpu = torch.device("cuda", local)
    torch.cuda.set_device(gpu)
    return gpu


@contextmanager
def output_of_rank(out: Path, scratch: Path) -> Iterator[Path]:
    """Yield the output directory of this process: `out` for rank 0, a temporary one in `scratch` for the others.

    All processes then run the same code, and only the first one keeps its files.
    """
    if rank() == 0:
        yield out
        return
    directory = scratch / f"rank-{rank()}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    yield directory
    shutil.rmtree(directory)


RENDEZVOUS = "HALLMARK_RENDEZVOUS"
"""Environment variable: host:port at which the nodes of one run meet; the first of them opens the port."""


def run(processes: int, work: Callable[..., None], *arguments: Any, nodes: int = 1, restarts: int = 0) -> None:
    """Call `work` in several processes and wait for all of them; with one, call it in this process.

    Args:
        processes: number of processes of this machine.
        work: a function at the top level of a module.
        arguments: arguments of `work`; they are pickled for other processes.
        nodes: machines that call this function with the same arguments.
        restarts: how often all processes begin again after one of them has died.

    Raises:
        ConfigError: there are several nodes, and nothing says where they meet.
        HallmarkError: a process failed (with its rank and message), or this process was started by torchrun itself.
    """
    if world() > 1:
        raise HallmarkError(f"WORLD_SIZE={world()} is set: this step starts its own processes, unset it and RANK")
    if processes == 1 and nodes == 1:
        work(*arguments)
        return
    meeting = os.environ.get(RENDEZVOUS, "")
    if nodes > 1 and not meeting:
        raise ConfigError(
            f"train.nodes={nodes}: set {RENDEZVOUS}=host:port on every node, with the address of one of them"
        )
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logs = tempfile.TemporaryDirectory(prefix="hallmark-")
    config = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=processes,
        run_id="hallmark" if nodes > 1 else f"hallmark-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint=meeting if nodes > 1 else "127.0.0.1:0",
        max_restarts=restarts,
        start_method="spawn",
        logs_specs=DefaultLogsSpecs(log_dir=logs.name),
    )
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # like torchrun: the processes share the cores
    # Otherwise the store of a run that died is used again, and its successors wait for addresses that are gone.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    try:
        with logs:
            elastic_launch(config, work)(*arguments)
    except ChildFailedError as error:
        rank_of_failure, failure = error.get_first_failure()
        message = failure.message if isinstance(failure.message, str) else failure.message.get("message", "")
        raise HallmarkError(
            f"process {rank_of_failure} of {processes} failed: {' '.join(str(message).split())[:400]}"
        ) from error
