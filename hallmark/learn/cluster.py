"""Work on a Ray cluster: the same functions of the same items, so the same bytes; a worker that is lost is replaced.

`HALLMARK_ENGINE=ray` asks for it. `RAY_ADDRESS` names the cluster; without it, one begins on this machine and ends with
this process. One machine gains nothing by it: its own processes share memory and start in no time.
"""

import functools
import os
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

from hallmark import kernels
from hallmark.errors import ConfigError, HallmarkError

ENGINE = "HALLMARK_ENGINE"
"""Environment variable: `processes` of this machine (the default) or `ray`. Results do not depend on it."""
ENGINES = ("processes", "ray")
TRIES = 3  # that a lost worker's item gets on others
WAITING = 2  # items a worker

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[Item], Result]


def on_ray() -> bool:
    """Return whether work is spread over a Ray cluster.

    Raises:
        ConfigError: `HALLMARK_ENGINE` names no engine.
    """
    engine = os.environ.get(ENGINE, ENGINES[0])
    if engine not in ENGINES:
        raise ConfigError(f"{ENGINE}={engine!r} is no engine: known are {', '.join(ENGINES)}")
    return engine == "ray"


def places() -> int:
    """Return how many items workers hold at once: a CPU each, of those that are free now."""
    return WAITING * max(1, int(_started().available_resources().get("CPU", 1)))


def stream(make: Callable[[], Work[Item, Result]], items: Iterable[Item]) -> Iterator[Result]:
    """Apply a function to items on the cluster; yields results in the order of the items, as they are ready.

    Args:
        make: makes the function, once in every worker; what it opens must be readable there.
        items: read only as far as workers need them.

    Raises:
        HallmarkError: the function raised it, or an item was lost with its workers several times.
    """
    ray, count = _started(), places() // WAITING
    worker = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=TRIES)(_Worker)
    workers, source = [worker.remote(make) for _ in range(count)], iter(items)
    waiting = deque((worker, worker.run.remote(item)) for worker, item in zip(workers * WAITING, source, strict=False))
    try:
        while waiting:
            worker, reference = waiting.popleft()
            yield _result(ray, reference)
            waiting.extend((worker, worker.run.remote(item)) for item in islice(source, 1))
    finally:
        for worker in workers:
            ray.kill(worker)


def run_jobs(
    jobs: Mapping[str, Callable[[Any], Result]], report: Callable[[str, int, int, float], None]
) -> dict[str, Result]:
    """Run jobs on the cluster, as `hallmark.learn.parallel.run_parallel` does it with processes.

    `report` is called when a job has ended, with its last progress.

    Raises:
        HallmarkError: a job raised it, or was lost with its workers several times.
    """
    ray = _started()
    run, sent, references = ray.remote(num_cpus=1, max_retries=TRIES)(_run), dict[int, Any](), {}
    for name, job in jobs.items():
        function, *given = (job.func, job.args, job.keywords) if isinstance(job, functools.partial) else (job, (), {})
        if id(function) not in sent:  # jobs that share their data are sent with them once
            sent[id(function)] = ray.put(function)
        references[name] = run.remote(sent[id(function)], *given)
    results: dict[str, Result] = {}
    for name, reference in references.items():  # after an error, jobs that run end with this process: see ADR 28
        results[name], progress = _result(ray, reference)
        if progress:
            report(name, *progress)
    return results


class _Worker:
    """An actor."""

    def __init__(self, make: Callable[[], Work[Any, Any]]) -> None:
        self.work = make()

    def run(self, item: Any) -> Any:
        """Apply the function to an item."""
        return self.work(item)


def _run(
    function: Callable[..., Result], args: tuple[Any, ...], keywords: Mapping[str, Any]
) -> tuple[Result, tuple[Any, ...]]:
    last: tuple[Any, ...] = ()

    def report(*progress: Any) -> None:
        nonlocal last
        last = progress

    return function(*args, report, **keywords), last


def _result(ray: Any, reference: Any) -> Any:
    """Return a result, or raise what its function raised, without Ray's text around it."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise _plain(error.cause) from error
    except ray.exceptions.ActorDiedError as error:
        if (cause := getattr(error.cause, "cause", None)) is not None:  # its function could not be made
            raise _plain(cause) from error
        raise _lost(error) from error
    except ray.exceptions.RayError as error:
        raise _lost(error) from error


def _plain(cause: BaseException) -> HallmarkError:
    if isinstance(cause, HallmarkError):
        return cause
    return HallmarkError(f"a worker failed: {type(cause).__name__}: {cause}".splitlines()[0])


def _lost(error: BaseException) -> HallmarkError:
    text = " ".join(str(error).split())[:200]
    return HallmarkError(f"workers of the Ray cluster were lost {TRIES} times over one item: {text}")


@functools.cache
def _started() -> Any:
    """Connect to the cluster, or begin one on this machine, behind a token that only this process knows."""
    address = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] = "1"  # the first error is raised; the others are not news
    if address is None:  # a cluster that is there has its own way to let others in
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        import ray
    except ImportError:
        raise ConfigError(f"{ENGINE}=ray: Ray is not installed: pip install 'hallmark[ray]'") from None
    # Workers compute as this process does: the same kernels and code, and one thread each.
    variables = {**kernels.environment(), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    here: dict[str, Any] = {} if address else {"_node_ip_address": "127.0.0.1", "include_dashboard": False}
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": variables},
            **here,
        )
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
        text = " ".join(str(error).split())[:200]
        raise HallmarkError(f"Ray ({address or 'on this machine'}) does not answer: {text}") from error
    return ray
