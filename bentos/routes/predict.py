"""`POST /v1/predict`: answer one or many rows, each with its own subject and its own error."""

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from bentos.engine import Answer, Question, Served
from bentos.identity import Principal
from bentos.policy import require, viewer, with_subject
from bentos.problems import Problem, ProblemError, counted, problem, rejected_fields
from bentos.queue import Result
from bentos.state import Caller, Service, State
from hallmark.contracts import JsonObject
from hallmark.errors import RecordsError
from hallmark.prove.replay import DIGESTS
from hallmark.records import reader
from hallmark.records.rows import Asked, prediction_id, prediction_row
from hallmark.records.spool import Entry
from hallmark.watch.guard import Seen
from hallmark.watch.pairs import asked_by

JSON = "application/json"
Row = dict[str, Any]
IdempotencyKey = Annotated[
    str | None,
    Header(max_length=200, description="the same key gives the recorded answer again, and records nothing twice"),
]


async def predict(
    request: Request, caller: Caller, service: Service, idempotency_key: IdempotencyKey = None
) -> Response:
    """Answer requests: `{"rows": [request, …]}`, or one request alone, whose error is then that of the whole call."""
    arrived, clock = datetime.now(UTC), time.perf_counter()
    require(caller, "predict")
    body = request.state.json
    alone = not (isinstance(body, dict) and "rows" in body)
    rows = [body] if alone else rows_of(body, service.settings.max_rows)
    service.rates.count_rows(caller.client_id, len(rows))
    asked = [ask(service, caller, row, arrived, idempotency_key, place) for place, row in enumerate(rows)]
    if alone and isinstance(asked[0], Problem):
        raise ProblemError.of(asked[0])
    wanted = [item for item in asked if isinstance(item, Asked)]
    async with service.key_locks.of(caller.client_id, idempotency_key):
        known = await recorded(service, caller, wanted) if idempotency_key else {}
        fresh = [service.stopped.hold_back(item) for item in wanted if item.id not in known]
        timeout_s = service.settings.predict_timeout_s
        results = await service.queue.submit(questions(fresh), timeout_s) if fresh else []
        written = {**known, **keep(service, fresh, results, clock)}
    shadow(service, fresh)
    out = [item if isinstance(item, Problem) else written[item.id] for item in asked]
    if alone and isinstance(out[0], Problem):
        raise ProblemError.of(out[0])
    served = service.engine.served
    name = {"task": served.hallmark.task, "version": served.hallmark.version, "hallmark_sha256": served.digest}
    content = f'{{"model":{json.dumps(name)},"rows":[{",".join(map(write_row, out))}]}}'
    return Response(content, media_type=JSON, headers={"cache-control": "no-store"})


def questions(asked: Sequence[Asked]) -> list[Question]:
    """Ask what was asked of the version that its owner is answered by."""
    return [Question(item.request, item.owner_id) for item in asked]


def shadow(service: State, asked: Sequence[Asked]) -> None:
    """Let a challenger in shadow mode compute its answers behind all others; they are counted and not kept."""
    drawn = [item for item in asked if service.engine.beside.shadows(item.owner_id)]
    challenger = service.engine.challenger()
    if not drawn or challenger is None:
        return

    async def compute() -> None:
        wanted = [Question(item.request, digest=challenger.digest) for item in drawn]
        with suppress(ProblemError):  # there is too much to do: nobody waits for these
            results = await service.queue.submit(wanted, service.settings.predict_timeout_s, bulk=True)
            count_shadows(service, challenger, results)

    task = asyncio.create_task(compute())
    service.background.add(task)
    task.add_done_callback(service.background.discard)


def count_shadows(service: State, challenger: Served, results: Sequence[Result[Answer]]) -> None:
    """Count what a challenger has computed for nobody."""
    version = challenger.hallmark.version
    for result in results:
        if result.answer is None:
            status = "failed"
        elif result.answer.served is not challenger:
            continue  # it was stopped meanwhile
        else:
            status = str(getattr(result.answer.response, "status", "answered"))
            service.metrics.row_seconds.labels(version, "shadow").observe(result.answer.seconds)
        service.metrics.shadows.labels(version, status).inc()
        service.guard.add(challenger.digest, seen_of(result.answer))


def rows_of(body: Any, max_rows: int) -> list[Any]:
    """Return the rows of a body.

    Raises:
        ProblemError: 422; there are none, too many, or there is something else beside them.
    """
    rows = body["rows"]
    if not isinstance(rows, list) or len(body) > 1 or not rows:
        raise ProblemError(422, "invalid_request", 'Send {"rows": [request, …]} with at least one request.')
    if len(rows) > max_rows:
        raise ProblemError(422, "too_many_rows", f"{len(rows)} rows, at most {max_rows} are accepted at once.")
    return rows


