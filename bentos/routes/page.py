"""The page at `/`, the pages of `/docs` and the OpenAPI document; they need no network and no token."""

import html
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from bentos.problems import ProblemError
from bentos.state import Service
from hallmark.abilities import Refreshing

PAGES = Path(__file__).resolve().parents[1] / "pages"
ROUTER = APIRouter(include_in_schema=False)
OURS = {"docs.js": "text/javascript", "page.css": "text/css", "page.js": "text/javascript"}
OF_BENTOML = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
}
"""BentoML ships these files of Swagger UI."""
CACHED = {"cache-control": "public, max-age=86400"}


@ROUTER.get("/", response_class=HTMLResponse)
async def home(service: Service) -> HTMLResponse:
    """Say what this is, which model answers and how to call it."""
    served = service.engine.served
    text = (PAGES / "index.html").read_text(encoding="utf-8")
    values = {
        "task": served.hallmark.task,
        "version": served.hallmark.version,
        "digest": served.digest,
        "purpose": served.model.task.purpose,
        "gates": gates(served.hallmark.verdicts),
    }
    for name, value in values.items():
        text = text.replace(f"{{{{{name}}}}}", html.escape(value))
    text = text.replace("{{hidden}}", "" if isinstance(served.model.learner, Refreshing) else " hidden")
    return HTMLResponse(text, headers={"cache-control": "no-cache"})


@ROUTER.get("/docs", response_class=HTMLResponse)
async def docs() -> HTMLResponse:
    """Show the endpoints, with a form for each."""
    return HTMLResponse((PAGES / "docs.html").read_text(encoding="utf-8"), headers={"cache-control": "no-cache"})


@ROUTER.get("/openapi.json")
async def openapi(request: Request) -> JSONResponse:
    """Return the OpenAPI document."""
    return JSONResponse(request.app.openapi())


@ROUTER.get("/assets/{name}")
async def asset(name: str) -> Response:
    """Return a file of the pages."""
    if name in OURS:
        return Response((PAGES / name).read_bytes(), media_type=OURS[name], headers=CACHED)
    if name in OF_BENTOML:
        return Response(_of_bentoml(name), media_type=OF_BENTOML[name], headers=CACHED)
    raise ProblemError(404, "not_found", "Not found.")


def gates(verdicts: Any) -> str:
    """Count the verdicts in words."""
    counts = [(status, sum(v["status"] == status for v in verdicts)) for status in ("passed", "skipped")]
    return ", ".join(f"{count} {status}" for status, count in counts) if verdicts else "no gate judged it"


@cache
def _of_bentoml(name: str) -> bytes:
    return resources.files("bentoml._internal.server").joinpath("static_content", name).read_bytes()
