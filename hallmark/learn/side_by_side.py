"""Parallel map on CPUs by forked processes, with results identical to a serial run.

The processes are forked, so that they share the parent's data without a copy; each computes on its own threads.
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

Report = Callable[[int, int, float], None]
"""Called with step, steps and the latest loss on valid."""

Item = TypeVar("Item")
Result = TypeVar("Result")

PR_SET_PDEATHSIG = 1  # prctl(2)


def side_by_side(
    jobs: Mapping[str, Callable[[Report], Result]], at_once: int, report: Callable[[str, int, int, float], None]
) -> dict[str, Result]:
    """Run jobs, some at a time.

    Args:
        jobs: name → what to run; it is given a callback for its progress.
        at_once: how many run at the same time; 1 runs them one after the other in this process, and so does a machine
            with a GPU: forked processes cannot share its context.
        report: called with a job's name and its progress; an exception that it raises ends all jobs.

    Returns:
        Name → what its job returned, in the order of `jobs`.

    Raises:
        HallmarkError: a process was killed, or failed with another error; what a job itself raised as a
            `HallmarkError` is raised as it is.
    """
    if at_once == 1 or len(jobs) == 1 or torch.cuda.is_available():
        return {name: job(_named(report, name)) for name, job in jobs.items()}
    context = get_context("fork")
    waiting, found = list(jobs), dict[str, Result]()
    running: dict[Connection, tuple[str, Any]] = {}
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                name = waiting.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(jobs[name], theirs), name=name)
                process.start()
                theirs.close()
                running[ours] = (name, process)
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
                    found[name] = value
                elif isinstance(value, HallmarkError):
                    raise value
                elif kind == "error":
                    raise HallmarkError(f"fitting {name!r} failed: {value}")
                else:
                    raise HallmarkError(
                        f"the process that fits {name!r} ended with {_ending(process.exitcode)}: if memory ran out, "
                        "set side_by_side=1 (train, personalise.lora)"
                    )
    finally:
        for _, process in running.values():
            process.kill()
            process.join()
    return {name: found[name] for name in jobs}


def shared_out(
    items: Sequence[Item], work: Callable[[Item], Result], at_once: int, progress: Callable[[int, int], None]
) -> list[Result]:
    """Work on items in forked processes, every `at_once`-th in the same one.

    Args:
        items: what to work on; each independent of the others.
        work: on one of them.
        at_once: processes, see `side_by_side`.
        progress: called with how many items are done, and of how many.

    Returns:
        What `work` returned, in the order of `items`.
    """
    count = max(1, min(at_once, len(items)))

    def share(place: int, report: Report) -> list[Result]:
        found: list[Result] = []
        for item in items[place::count]:
            report(len(found), len(items), math.nan)
            found.append(work(item))
        return found

    jobs = {str(place): partial(share, place) for place in range(count)}
    parts = list(side_by_side(jobs, count, summed(progress, len(items))).values())
    return [parts[i % count][i // count] for i in range(len(items))]


def summed(progress: Callable[[int, int], None], total: int) -> Callable[[str, int, int, float], None]:
    """Return a report for `side_by_side` that adds up what its jobs have done, of `total` in all."""
    done: dict[str, int] = {}

    def report(name: str, finished: int, _: int, __: float) -> None:
        done[name] = finished
        progress(sum(done.values()), total)

    return report


def _named(report: Callable[[str, int, int, float], None], name: str) -> Report:
    return lambda step, steps, loss: report(name, step, steps, loss)


def _work(job: Callable[[Report], Any], connection: Connection) -> None:
    """Run one job in a forked process and send what it reports, returns or raises."""
    with suppress(AttributeError, OSError):  # Linux: die with the parent, however that ends
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    try:
        result = job(lambda *progress: connection.send_bytes(pickle.dumps(("progress", progress))))
        message = pickle.dumps(("result", result))
    except HallmarkError as error:
        message = pickle.dumps(("error", error))
    except BaseException as error:
        message = pickle.dumps(("error", f"{type(error).__name__}: {error}".splitlines()[0]))
    connection.send_bytes(message)
    connection.close()
    os._exit(0)  # nothing of the parent's is to be closed or flushed twice


def _receive(connection: Connection) -> tuple[str, Any]:
    try:
        kind, value = pickle.loads(connection.recv_bytes())
    except EOFError:
        return "killed", None
    return str(kind), value


def _ending(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