def ask(service: State, caller: Principal, row: Any, arrived: datetime, key: str | None, place: int) -> Asked | Problem:
    """Validate a row and give it its subject and an id, or say why it is refused."""
    try:
        parsed = service.engine.served.request_type.model_validate(row)
        request, owner = with_subject(caller, parsed)
    except ValidationError as error:
        errors = error.errors(include_input=False, include_context=False, include_url=False)
        fields = rejected_fields(errors, service.names)
        return problem(422, "invalid_request", f"{counted(len(errors), 'field was', 'fields were')} rejected.", fields)
    except ProblemError as refused:
        return refused.problem
    return Asked(prediction_id(caller.client_id, key, place), caller.client_id, owner, arrived, request)


async def recorded(service: State, caller: Principal, asked: Sequence[Asked]) -> dict[str, Row | Problem]:
    """Return the rows that were answered before under the same idempotency key.

    Rows of a database that does not answer are computed anew; their records are then the second ones, and are dropped.
    """
    found: dict[str, Row | Problem] = {}
    for item in asked:
        row = service.records.recent("predictions", item.id)
        if row is None:
            try:
                row = await run_in_threadpool(reader.prediction, service.records.database, viewer(caller), item.id)
            except RecordsError:
                continue
        if row is None:
            continue
        if row["request"] not in (None, item.request.model_dump_json(), asked_by(item.request, None).model_dump_json()):
            detail = "This idempotency key was used for another request: take a new key."
            found[item.id] = problem(422, "idempotency_key_reused", detail)
        else:
            found[item.id] = dict(row)
    return found


def keep(
    service: State, asked: Sequence[Asked], results: Sequence[Result[Answer]], clock: float
) -> dict[str, Row | Problem]:
    """Record what was answered.

    Raises:
        ProblemError: 503; no answer is given that could not be recorded.
    """
    rows: dict[str, Row | Problem] = {}
    for item, result, question in zip(asked, results, questions(asked), strict=True):
        served = service.engine.version_for(question) if result.answer is None else result.answer.served
        service.guard.add(served.digest, seen_of(result.answer))
        if result.answer is None:
            service.metrics.failures.labels(served.hallmark.version, result.failure).inc()
            rows[item.id] = problem(500, "internal", "Computing this row failed; the failure is logged.")
        else:
            rows[item.id] = make_row(
                service, item, result.answer, result.batch_rows, 1000 * (time.perf_counter() - clock)
            )
    answered: list[Entry] = [("predictions", row) for row in rows.values() if isinstance(row, dict)]
    append(service, answered, "The answer could not be recorded, so it is not given: try again later.")
    return rows


def seen_of(answer: Answer | None) -> Seen:
    """Count an answer for the guard."""
    if answer is None or getattr(answer.response, "served_by", "") == "baseline":
        return Seen(rows=1, failed=1)
    return Seen(rows=1, fallbacks=int(bool(getattr(answer.response, "fallback", ""))))


def append(service: State, entries: list[Entry], refusal: str) -> None:
    """Append records.

    Raises:
        ProblemError: 503 with the `refusal`; there is no room for them.
    """
    try:
        service.records.append(entries)
    except RecordsError:
        raise ProblemError(503, "records_full", refusal, headers={"retry-after": "30"}) from None


def make_row(service: State, asked: Asked, answer: Answer, batch_rows: int, latency_ms: float) -> Row:
    """Make the record of an answer, and count it."""
    served = answer.served
    row = prediction_row(
        asked,
        answer.response,
        answer.evidence,
        served.hallmark,
        served.digest,
        service.machine_sha256,
        latency_ms,
        batch_rows,
        service.settings.records.keep_requests,
    )
    version = served.hallmark.version
    service.metrics.predictions.labels(version, row["status"], row["served_by"]).inc()
    service.metrics.row_seconds.labels(version, "answered").observe(answer.seconds)
    if getattr(answer.response, "fallback", ""):
        service.metrics.fallbacks.labels(version).inc()
    return row


def write_row(row: Row | Problem) -> str:
    """Write a row of the response; the answer is written byte for byte as it is recorded."""
    if isinstance(row, Problem):
        return f'{{"status":"problem","problem":{row.model_dump_json()}}}'
    head = json.dumps(
        {"status": "answered", "prediction_id": row["id"], "reason": row["reason"], "evidence": evidence_of(row)}
    )
    return f'{head[:-1]},"answer":{row["response"]}}}'


def evidence_of(row: Row) -> JsonObject:
    """Return the digests of a recorded answer."""
    return {name: row[name] for name in ("hallmark_sha256", *DIGESTS)}


def router(service: State) -> APIRouter:
    """Make the route, typed by the task."""
    routes, example = APIRouter(tags=["predictions"]), service.engine.served.example
    content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{service.bodies.predict_in.__name__}"}}
    if example is not None:
        content["example"] = {"rows": [json.loads(example.model_dump_json())]}
    body = {"required": True, "content": {JSON: content}}
    routes.post("/predict", response_model=service.bodies.predict_out, openapi_extra={"requestBody": body})(predict)
    return routes
