"""`GET /v1/subjects/{id}/insights`: what a subject's recorded readings show; informational, never medical advice."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.concurrency import run_in_threadpool

from bentos.messages import InsightOut, InsightsOut
from bentos.policy import forbidden, may_export, require, viewer
from bentos.problems import ProblemError
from bentos.routes.records import read
from bentos.state import Caller, Service
from hallmark.watch.observed import Insightful, observed_rows

LONGEST_DAYS = 366


async def insights(
    subject_id: Annotated[str, Path(max_length=200)],
    caller: Caller,
    service: Service,
    days: Annotated[int, Query(ge=1, le=LONGEST_DAYS, description="of answers that are read")] = 60,
) -> InsightsOut:
    """Return unusual stretches of a subject's readings and hours that are usually higher or lower.

    Each says how often a finding like it is one of chance. A service key sees what it asked for itself.
    """
    require(caller, "read")
    if not may_export(caller, subject_id):
        raise forbidden("This token may not ask for this subject.")
    task = service.engine.served.model.task
    if not isinstance(task, Insightful):
        raise ProblemError(422, "no_insights", f"Answers of {task.name} hold no series that could show something.")
    service.rates.count_rows(caller.client_id, 1)
    await run_in_threadpool(service.records.flush, 5.0)
    first = datetime.now(UTC) - timedelta(days=days)
    database = service.records.database
    rows: Any = await read(lambda: observed_rows(database, task, first, {}, {subject_id}, subject_id, viewer(caller)))
    found = [] if rows.empty else await run_in_threadpool(task.insights, rows)
    shown = [InsightOut(kind=i.kind, text=i.text, first=i.first, last=i.last, chance=i.chance) for i in found]
    return InsightsOut(subject_id=subject_id, rows=len(rows), insights=shown)


def router() -> APIRouter:
    """Make the route."""
    routes = APIRouter(tags=["records"])
    routes.get("/subjects/{subject_id}/insights")(insights)
    return routes
