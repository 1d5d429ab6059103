"""`create_app(settings)`: the HTTP application around one bundle, typed by its task.

`bentos/service.py` runs it in BentoML; `uvicorn --factory bentos.app:create_app` would run it as well.
"""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bentos.boundary import Boundary
from bentos.engine import Engine, machine
from bentos.identity import Identity
from bentos.jobs import JobStore, run_jobs
from bentos.messages import Bodies
from bentos.metrics import Metrics
from bentos.problems import MEDIA_TYPE, Problem, install_error_handlers, property_names
from bentos.queue import PredictionQueue
from bentos.rates import Rates
from bentos.routes import jobs, operation, page, predict, records, stream
from bentos.settings import Settings, read_settings
from bentos.state import DOCUMENTED, State, identify
from bentos.traces import Traces, make_traces
from bentos.witness import Witness
from hallmark.errors import RecordsError
from hallmark.records import reader
from hallmark.records.database import Database
from hallmark.records.rows import machine_entry, model_version_entry
from hallmark.records.writer import RecordWriter

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {MEDIA_TYPE: {}}}
    for status in (400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503, 504)
}
A_DAY_S = 86_400.0


def create_app(settings: Settings | None = None) -> FastAPI:
    """Make the application of one bundle.

    Args:
        settings: of the service; None reads them from the environment.

    Raises:
        BundleError: the bundle is missing or corrupt, or a gate refused it.
        ConfigError: a setting is invalid.
    """
    settings = settings or read_settings()
    identity, rates, metrics = Identity(settings.auth), Rates(settings.rate), Metrics()
    database = Database(settings.records.url.get_secret_value())
    engine = Engine(settings.served, settings.public_key)
    task = engine.served.model.task
    digest, described = machine_entry(machine())
    hallmark = engine.served.hallmark
    resource = {"service.name": f"hallmark-{hallmark.task}", "service.version": hallmark.version}
    traces = make_traces(settings.traces, resource)

    def watch(rows: int, seconds: float) -> None:
        metrics.batch(rows, seconds)
        now = time.time_ns()
        traces.span("batch", now - int(seconds * 1e9), now, {"rows": rows})

    state = State(
        settings=settings,
        engine=engine,
        queue=PredictionQueue(engine.answer, settings.queue.max_rows, settings.queue.max_batch, watch),
        records=RecordWriter(database, settings.records.spool),
        jobs=JobStore(
            settings.jobs.directory, settings.jobs.max_waiting, settings.jobs.max_bytes, settings.read_timeout_s
        ),
        identity=identity,
        rates=rates,
        metrics=metrics,
        bodies=Bodies(task.request_type(), task.response_type(), settings.max_rows),
        names=property_names(task.request_type()),
        machine_sha256=digest,
    )
    witness = Witness(engine, state.records, metrics, settings.witness.per_hour, {digest: described[1]["description"]})

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state.records.append([described, model_version_entry(engine.served.hallmark, engine.served.digest)])
        state.queue.start()
        background = (
            witness.run(),
            keep_current(state),
            forget_requests(state),
            run_jobs(state.jobs, partial(jobs.answer, state)),
        )
        tasks = [asyncio.create_task(run) for run in background]
        tune_garbage_collector()
        yield
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if state.background:
            await asyncio.wait(state.background)
        await state.queue.close()
        await asyncio.to_thread(state.records.close)
        await asyncio.to_thread(traces.close)
        database.close()

    app = FastAPI(
        title=f"hallmark {hallmark.task}",
        version=hallmark.version,
        description=f"{task.purpose}\n\nEvery answer names its model and can be computed again.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
    )
    app.state.service, app.state.witness = state, witness
    install_error_handlers(app)
    app.include_router(operation.PUBLIC)
    app.include_router(page.ROUTER)
    protected = [Depends(identify), *DOCUMENTED]
    app.include_router(operation.PROTECTED, dependencies=protected, responses=PROBLEMS)
    for routes in (predict, stream, jobs, records):
        app.include_router(routes.router(state), prefix="/v1", dependencies=protected, responses=PROBLEMS)
    app.openapi = lambda: _openapi(app, state)  # type: ignore[method-assign]
    app.add_middleware(Measured, metrics=metrics, traces=traces)
    app.add_middleware(
        Boundary,
        max_body_bytes=settings.max_body_bytes,
        read_timeout_s=settings.read_timeout_s,
        streamed=frozenset({"/v1/jobs"}),
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type", "idempotency-key", "x-api-key"],
        )
    return app


async def keep_current(state: State) -> None:
    """Take a new bundle as soon as it lies in the directory; running and waiting requests are answered."""
    while True:
        await asyncio.sleep(state.settings.reload_s)
        if await asyncio.to_thread(state.engine.reload):
            served = state.engine.served
            with suppress(RecordsError):
                state.records.append([model_version_entry(served.hallmark, served.digest)])


async def forget_requests(state: State) -> None:
    """Remove requests, and jobs that have ended, whose retention has passed, once a day."""
    while True:
        before = datetime.now(UTC) - timedelta(days=state.settings.records.request_days)
        with suppress(RecordsError):
            await asyncio.to_thread(reader.forget_requests, state.records.database, before)
            await asyncio.to_thread(state.jobs.remove_before, before)
        await asyncio.sleep(A_DAY_S)


def tune_garbage_collector() -> None:
    """Leave what is loaded out of garbage collection, and collect less often.

    The libraries hold half a million objects; walking them anew after every few answers takes a quarter of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


class Measured:
    """Count requests and their time by route; the path of a request is no label, for it may hold an id."""

    def __init__(self, app: ASGIApp, metrics: Metrics, traces: Traces) -> None:
        self.app, self.metrics, self.traces = app, metrics, traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            route = _template(scope)
            self.metrics.requests.labels(route, str(status)).inc()
            seconds, now = time.perf_counter() - start, time.time_ns()
            self.metrics.latency.labels(route).observe(seconds)
            attributes = {
                "http.route": route,
                "http.request.method": scope["method"],
                "http.response.status_code": status,
            }
            self.traces.span(f"{scope['method']} {route}", now - int(seconds * 1e9), now, attributes)


def _template(scope: Scope) -> str:
    """Return the path of a request with the names of its parameters in place of their values."""
    if scope.get("route") is None:
        return "none"
    path = str(scope["path"])
    for name, value in scope.get("path_params", {}).items():
        path = path.replace(f"/{value}", f"/{{{name}}}", 1)
    return path


def _openapi(app: FastAPI, state: State) -> dict[str, Any]:
    """Describe the service; the body of `predict`, which is validated row by row, is added by hand."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        template = "#/components/schemas/{model}"
        models: Any = [(state.bodies.predict_in, "validation"), (state.engine.served.request_type, "validation")]
        _, added = models_json_schema(models, ref_template=template)
        document["components"]["schemas"] |= added.get("$defs", {})
        app.openapi_schema = document
    return app.openapi_schema
