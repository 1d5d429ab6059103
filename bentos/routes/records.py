"""Routes of what was recorded: one prediction, outcomes of predictions, everything about a subject."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool

from bentos.identity import Principal
from bentos.messages import FeedbackIn, FeedbackOut, OutcomesIn, OutcomesOut, PredictionId
from bentos.policy import forbidden, may_export, require, viewer
from bentos.problems import MAX_FIELDS, Field, ProblemError, counted
from bentos.routes.predict import append, evidence_of
from bentos.state import Caller, Service, State
from hallmark.contracts import Task
from hallmark.errors import RecordsError
from hallmark.outcomes import FEEDBACK, HELPFUL, UNHELPFUL, Outcome, OutcomeError, check, errors_of
from hallmark.records import audit, reader
from hallmark.records.rows import outcome_row
from hallmark.records.spool import Entry

UNAVAILABLE_S = "10"


async def find(service: State, caller: Principal, key: str) -> dict[str, Any] | None:
    """Return a prediction that the caller may see; None if there is none, or the caller may not.

    Raises:
        ProblemError: 503; the database does not answer, and this process did not give the answer itself.
    """
    seen = viewer(caller)
    if (recent := service.records.recent("predictions", key)) is not None:
        return dict(recent) if seen.sees(recent) else None
    row = await read(lambda: reader.prediction(service.records.database, seen, key))
    return None if row is None else dict(row)


async def find_or_404(service: State, caller: Principal, key: str) -> dict[str, Any]:
    """Return a prediction that the caller may see.

    Raises:
        ProblemError: 404; there is none, or the caller may not; 503; the database does not answer.
    """
    if (row := await find(service, caller, key)) is None:
        raise ProblemError(404, "not_found", "No prediction of this caller has this id.")
    return row


async def read(query: Any) -> Any:
    """Run a query outside the event loop.

    Raises:
        ProblemError: 503; the database does not answer.
    """
    try:
        return await run_in_threadpool(query)
    except RecordsError:
        detail = "The records cannot be read now; answers are given and kept meanwhile."
        raise ProblemError(503, "records_unavailable", detail, headers={"retry-after": UNAVAILABLE_S}) from None


async def prediction(prediction_id: Annotated[PredictionId, Path()], caller: Caller, service: Service) -> Response:
    """Return what was answered, from which inputs, by which version, and what really happened."""
    require(caller, "read")
    row = await find_or_404(service, caller, prediction_id)
    happened = await read(lambda: reader.outcomes_of(service.records.database, viewer(caller), prediction_id))
    model = {"task": row["task"], "version": row["model_version"], "hallmark_sha256": row["hallmark_sha256"]}
    head = {
        "prediction_id": row["id"],
        "asked_at": _iso(row["asked_at"]),
        "model": model,
        "evidence": evidence_of(row),
        "outcomes": [
            {
                "horizon": outcome["horizon"],
                "value": json.loads(outcome["value"]),
                "observed_at": _iso(outcome["observed_at"]),
                "recorded_at": _iso(outcome["recorded_at"]),
            }
            for outcome in happened
        ],
    }
    content = f'{json.dumps(head)[:-1]},"request":{row["request"] or "null"},"answer":{row["response"]}}}'
    return Response(content, media_type="application/json", headers={"cache-control": "no-store"})


async def outcomes(body: OutcomesIn, caller: Caller, service: Service) -> OutcomesOut:
    """Record what really happened after predictions that the caller may see."""
    require(caller, "outcomes")
    service.rates.count_rows(caller.client_id, len(body.outcomes))
    predicted = {key: await find(service, caller, key) for key in {o.prediction_id for o in body.outcomes}}
    if refused := await run_in_threadpool(_refused, service, body, predicted):
        detail = f"{counted(len(refused), 'outcome was', 'outcomes were')} refused; none was recorded."
        raise ProblemError(422, "invalid_request", detail, refused[:MAX_FIELDS])
    rows: dict[str, dict[str, Any]] = {}
    for outcome in body.outcomes:
        if (row := predicted[outcome.prediction_id]) is not None:
            made = outcome_row(
                row, caller.client_id, outcome.horizon, outcome.value, outcome.observed_at.astimezone(UTC)
            )
            rows.setdefault(made["id"], made)
    new = await _keep(service, rows, predicted)
    unknown = [outcome.prediction_id for outcome in body.outcomes if predicted[outcome.prediction_id] is None]
    already = len(body.outcomes) - len(unknown) - new
    return OutcomesOut(recorded=new, already_known=already, unknown=unknown)


async def feedback(body: FeedbackIn, caller: Caller, service: Service) -> FeedbackOut:
    """Record whether an answer that the caller may see has helped; of any task."""
    require(caller, "outcomes")
    service.rates.count_rows(caller.client_id, 1)
    row = await find_or_404(service, caller, body.prediction_id)
    value = HELPFUL if body.helpful else UNHELPFUL
    made = outcome_row(row, caller.client_id, FEEDBACK, value, datetime.now(UTC))
    return FeedbackOut(recorded=await _keep(service, {made["id"]: made}, {row["id"]: row}) > 0)


async def _keep(
    service: State, rows: Mapping[str, dict[str, Any]], predicted: Mapping[str, Mapping[str, Any] | None]
) -> int:
    """Record those outcomes that are new, and add their errors to the metrics; returns how many are."""
    known = await _known(service, list(rows))
    new: list[Entry] = [("outcomes", row) for key, row in rows.items() if key not in known]
    append(service, new, "What happened could not be recorded: send it again later.")
    await run_in_threadpool(_count_errors, service, [row for _, row in new], predicted)
    return len(new)


def _refused(service: State, body: OutcomesIn, predicted: Mapping[str, Mapping[str, Any] | None]) -> list[Field]:
    """Describe the outcomes that cannot be those of their answers."""
    task, now, found = service.engine.served.model.task, datetime.now(UTC), list[Field]()
    answers: dict[str, BaseModel] = {}
    for place, sent in enumerate(body.outcomes):
        row = predicted[sent.prediction_id]
        if row is None:
            continue
        try:
            if row["task"] != task.name:
                raise OutcomeError("prediction_id", "is a prediction of another task than this service's")
            if sent.prediction_id not in answers:
                answers[sent.prediction_id] = _answer(task, row)
            outcome = Outcome(sent.horizon, sent.value, sent.observed_at)
            check(task, answers[sent.prediction_id], outcome, _utc(row["asked_at"]), now)
        except OutcomeError as error:
            found.append(Field(name=f"outcomes.{place}.{error.field}", problem=str(error)))
    return found


def _count_errors(
    service: State, happened: list[dict[str, Any]], predicted: Mapping[str, Mapping[str, Any] | None]
) -> None:
    """Add the errors of new outcomes to the metrics of the version that had answered."""
    task = service.engine.served.model.task
    for outcome in happened:
        row = predicted[outcome["prediction_id"]]
        if row is not None:
            horizon, value = outcome["horizon"], json.loads(outcome["value"])
            answer = None if horizon == FEEDBACK else _answer(task, row)
            for name, error in errors_of(task, answer, horizon, value).items():
                service.metrics.outcome_loss.labels(row["model_version"], name).observe(error)


def _answer(task: Task, row: Mapping[str, Any]) -> BaseModel:
    try:
        return task.response_type().model_validate_json(row["response"])
    except ValidationError:
        raise OutcomeError("prediction_id", "is an answer in the form of an earlier release") from None


async def _known(service: State, keys: list[str]) -> set[str]:
    """Return the ids of outcomes that are recorded already; those of this process alone while no database answers."""
    recent = {key for key in keys if service.records.recent("outcomes", key) is not None}
    try:
        return recent | await run_in_threadpool(reader.known_outcomes, service.records.database, keys)
    except RecordsError:
        return recent


async def export(
    subject_id: Annotated[str, Path(max_length=200)], caller: Caller, service: Service
) -> StreamingResponse:
    """Return everything that is recorded about a subject, one JSON object a line: `{"table": …, "row": {…}}`."""
    require(caller, "export")
    if not may_export(caller, subject_id):
        raise forbidden("This token may not export this subject.")
    database = service.records.database
    await run_in_threadpool(service.records.flush, 5.0)
    anchor = service.settings.records.audit_heads
    await read(lambda: audit.append_about(database, caller.client_id, "subject_exported", subject_id, anchor=anchor))

    def lines() -> Iterator[str]:
        for table, row in reader.export(database, viewer(caller), subject_id):
            yield json.dumps({"table": table, "row": row}, default=_iso, ensure_ascii=False) + "\n"

    headers = {"cache-control": "no-store", "content-disposition": 'attachment; filename="export.ndjson"'}
    return StreamingResponse(lines(), media_type="application/x-ndjson", headers=headers)


def router(service: State) -> APIRouter:
    """Make the routes, typed by the task."""
    routes = APIRouter(tags=["records"])
    routes.get("/predictions/{prediction_id}", response_model=service.bodies.prediction)(prediction)
    routes.post("/outcomes")(outcomes)
    routes.post("/feedback")(feedback)
    routes.get("/subjects/{subject_id}", response_class=StreamingResponse)(export)
    return routes


def _utc(time: Any) -> datetime:
    moment = time if isinstance(time, datetime) else datetime.fromisoformat(str(time))
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _iso(time: Any) -> str:
    return _utc(time).isoformat()
