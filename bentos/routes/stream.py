"""`POST /v1/stream`: a generated text as server-sent events, for tasks that generate text."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from bentos.boundary import log_failure
from bentos.engine import Answer, Question
from bentos.policy import require
from bentos.problems import Problem, ProblemError, problem
from bentos.queue import Result
from bentos.routes.predict import JSON, ask, keep, write_row
from bentos.state import Caller, Service, State
from hallmark.abilities import Streaming


async def stream(request: Request, caller: Caller, service: Service) -> StreamingResponse:
    """Generate a text: events `piece`, then `done` with the recorded answer, or `problem`.

    A text is generated to its end, and recorded, although its client leaves.
    """
    require(caller, "predict")
    service.rates.count_rows(caller.client_id, 1)
    clock = time.perf_counter()
    asked = ask(service, caller, request.state.json, datetime.now(UTC), None, 0)
    if isinstance(asked, Problem):
        raise ProblemError.of(asked)
    served = service.engine.version_for(Question(asked.request, asked.owner_id))
    predictor = served.model.predictor
    assert isinstance(predictor, Streaming)  # the route exists for such tasks alone
    loop, pieces = asyncio.get_running_loop(), asyncio.Queue[str]()

    def generate() -> Any:
        """Generate in the model's thread, without waiting for a slow client; returns the response."""
        generator = predictor.stream(asked.request)
        while True:
            try:
                loop.call_soon_threadsafe(pieces.put_nowait, event("piece", {"text": next(generator)}))
            except StopIteration as end:
                return end.value

    async def finish() -> None:
        try:
            response = await service.queue.run(generate, service.settings.predict_timeout_s)
            result = Result(Answer(response, served.evidence(), served), 1)
            [row] = keep(service, [asked], [result], clock).values()
            last = event("done", json.loads(write_row(row)))
        except ProblemError as refused:
            last = event("problem", refused.problem.model_dump())
        except Exception as error:
            log_failure(error)
            last = event("problem", problem(500, "internal", "Generating failed.").model_dump())
        pieces.put_nowait(last)
        pieces.put_nowait("")

    async def events() -> AsyncIterator[str]:
        while piece := await pieces.get():
            yield piece

    task = asyncio.create_task(finish())
    service.background.add(task)
    task.add_done_callback(service.background.discard)
    return StreamingResponse(events(), media_type="text/event-stream", headers={"cache-control": "no-store"})


def event(name: str, data: Any) -> str:
    """Write a server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def router(service: State) -> APIRouter:
    """Make the route; it exists only for a task that generates text."""
    routes = APIRouter(tags=["predictions"])
    served = service.engine.served
    if isinstance(served.model.predictor, Streaming):
        content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{served.request_type.__name__}"}}
        if served.example is not None:
            content["example"] = json.loads(served.example.model_dump_json())
        body = {"required": True, "content": {JSON: content}}
        routes.post("/stream", response_class=StreamingResponse, openapi_extra={"requestBody": body})(stream)
    return routes
