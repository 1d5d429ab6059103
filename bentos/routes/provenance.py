"""`GET /v1/predictions/{id}/provenance`: the observations that an answer rests on, and the most influential of them."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from bentos.messages import InfluenceOut, PastOut, PredictionId, ProvenanceOut
from bentos.policy import require
from bentos.problems import ProblemError
from bentos.queue import BULK_BATCH
from bentos.routes.records import find
from bentos.state import Caller, Service, State
from hallmark.errors import BundleError
from hallmark.prove.influence import influences, trace

MOST = 1000


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
    row = await find(service, caller, prediction_id)
    if row is None:
        raise ProblemError(404, "not_found", "No prediction of this caller has this id.")
    served = service.engine.served
    if row["request"] is None:
        raise ProblemError(409, "request_not_kept", "The request was not kept, or its retention has passed.")
    if row["hallmark_sha256"] != served.digest:
        detail = f"Version {row['model_version']} gave this answer: `hallmark provenance` reads it from its bundle."
        raise ProblemError(409, "another_version", detail)
    predictor, timeout_s = served.model.predictor, service.settings.predict_timeout_s
    request = served.request_type.model_validate_json(row["request"])
    try:
        traced = await service.queue.run(partial(trace, predictor, request), timeout_s)
    except BundleError:
        raise ProblemError(409, "past_unreadable", "The file of the subject's past is missing or changed.") from None
    found = []
    if top:
        service.rates.count_rows(caller.client_id, len(traced.left_out))
        answers = await answered(service, [rest for _, rest in traced.left_out])
        response = served.model.task.response_type().model_validate_json(row["response"])
        found = influences(predictor, response, traced, answers)
    observed = traced.observations
    return ProvenanceOut(
        prediction_id=row["id"],
        hallmark_sha256=served.digest,
        training_data=dict(data) if isinstance(data := served.hallmark.provenance.get("data"), Mapping) else {},
        request=list(observed.request),
        past=PastOut(
            readings=list(observed.past),
            fitted_from=observed.fitted[0] if observed.fitted else None,
            fitted_to=observed.fitted[1] if observed.fitted else None,
        ),
        unit=traced.unit,
        most_influential=[InfluenceOut(id=item.id, change=item.change) for item in found[:top]],
    )


async def answered(service: State, requests: Sequence[Any]) -> list[Any]:
    """Answer requests behind all others; None where computing one failed. Nothing of it is recorded."""
    answers: list[Any] = []
    for start in range(0, len(requests), BULK_BATCH):
        block = requests[start : start + BULK_BATCH]
        results = await service.queue.submit(block, service.settings.jobs.timeout_s, bulk=True)
        answers += [None if result.answer is None else result.answer.response for result in results]
    return answers


def router() -> APIRouter:
    """Make the route."""
    routes = APIRouter(tags=["records"])
    routes.get("/predictions/{prediction_id}/provenance")(provenance)
    return routes
