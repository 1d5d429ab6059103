"""Jobs: `POST /v1/jobs` takes a file of requests; status, progress, result and cancellation by its id."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field

from bentos.jobs import ENDED, SUFFIXES, Job, Status
from bentos.policy import require
from bentos.problems import Problem, ProblemError, problem
from bentos.routes.predict import ask, keep, questions, write_row
from bentos.routes.stream import event
from bentos.state import Caller, Service, State
from hallmark.batch import fields_of
from hallmark.records.rows import NAMESPACE, Asked
from hallmark.tables import why_unreadable

JobId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
PROGRESS_S = 0.5  # between two events


class JobOut(BaseModel):
    """State of a job."""

    id: str
    status: Status
    created_at: datetime
    total: Annotated[int, Field(description="rows; 0 while it is not known")]
    done: Annotated[int, Field(description="rows that are answered")]
    problems: Annotated[int, Field(description="rows among them that have a problem")]
    detail: Annotated[str, Field(description="why it failed; empty otherwise")]


async def create(request: Request, response: Response, caller: Caller, service: Service) -> JobOut:
    """Take a file of requests, a row each: CSV (lists as JSON), Parquet or NDJSON, as the body itself."""
    require(caller, "predict")
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    job = await service.jobs.create(caller, kind, request.stream())
    response.status_code, response.headers["location"] = 202, f"/v1/jobs/{job.id}"
    return JobOut.model_validate(job.shown())


async def state(job_id: JobId, caller: Caller, service: Service) -> JobOut:
    """Return the state of a job."""
    require(caller, "predict")
    return JobOut.model_validate(service.jobs.find(caller, job_id).shown())


async def result(job_id: JobId, caller: Caller, service: Service) -> FileResponse:
    """Return the answers so far, a line each, as rows of `predict`."""
    require(caller, "predict")
    job = service.jobs.find(caller, job_id)
    path = service.jobs.result(job)
    if not path.is_file():
        ended = f"This job has ended ({job.status}) without an answer. {job.detail}".rstrip()
        raise ProblemError(404, "not_found", ended if job.status in ENDED else "This job has no answers yet.")
    return FileResponse(path, media_type="application/x-ndjson", headers={"cache-control": "no-store"})


async def progress(job_id: JobId, caller: Caller, service: Service) -> StreamingResponse:
    """Follow a job by server-sent events: `progress` when it has moved, `end` with its last state."""
    require(caller, "predict")
    job = service.jobs.find(caller, job_id)

    async def events() -> AsyncIterator[str]:
        seen: Job | None = None
        while seen is None or seen.status not in ENDED:
            try:
                now = await asyncio.to_thread(service.jobs.load, job.id)
            except FileNotFoundError:  # deleted meanwhile
                now = replace(seen or job, status="cancelled")
            if now != seen:
                seen = now
                yield event("end" if now.status in ENDED else "progress", now.shown())
            else:
                await asyncio.sleep(PROGRESS_S)

    return StreamingResponse(events(), media_type="text/event-stream", headers={"cache-control": "no-store"})


async def cancel(job_id: JobId, caller: Caller, service: Service) -> JobOut:
    """Cancel a job; one that has ended is deleted, with its input and its answers."""
    require(caller, "predict")
    job = service.jobs.find(caller, job_id)
    if job.status in ENDED:
        service.jobs.remove(job)
        return JobOut.model_validate(job.shown())
    return JobOut.model_validate(service.jobs.cancel(job).shown())


async def answer(service: State, job: Job, first: int, rows: list[dict[str, Any]]) -> tuple[list[str], int]:
    """Answer some rows of a job; returns lines of its result, and how many are problems."""
    arrived, clock, caller = datetime.now(UTC), perf_counter(), job.principal()
    asked: list[Asked | Problem] = []
    kind = service.engine.served.request_type
    for place, row in enumerate(rows, first):
        if unreadable := why_unreadable(row):
            asked.append(problem(422, "invalid_request", unreadable))
            continue
        item = ask(service, caller, fields_of(kind, row), arrived, None, place)
        if isinstance(item, Asked):
            item = Asked(
                str(uuid.uuid5(NAMESPACE, f"{job.id}/{place}")), item.client_id, item.owner_id, arrived, item.request
            )
        asked.append(item)
    wanted = [service.stopped.hold_back(item) for item in asked if isinstance(item, Asked)]
    timeout_s = service.settings.jobs.timeout_s
    results = await service.queue.submit(questions(wanted), timeout_s, bulk=True) if wanted else []
    written = keep(service, wanted, results, clock)
    out = [item if isinstance(item, Problem) else written[item.id] for item in asked]
    return [write_row(row) for row in out], sum(isinstance(row, Problem) for row in out)


def router(service: State) -> APIRouter:
    """Make the routes."""
    routes = APIRouter(prefix="/jobs", tags=["jobs"])
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in SUFFIXES}
    body = {"requestBody": {"required": True, "content": content}}
    routes.post("", status_code=202, openapi_extra=body)(create)
    routes.get("/{job_id}")(state)
    routes.get("/{job_id}/result", response_class=FileResponse)(result)
    routes.get("/{job_id}/events", response_class=StreamingResponse)(progress)
    routes.delete("/{job_id}")(cancel)
    return routes
