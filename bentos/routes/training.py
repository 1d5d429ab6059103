"""Routes of training jobs: ask for a subject's adapter to be fitted again, and read what was decided about it, and why.

The service trains nothing: the next `make retrain` reads the requests, and writes its decisions beside them.
"""

import uuid
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from bentos.identity import Principal, is_id
from bentos.messages import PredictionId, TrainingJobIn, TrainingJobOut, TrainingJobsOut
from bentos.policy import forbidden, require, viewer
from bentos.problems import ProblemError
from bentos.routes.predict import append
from bentos.routes.records import read
from bentos.state import Caller, Service, State
from hallmark.abilities import Refreshing
from hallmark.records import reader
from hallmark.records.rows import REQUESTED, training_row

MOST = 100


async def create(body: TrainingJobIn, caller: Caller, service: Service, response: Response) -> TrainingJobOut:
    """Ask for an adapter to be fitted again; a request that waits already is returned instead of a second one."""
    require(caller, "train")
    subject = _subject(caller, body.subject_id)
    model = service.engine.served.model
    if not isinstance(model.learner, Refreshing):
        detail = f"{model.hallmark.task} has no adapters that are fitted again without training its base model."
        raise ProblemError(422, "not_personal", detail)
    service.rates.count_rows(caller.client_id, 1)
    try:
        known = await _jobs(service, caller, subject)
    except ProblemError:  # the database does not answer: a second request does no harm
        known = _recent(service, caller, subject)
    waiting = [job for job in known if job["task"] == model.hallmark.task][:1]
    if waiting and waiting[0]["status"] == REQUESTED:
        return _shown(waiting[0])
    row = training_row(
        str(uuid.uuid4()), subject, caller.client_id, model.hallmark.task, REQUESTED, "asked for", datetime.now(UTC)
    )
    append(service, [("training_jobs", row)], "The request could not be recorded: send it again later.")
    response.status_code, response.headers["location"] = 202, f"/v1/training-jobs/{row['id']}"
    return _shown(row)


async def listed(
    caller: Caller, service: Service, subject_id: Annotated[str | None, Query(max_length=200)] = None
) -> TrainingJobsOut:
    """List requests and decisions about a subject, the newest first."""
    require(caller, "train")
    jobs = await _jobs(service, caller, _subject(caller, subject_id))
    return TrainingJobsOut(jobs=[_shown(job) for job in jobs[:MOST]])


async def one(job_id: Annotated[PredictionId, Path()], caller: Caller, service: Service) -> TrainingJobOut:
    """Return one request or decision."""
    require(caller, "train")
    seen = viewer(caller)
    row = service.records.recent("training_jobs", job_id)
    if row is None or not seen.sees(row):
        row = await read(lambda: reader.training_job(service.records.database, seen, job_id))
    if row is None:
        raise ProblemError(404, "not_found", "No training job of this caller has this id.")
    return _shown(row)


async def _jobs(service: State, caller: Principal, subject: str) -> list[Any]:
    """Return the jobs of a subject that the caller may see, the newest first, also those not in the database yet."""
    seen, recent = viewer(caller), _recent(service, caller, subject)
    kept = await read(lambda: reader.training_jobs_of(service.records.database, seen, subject, MOST))
    known = {row["id"] for row in kept}
    rows = [*kept, *(row for row in recent if row["id"] not in known)]
    return sorted(rows, key=lambda row: _time(row["created_at"]), reverse=True)


def _recent(service: State, caller: Principal, subject: str) -> list[Any]:
    """Return those that this process has written lately, the newest first."""
    rows = service.records.recent_rows("training_jobs", {"owner_id": subject})
    return [row for row in reversed(rows) if viewer(caller).sees(row)]


def _subject(caller: Principal, named: str | None) -> str:
    """Return whose adapter is meant: a person's own, else the one that is named."""
    if caller.role == "person":
        if named not in (None, caller.client_id):
            raise forbidden("A person's token asks for that person alone: leave subject_id out.")
        return caller.client_id
    if named is None or not is_id(named):
        raise ProblemError(422, "invalid_request", "subject_id must name whose adapter is meant.")
    if caller.subjects is not None and named not in caller.subjects:
        raise forbidden("This token may not ask for this subject.")
    return named


def _shown(row: Any) -> TrainingJobOut:
    code, _, text = str(row["reason"]).partition(": ")
    finished = row["finished_at"]
    return TrainingJobOut(
        job_id=row["id"],
        subject_id=row["owner_id"],
        status=row["status"],
        code=code if text else "",
        reason=text or code,
        created_at=_time(row["created_at"]),
        finished_at=None if finished is None else _time(finished),
    )


def _time(value: Any) -> datetime:
    time = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def router() -> APIRouter:
    """Make the routes."""
    routes = APIRouter(prefix="/training-jobs", tags=["training"])
    routes.post("", status_code=200, responses={202: {"model": TrainingJobOut}})(create)
    routes.get("")(listed)
    routes.get("/{job_id}")(one)
    return routes
