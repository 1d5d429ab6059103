"""Errors of the service as problem details (RFC 9457), without anything that the client sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"
MAX_FIELDS = 20
# pydantic's messages of these types name the rule, never the value. Others (union_tag_invalid, value_error,
# uuid_parsing ...) can quote the input. Our own validators raise PydanticCustomError("hallmark_...", text).
_SAFE = re.compile(
    r"missing|extra_forbidden|finite_number|literal_error|enum|hallmark_\w+|\w+_type|too_short|too_long"
    r"|string_too_short|string_too_long|string_pattern_mismatch|timezone_naive|timezone_aware"
    r"|greater_than(_equal)?|less_than(_equal)?|multiple_of|int_from_float"
)
_NAMES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 422: "invalid_request"}


class Field(BaseModel):
    """One rejected field."""

    name: str
    problem: str


class Problem(BaseModel):
    """Body of every error: problem details with the rejected fields."""

    type: str
    title: str
    status: int
    detail: str
    fields: list[Field] = []


class ProblemError(Exception):
    """An error that is answered with a problem.

    Args:
        status: HTTP status.
        name: last part of the problem's type, such as `queue_full`.
        detail: what is wrong and what to do; never quotes the request.
        fields: rejected fields.
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        name: str,
        detail: str,
        fields: Iterable[Field] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(name)
        self.problem = problem(status, name, detail, fields)
        self.headers = dict(headers or {})

    @classmethod
    def of(cls, body: Problem) -> ProblemError:
        """Make the error of a problem."""
        return cls(body.status, body.type.rpartition(":")[2], body.detail, body.fields)


def problem(status: int, name: str, detail: str, fields: Iterable[Field] = ()) -> Problem:
    """Make the body of an error."""
    title = name.replace("_", " ").capitalize()
    return Problem(type=f"urn:hallmark:{name}", title=title, status=status, detail=detail, fields=list(fields))


def problem_response(
    status: int, name: str, detail: str, fields: Iterable[Field] = (), headers: Mapping[str, str] | None = None
) -> Response:
    """Make a response that must not be cached."""
    return as_response(problem(status, name, detail, fields), headers)


def as_response(body: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """Make the response of a problem."""
    return Response(
        body.model_dump_json(), body.status, {"cache-control": "no-store", **(headers or {})}, media_type=MEDIA_TYPE
    )


def install_error_handlers(app: FastAPI) -> None:
    """Answer every error of `app` with a problem, without values or names that the client sent."""

    async def told(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, ProblemError)
        return as_response(exc.problem, exc.headers)

    async def invalid(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, RequestValidationError)
        fields = rejected_fields(exc.errors(), _PARAMETERS)
        return problem_response(
            422, "invalid_request", f"{counted(len(exc.errors()), 'field was', 'fields were')} rejected.", fields
        )

    async def http(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)
        name = _NAMES.get(exc.status_code, "http_error")
        return problem_response(exc.status_code, name, f"{HTTPStatus(exc.status_code).phrase}.", headers=exc.headers)

    async def crash(request: Request, exc: Exception) -> Response:
        return problem_response(500, "internal", "The service failed; the failure is logged.")

    app.add_exception_handler(ProblemError, told)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, crash)  # starlette answers, then re-raises: Boundary catches


_PARAMETERS = frozenset({"rows", "body", "path", "query", "header", "prediction_id", "horizon", "value", "observed_at",
                         "outcomes", "subject_id", "job_id", "top", "idempotency-key"})  # fmt: skip


def property_names(model: type[BaseModel]) -> frozenset[str]:
    """Return every property name of a model's schema: the only strings of a request that an error may repeat."""
    names: set[str] = set()

    def walk(node: object) -> None:
        if isinstance(node, dict):
            names.update(node.get("properties", {}))
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    walk(model.model_json_schema())
    return frozenset(names)


def counted(number: int, one: str, many: str) -> str:
    """Write a number with its noun: `1 field was`, `3 fields were`."""
    return f"{number} {one if number == 1 else many}"


def rejected_fields(errors: Sequence[Any], known: frozenset[str]) -> list[Field]:
    """Describe the errors of a row."""
    return [Field(name=field_name(e["loc"], known), problem=rule(e)) for e in errors[:MAX_FIELDS]]


def field_name(loc: tuple[int | str, ...], known: frozenset[str]) -> str:
    """Write the place of a field; names that no schema has are replaced by a star."""
    names = loc[1:] if loc and loc[0] in ("body", "query", "path", "header") else loc
    return ".".join(str(n) if isinstance(n, int) or n in known else "*" for n in names) or "body"


def rule(error: Mapping[str, Any]) -> str:
    """Name the rule that a field breaks."""
    kind = str(error["type"])
    return str(error["msg"]) if _SAFE.fullmatch(kind) else f"invalid ({kind})"
