"""`create_app(settings)`: the HTTP application around one bundle, typed by its task.

`bentos/service.py` runs it in BentoML; `uvicorn --factory bentos.app:create_app` would run it as well.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bentos.boundary import Boundary
from bentos.lifecycle import make_state, running
from bentos.metrics import Metrics
from bentos.problems import MEDIA_TYPE, Problem, install_error_handlers
from bentos.routes import insights, jobs, operation, page, predict, provenance, records, stream, training
from bentos.settings import Settings, read_settings
from bentos.state import DOCUMENTED, State, identify
from bentos.traces import Traces

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {MEDIA_TYPE: {}}}
    for status in (400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503, 504)
}
FILES = frozenset({"/v1/jobs"})
"""Paths whose bodies are files, which their routes read piece by piece."""
CORS_HEADERS = ["authorization", "content-type", "idempotency-key", "x-api-key"]


def create_app(settings: Settings | None = None) -> FastAPI:
    """Make the application of one bundle.

    Args:
        settings: of the service; None reads them from the environment.

    Raises:
        BundleError: the bundle is missing or corrupt, or a gate refused it.
        ConfigError: a setting is invalid.
    """
    settings = settings or read_settings()
    state = make_state(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running(state):
            yield

    hallmark, task = state.engine.served.hallmark, state.engine.served.model.task
    app = FastAPI(
        title=f"hallmark {hallmark.task}",
        version=hallmark.version,
        description=f"{task.purpose}\n\nEvery answer names its model and can be computed again.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
    )
    app.state.service = state
    install_error_handlers(app)
    _add_routes(app, state)
    app.openapi = lambda: _openapi(app, state)  # type: ignore[method-assign]
    app.add_middleware(Measured, metrics=state.metrics, traces=state.traces)
    app.add_middleware(Boundary, settings.max_body_bytes, settings.read_timeout_s, FILES)
    if origins := settings.cors_origins:
        methods = ["GET", "POST", "DELETE"]
        app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=methods, allow_headers=CORS_HEADERS)
    return app


def _add_routes(app: FastAPI, state: State) -> None:
    """Add the routes: all but a few ask who calls."""
    protected = [Depends(identify), *DOCUMENTED]
    for routes in (predict, stream, jobs, records):
        app.include_router(routes.router(state), prefix="/v1", dependencies=protected, responses=PROBLEMS)
    for others in (provenance.router(), training.router(), insights.router()):
        app.include_router(others, prefix="/v1", dependencies=protected, responses=PROBLEMS)
    app.include_router(operation.PROTECTED, dependencies=protected, responses=PROBLEMS)
    app.include_router(operation.PUBLIC)
    app.include_router(page.ROUTER)


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
            self._note(scope, status, time.perf_counter() - start)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route, method, now = _template(scope), scope["method"], time.time_ns()
        self.metrics.requests.labels(route, str(status)).inc()
        self.metrics.latency.labels(route).observe(seconds)
        attributes = {"http.route": route, "http.request.method": method, "http.response.status_code": status}
        self.traces.span(f"{method} {route}", now - int(seconds * 1e9), now, attributes)


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
