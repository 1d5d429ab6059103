"""One BentoML service for every task: `POST /predict` (and `/stream` for texts), typed by the bundle's task.

A Bento serves the bundle inside it; in the source tree, `HALLMARK_BUNDLE` (default `bundle`) names the bundle.
Every file is checked against the hallmark before a worker loads it.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import bentoml
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse

from bentos import connection
from bentos.boundary import Boundary, Error, install_error_handlers
from bentos.settings import read_settings
from hallmark import kernels
from hallmark.contracts import Streaming
from hallmark.model import Model

SETTINGS = read_settings()
BUNDLE, PREDICT_TIMEOUT_S = SETTINGS.bundle, SETTINGS.predict_timeout_s
MODEL = Model(BUNDLE)
HALLMARK, DIGEST, TASK = MODEL.hallmark, MODEL.digest, MODEL.task
app = FastAPI(title=f"hallmark {HALLMARK.task}", version=HALLMARK.version, docs_url=None, redoc_url=None)
install_error_handlers(app, TASK.request_type())
connection.install(SETTINGS.read_timeout_s)


@bentoml.service(
    name="hallmark",
    workers=1,
    traffic={"timeout": 2 * PREDICT_TIMEOUT_S},
    logging={"access": {"enabled": False}},  # it would print the paths of requests
    metrics={"enabled": False},  # without authentication, and with the paths of requests as labels
    envs=[{"name": name, "value": value} for name, value in kernels.environment().items()],
)
@bentoml.asgi_app(app, path="/")
class Service:
    """A worker with one predictor and one thread for predictions."""

    def __init__(self) -> None:
        from hallmark.learn.trainer import quiet, seed_everything

        quiet()
        seed_everything(0, 1)
        self.predictor = MODEL.predictor
        self.executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="predict")
        app.state.service = self

    async def __is_ready__(self) -> bool:
        """Return whether the model is loaded."""
        return self.predictor is not None

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        """Wait until the running prediction has ended."""
        self.executor.shutdown(wait=True)


async def predict(request: Any) -> Any:
    """Answer one request."""
    service: Any = app.state.service
    work = asyncio.get_running_loop().run_in_executor(service.executor, service.predictor.predict, [request])
    try:
        [response] = await asyncio.wait_for(work, PREDICT_TIMEOUT_S)
    except TimeoutError:
        raise HTTPException(504) from None
    return response


async def stream(request: Any) -> StreamingResponse:
    """Stream a text while it is generated, as UTF-8; the headers name the model. 404 if the task generates no text."""
    service: Any = app.state.service
    if not isinstance(service.predictor, Streaming):
        raise HTTPException(404)
    loop, pieces = asyncio.get_running_loop(), asyncio.Queue[str | BaseException | None]()

    def make() -> None:
        """Generate the text in the prediction thread, without waiting for a slow client: a text is short."""
        end: BaseException | None = None
        try:
            for piece in service.predictor.stream(request):
                loop.call_soon_threadsafe(pieces.put_nowait, piece)
        except Exception as error:
            end = error
        loop.call_soon_threadsafe(pieces.put_nowait, end)

    async def given() -> AsyncIterator[str]:
        while isinstance(piece := await asyncio.wait_for(pieces.get(), PREDICT_TIMEOUT_S), str):
            yield piece
        if piece is not None:
            raise piece

    service.executor.submit(make)
    headers = {"cache-control": "no-store", "x-hallmark-sha256": DIGEST, "x-model-version": HALLMARK.version}
    return StreamingResponse(given(), media_type="text/plain; charset=utf-8", headers=headers)


async def hallmark() -> dict[str, Any]:
    """Return version, provenance, metrics and verdicts of the served model."""
    shown = ("task", "version", "reason", "provenance", "digests", "metrics", "verdicts")
    return {"hallmark_sha256": DIGEST, **{name: getattr(HALLMARK, name) for name in shown}}


predict.__annotations__ = {"request": TASK.request_type(), "return": TASK.response_type()}
FAILURES = (400, 408, 413, 415, 422, 500, 504)
ERRORS: dict[int | str, dict[str, Any]] = {status: {"model": Error} for status in FAILURES}
app.post("/predict", response_model=TASK.response_type(), responses=ERRORS)(predict)
stream.__annotations__ = {"request": TASK.request_type(), "return": StreamingResponse}
app.post("/stream", response_class=StreamingResponse, responses={404: {"model": Error}, **ERRORS})(stream)
app.get("/hallmark")(hallmark)
cast("bentoml.Service[Any]", Service).add_asgi_middleware(
    Boundary,
    allowed_paths=frozenset({"/predict", "/stream", "/hallmark", "/openapi.json", "/livez", "/readyz", "/healthz"}),
    max_body_bytes=SETTINGS.max_body_bytes,
    read_timeout_s=SETTINGS.read_timeout_s,
)
