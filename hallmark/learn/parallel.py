"""Parallel map on CPUs by forked processes, or on a Ray cluster, with results identical to a serial run.

Forked processes read the parent's data without a copy; each computes with its own threads.
"""

import ctypes
import math
import os
import pickle
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

from hallmark.errors import HallmarkError
from hallmark.learn import cluster

Report = Callable[[int, int, float], None]
"""Called with step, steps and the latest loss on valid."""

Item = TypeVar("Item")
Result = TypeVar("Result")

PR_SET_PDEATHSIG = 1  # prctl(2)


def run_parallel(
    jobs: Mapping[str, Callable[[Report], Result]], at_once: int, report: Callable[[str, int, int, float], None]
) -> dict[str, Result]:
    """Run jobs, up to `at_once` at the same time.

    Args:
        jobs: name → function to run; its argument is a callback for its progress.
        at_once: number of processes; with 1 or with a GPU, the jobs run one after the other in this process, because
            forked processes cannot share a CUDA context. Where `HALLMARK_ENGINE=ray`, as many as the cluster takes.
        report: called with a job's name and its progress; an exception that it raises ends all jobs.

    Returns:
        Name → result of the job, in the order of `jobs`.

    Raises:
        HallmarkError: a job raised it, a job failed with another error, or a process was killed.
    """
    if len(jobs) == 1 or torch.cuda.is_available():
        return {name: job(_named(report, name)) for name, job in jobs.items()}
    if cluster.on_ray():
        return cluster.run_jobs(jobs, report)
    if at_once == 1:
        return {name: job(_named(report, name)) for name, job in jobs.items()}
    context = get_context("fork")
    waiting, results = list(jobs), dict[str, Result]()
    running: dict[Connection, tuple[str, Any]] = {}
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                name = waiting.pop(0)
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(jobs[name], sender), name=name)
                process.start()
                sender.close()
                running[receiver] = (name, process)
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                name, process = running[connection]
                kind, value = _receive(connection)
                if kind == "progress":
                    report(name, *value)
                    continue
                del running[connection]
                process.join()
                if kind == "result":
                    results[name] = value
                elif isinstance(value, HallmarkError):
                    raise value
                elif kind == "error":
                    raise HallmarkError(f"fitting {name!r} failed: {value}")
                else:
                    raise HallmarkError(
                        f"the process that fits {name!r} ended with {_ending(process.exitcode)}: if memory ran out, "
                        "set n_jobs=1 (train, personalise.lora)"
                    )
    finally:
        for _, process in running.values():
            process.kill()
            process.join()
    return {name: results[name] for name in jobs}


def map_parallel(
    items: Sequence[Item], work: Callable[[Item], Result], at_once: int, progress: Callable[[int, int], None]
) -> list[Result]:
    """Apply a function to items in forked processes; each process gets every `at_once`-th item.

    Args:
        items: independent items.
        work: function of one item.
        at_once: number of processes, see `run_parallel`.
        progress: called with the number of finished items and the number of all.

    Returns:
        Results of `work`, in the order of `items`.
    """
    count = max(1, min(cluster.places() if cluster.on_ray() else at_once, len(items)))

    def run_share(first: int, report: Report) -> list[Result]:
        results: list[Result] = []
        for item in items[first::count]:
            report(len(results), len(items), math.nan)
            results.append(work(item))
        return results

    jobs = {str(first): partial(run_share, first) for first in range(count)}
    shares = list(run_parallel(jobs, count, summed(progress, len(items))).values())
    return [shares[i % count][i // count] for i in range(len(items))]


def summed(progress: Callable[[int, int], None], total: int) -> Callable[[str, int, int, float], None]:
    """Return a `report` for `run_parallel` that calls `progress` with the sum over all jobs and `total`."""
    done: dict[str, int] = {}

    def report(name: str, finished: int, _: int, __: float) -> None:
        done[name] = finished
        progress(sum(done.values()), total)

    return report


def _named(report: Callable[[str, int, int, float], None], name: str) -> Report:
    return lambda step, steps, loss: report(name, step, steps, loss)


def _work(job: Callable[[Report], Any], connection: Connection) -> None:
    """Run one job in a forked process and send its progress, and its result or error."""
    with suppress(AttributeError, OSError):  # Linux: the process is killed when its parent ends
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes: the parent handles it
    try:
        result = job(lambda *progress: connection.send_bytes(pickle.dumps(("progress", progress))))
        message = pickle.dumps(("result", result))
    except HallmarkError as error:
        message = pickle.dumps(("error", error))
    except BaseException as error:
        message = pickle.dumps(("error", f"{type(error).__name__}: {error}".splitlines()[0]))
    connection.send_bytes(message)
    connection.close()
    os._exit(0)  # without closing or flushing the parent's files a second time


def _receive(connection: Connection) -> tuple[str, Any]:
    try:
        kind, value = pickle.loads(connection.recv_bytes())
    except EOFError:
        return "killed", None
    return str(kind), value


def _ending(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
