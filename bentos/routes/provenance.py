"""`GET /v1/predictions/{id}/provenance`: the observations that an answer rests on, and the most influential of them."""

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.concurrency import run_in_threadpool

from bentos.engine import Question, Served
from bentos.messages import InfluenceOut, PastOut, PredictionId, ProvenanceOut
from bentos.policy import require
from bentos.problems import ProblemError
from bentos.queue import BULK_BATCH
from bentos.routes.records import find_or_404
from bentos.state import Caller, Service, State
from hallmark.errors import BundleError
from hallmark.prove.influence import influences, trace

MOST = 1000
LONGEST_S = 60.0  # for measuring all influences of an answer


async def provenance(
    prediction_id: Annotated[PredictionId, Path()],
    caller: Caller,
    service: Service,
    top: Annotated[int, Query(ge=0, le=MOST, description="how many of the most influential observations")] = 10,
) -> ProvenanceOut:
    """Return the observations that an answer rests on, and by how much it changes without the most influential ones.

    Influences are measured when they are asked for: the request is answered once more without each observation, after
    all other requests. `top=0` measures none.
    """
    require(caller, "read")
    row = await find_or_404(service, caller, prediction_id)
    served = service.engine.version_for(Question(None, digest=row["hallmark_sha256"]))
    if row["request"] is None:
        raise ProblemError(409, "request_not_kept", "The request was not kept, or its retention has passed.")
    if row["hallmark_sha256"] != served.digest:
        detail = f"Version {row['model_version']} gave this answer: `hallmark provenance` reads it from its bundle."
        raise ProblemError(409, "another_version", detail)
    service.rates.count_rows(caller.client_id, 1)
    predictor = served.model.predictor
    request = served.request_type.model_validate_json(row["request"])
    response = served.model.task.response_type().model_validate_json(row["response"])
    try:
        traced = await run_in_threadpool(trace, predictor, request, response, bool(top))
    except BundleError:
        raise ProblemError(409, "past_unreadable", "The file of the subject's past is missing or changed.") from None
    found = []
    if traced.left_out:
        service.rates.count_rows(caller.client_id, len(traced.left_out))
        if service.measuring.locked():
            detail = "Influences of another answer are being measured: try again in a few seconds, or ask with top=0."
            raise ProblemError(503, "busy", detail, headers={"retry-after": "5"})
        async with service.measuring:
            whole, *answers = await answered(service, served, [request, *[rest for _, rest in traced.left_out]])
        if whole is None or whole.model_dump_json() != row["response"]:
            detail = "The served model answers otherwise now: a file of it was damaged, or has been mended since."
            raise ProblemError(409, "another_answer", detail)
        found = influences(predictor, response, traced, answers)
    observed = traced.observations
    fitted_from, fitted_to = observed.fitted or (None, None)
    return ProvenanceOut(
        prediction_id=row["id"],
        hallmark_sha256=served.digest,
        training_data=dict(data) if isinstance(data := served.hallmark.provenance.get("data"), Mapping) else {},
        request=list(observed.request),
        past=PastOut(readings=list(observed.past), fitted_from=fitted_from, fitted_to=fitted_to),
        unit=traced.unit,
        most_influential=[InfluenceOut(id=item.id, change=item.change) for item in found[:top]],
    )


async def answered(service: State, served: Served, requests: Sequence[Any]) -> list[Any]:
    """Answer requests behind all others; None where computing one failed. Nothing of it is recorded.

    Raises:
        ProblemError: 504 after `LONGEST_S`; 409 if another bundle has begun to answer meanwhile.
    """
    answers: list[Any] = []
    until = time.monotonic() + LONGEST_S
    for start in range(0, len(requests), BULK_BATCH):
        block = [Question(request, digest=served.digest) for request in requests[start : start + BULK_BATCH]]
        results = await service.queue.submit(block, max(until - time.monotonic(), 0.0), bulk=True)
        if any(result.answer is not None and result.answer.served is not served for result in results):
            raise ProblemError(409, "another_version", "A new bundle has begun to answer: ask again.")
        answers += [None if result.answer is None else result.answer.response for result in results]
    return answers


def router() -> APIRouter:
    """Make the route."""
    routes = APIRouter(tags=["records"])
    routes.get("/predictions/{prediction_id}/provenance")(provenance)
    return routes
