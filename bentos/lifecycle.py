"""From settings to a running service, and what it does in the background until it stops."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from bentos.boundary import log_failure
from bentos.engine import Engine, check_device
from bentos.guard import Guard
from bentos.identity import Identity
from bentos.jobs import JobStore, check_directory, run_jobs
from bentos.messages import Bodies
from bentos.metrics import Metrics
from bentos.problems import property_names
from bentos.queue import PredictionQueue
from bentos.rates import Rates
from bentos.routes import jobs
from bentos.settings import Settings
from bentos.state import State
from bentos.stopped import StoppedAdapters
from bentos.traces import make_traces
from bentos.witness import Witness
from hallmark.errors import RecordsError
from hallmark.forget.rows import delete_before
from hallmark.prove.provenance import describe_machine
from hallmark.records import reader
from hallmark.records.database import Database
from hallmark.records.rows import machine_entry, model_version_entry
from hallmark.records.writer import RecordWriter

A_DAY_S = 86_400.0
STOPPED_S = 5.0  # between two looks at which adapters are stopped
PAUSE_S = 5.0  # before work in the background that failed begins again


def make_state(settings: Settings) -> State:
    """Make the parts of a service; nothing of it runs yet but the writer of records.

    Raises:
        BundleError: the bundle is missing or corrupt, or a gate refused it.
        ConfigError: a setting is invalid.
    """
    identity, rates, metrics = Identity(settings.auth), Rates(settings.rate), Metrics()
    check_directory(settings.jobs.directory)
    check_device(settings.device)
    database = Database(settings.records.url.get_secret_value())
    engine = Engine(settings.served, settings.public_key, settings.device)
    hallmark, task = engine.served.hallmark, engine.served.model.task
    resource = {"service.name": f"hallmark-{hallmark.task}", "service.version": hallmark.version}
    traces = make_traces(settings.traces, resource)

    def watch(rows: int, seconds: float) -> None:
        metrics.batch(rows, seconds)
        now = time.time_ns()
        traces.span("batch", now - int(seconds * 1e9), now, {"rows": rows})

    digest, described = machine_entry(describe_machine(settings.device))
    records = RecordWriter(database, settings.records.spool)
    records.append([described])
    waiting = settings.jobs
    guarding = Guard(engine, settings.guard, settings.records.url.get_secret_value(), settings.records.audit_heads)
    described_here = {digest: described[1]["description"]}
    return State(
        settings=settings,
        engine=engine,
        queue=PredictionQueue(engine.answer, settings.queue.max_rows, settings.queue.max_batch, watch),
        records=records,
        witness=Witness(engine, records, metrics, settings.witness.per_hour, described_here, guarding),
        guard=guarding,
        stopped=StoppedAdapters(engine, database),
        jobs=JobStore(waiting.directory, waiting.max_waiting, waiting.max_bytes, settings.read_timeout_s),
        identity=identity,
        rates=rates,
        metrics=metrics,
        traces=traces,
        bodies=Bodies(task.request_type(), task.response_type(), settings.max_rows),
        names=property_names(task.request_type()),
        machine_sha256=digest,
    )


@asynccontextmanager
async def running(state: State) -> AsyncIterator[None]:
    """Run a service; at the end, what was let in is answered and its records are written."""
    note_versions(state)
    state.queue.start()
    background: list[Callable[[], Coroutine[Any, Any, None]]] = [
        state.witness.run,
        partial(keep_current, state),
        partial(guard, state),
        partial(keep_stopped, state),
        partial(forget_old, state),
        partial(run_jobs, state.jobs, partial(jobs.answer, state)),
    ]
    tasks = [asyncio.create_task(lasting(work)) for work in background]
    tune_garbage_collector()
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if state.background:
        await asyncio.wait(state.background)
    await state.queue.close()
    await asyncio.to_thread(state.records.close)
    await asyncio.to_thread(state.traces.close)
    state.records.database.close()


async def lasting(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do work that has no end; if it fails, log where, and begin again after a pause."""
    while True:
        try:
            await work()
            return
        except Exception as error:
            log_failure(error)
            await asyncio.sleep(PAUSE_S)


async def keep_current(state: State) -> None:
    """Take a new bundle as soon as it lies in the directory; running and waiting requests are answered."""
    while True:
        await asyncio.sleep(state.settings.reload_s)
        changed = await asyncio.to_thread(state.engine.reload)
        if await asyncio.to_thread(state.engine.reload_beside) or changed:
            note_versions(state)


async def guard(state: State) -> None:
    """Move the pointer back as soon as the version that answers turns out to be broken; `keep_current` follows it."""
    while True:
        await asyncio.sleep(state.settings.reload_s)
        await asyncio.to_thread(state.guard.check)


async def keep_stopped(state: State) -> None:
    """Read which adapters are stopped and who is erased; at once after another version was taken."""
    while True:
        with suppress(RecordsError):
            await asyncio.to_thread(state.stopped.read)
            await asyncio.to_thread(state.records.forget_erased)
        until = time.monotonic() + STOPPED_S
        while time.monotonic() < until and state.stopped.known:
            await asyncio.sleep(state.settings.reload_s)
        if not state.stopped.known:
            await asyncio.sleep(state.settings.reload_s)


def note_versions(state: State) -> None:
    """Record which bundles serve; those that have served before are known already."""
    with suppress(RecordsError):
        state.records.append([model_version_entry(v.hallmark, v.digest) for v in state.engine.versions])


async def forget_old(state: State) -> None:
    """Remove requests, answers, and jobs that have ended, whose retention has passed, once a day."""
    settings, database = state.settings.records, state.records.database
    while True:
        before = datetime.now(UTC) - timedelta(days=settings.request_days)
        with suppress(RecordsError):
            await asyncio.to_thread(reader.forget_requests, database, before)
            if settings.days is not None:
                await asyncio.to_thread(delete_before, database, datetime.now(UTC) - timedelta(days=settings.days))
        await asyncio.to_thread(state.jobs.remove_before, before)
        await asyncio.sleep(A_DAY_S)


def tune_garbage_collector() -> None:
    """Leave what is loaded out of garbage collection, and collect less often.

    The libraries hold half a million objects; walking them anew after every few answers takes a quarter of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
