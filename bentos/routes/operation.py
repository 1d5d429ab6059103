"""Routes for operation: the served model, health, metrics."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from bentos.messages import Health, ModelOut
from bentos.policy import require
from bentos.problems import ProblemError
from bentos.state import Caller, Service
from hallmark.errors import BundleError

PUBLIC = APIRouter(tags=["operation"])
"""Routes that need no token: they return nothing about subjects or clients."""
PROTECTED = APIRouter(tags=["operation"])


@PUBLIC.get("/livez")
async def live() -> dict[str, str]:
    """Tell that the process runs."""
    return {"status": "live"}


@PUBLIC.get("/readyz", responses={503: {"model": Health}})
@PUBLIC.get("/healthz", include_in_schema=False)
async def ready(response: Response, service: Service) -> Health:
    """Tell whether the model answers: it is tried with the example of its task."""
    served, answers = service.engine.served, True
    try:
        await service.queue.run(served.try_out, service.settings.predict_timeout_s)
    except (BundleError, ProblemError):  # it cannot answer, or has too much to do
        response.status_code, answers = 503, False
    response.headers["cache-control"] = "no-store"
    return Health(
        status="ready" if answers else "not_ready",
        task=served.hallmark.task,
        version=served.hallmark.version,
        records_pending=service.records.pending,
        warnings=service.warnings(),
    )


@PROTECTED.get("/v1/models")
async def models(caller: Caller, service: Service) -> list[ModelOut]:
    """Return the models that answer, the champion first: version, provenance, figures, verdicts of the gates, card."""
    require(caller, "models")
    return [
        ModelOut(
            task=served.hallmark.task,
            version=served.hallmark.version,
            reason=served.hallmark.reason,
            hallmark_sha256=served.digest,
            provenance=dict(served.hallmark.provenance),
            digests=dict(served.hallmark.digests),
            metrics=dict(served.hallmark.metrics),
            verdicts=[dict(verdict) for verdict in served.hallmark.verdicts],
            card=served.model.card,
        )
        for served in service.engine.versions
    ]


@PROTECTED.get("/metrics", response_class=Response)
async def metrics(caller: Caller, service: Service) -> Response:
    """Return Prometheus metrics."""
    require(caller, "metrics")
    service.metrics.queue_rows.set(service.queue.rows)
    service.metrics.records_pending.set(service.records.pending)
    service.metrics.damaged_files.set(len(service.engine.served.model.damaged))
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)
