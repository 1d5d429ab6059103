"""The peers of the service in measurements: bare FastAPI with the same queue, and BentoML's own `batchable`.

Both answer `POST /predict` with one request, typed by the task, from the bundle in `HALLMARK_BUNDLE`; neither knows
identity, records, limits or evidence in its answers. `uvicorn benchmarks.service_peers:fastapi --factory` and
`bentoml serve benchmarks.service_peers:Batchable` run them.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import bentoml
from fastapi import FastAPI, Response

from bentos.engine import load
from bentos.queue import PredictionQueue
from hallmark import kernels


async def ready() -> dict[str, str]:
    """Tell that the model is loaded."""
    return {}


def fastapi() -> FastAPI:
    """Make the bare application."""
    served = load(Path(os.environ["HALLMARK_BUNDLE"]))
    queue: PredictionQueue[Any] = PredictionQueue(served.answer, 1024, 64)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        queue.start()
        yield
        await queue.close()

    app = FastAPI(lifespan=lifespan)

    async def predict(request: Any) -> Response:
        [result] = await queue.submit([request], 30.0)
        return Response(result.answer[0].model_dump_json(), media_type="application/json")

    predict.__annotations__ = {"request": served.request_type, "return": Response}
    app.post("/predict")(predict)
    app.get("/readyz")(ready)
    return app


@bentoml.service(
    name="peer",
    workers=1,
    envs=[{"name": name, "value": value} for name, value in kernels.environment().items()],
)
class Batchable:
    """BentoML's own batches; requests travel as plain mappings, as its typed batches would need the class at import."""

    def __init__(self) -> None:
        self.served = load(Path(os.environ["HALLMARK_BUNDLE"]))

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=10_000, route="/predict")
    def predict(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answer a batch."""
        parsed = [self.served.request_type.model_validate(request) for request in requests]
        return [response.model_dump(mode="json") for response, _ in self.served.answer(parsed)]
