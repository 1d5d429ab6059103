"""ASGI middleware that limits paths, methods and body size, and the error handlers of the service."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import traceback
from collections.abc import Iterable, Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("bentoml.hallmark")  # a child of "bentoml": BentoML configures no other logger

MAX_FIELDS = 20
MAX_DEPTH = 64  # levels of nested lists and objects; a valid request has fewer than ten
_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 504: "timeout"}
# pydantic's messages of these types name the rule, never the value. Others (union_tag_invalid, value_error,
# uuid_parsing ...) can quote the input. Our own validators raise PydanticCustomError("hallmark_...", text).
_SAFE = re.compile(
    r"missing|extra_forbidden|finite_number|literal_error|enum|hallmark_\w+|\w+_type|too_short|too_long"
    r"|string_too_short|string_too_long|timezone_naive|greater_than(_equal)?|less_than(_equal)?|multiple_of|int_from_float"
)


class Field(BaseModel):
    """One rejected field."""

    name: str
    problem: str


class Error(BaseModel):
    """Body of every error response."""

    error: str
    message: str
    fields: list[Field] = []


def error_response(
    status: int, code: str, message: str, fields: Iterable[Field] = (), headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return an `Error` as a response that must not be cached."""
    body = Error(error=code, message=message, fields=list(fields)).model_dump()
    return JSONResponse(body, status_code=status, headers={"cache-control": "no-store", **(headers or {})})


def install_error_handlers(app: FastAPI, request_type: type[BaseModel]) -> None:
    """Return every error of `app` as an `Error`, without values or names that the client sent."""
    known = _property_names(request_type)

    async def invalid(request: Request, exc: Exception) -> JSONResponse:
        assert isinstance(exc, RequestValidationError)
        errors = exc.errors()
        if any(e["type"] == "json_invalid" for e in errors):
            return error_response(400, "invalid_json", "The body is not valid JSON.")
        fields = [Field(name=_name(e["loc"], known), problem=_problem(e)) for e in errors[:MAX_FIELDS]]
        return error_response(422, "invalid_request", f"{len(errors)} field(s) were rejected.", fields)

    async def http(request: Request, exc: Exception) -> JSONResponse:
        assert isinstance(exc, HTTPException)
        code = _CODES.get(exc.status_code, "http_error")
        return error_response(exc.status_code, code, code.replace("_", " ").capitalize() + ".", headers=exc.headers)

    async def crash(request: Request, exc: Exception) -> JSONResponse:
        return error_response(500, "internal", "The service failed; the failure is logged.")

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, crash)  # starlette answers, then re-raises: Boundary catches


class Boundary:
    """Check requests as pure ASGI middleware, before they reach the application.

    Unknown paths get status 404, too large bodies 413, slow ones 408, and bodies that are not JSON 400 or 415. Crashes
    are logged without their message.
    """

    def __init__(self, app: ASGIApp, allowed_paths: frozenset[str], max_body_bytes: int, read_timeout_s: float) -> None:
        self.app, self.allowed_paths, self.max_body_bytes = app, allowed_paths, max_body_bytes
        self.read_timeout_s = read_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # a websocket: close it before it opens
            return await send({"type": "websocket.close", "code": 1008})
        if scope["path"] not in self.allowed_paths:
            return await error_response(404, "not_found", "Not found.")(scope, receive, send)
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        crashed = error_response(500, "internal", "The service failed; the failure is logged.")
        too_large = error_response(413, "too_large", f"The body is over {self.max_body_bytes} bytes.")
        if not declared.isdigit() or int(declared) > self.max_body_bytes:
            return await too_large(scope, receive, send)
        # Read the whole body first: a chunked body is limited too, and the response to a too long one has not begun.
        body = bytearray()
        more = True
        deadline = asyncio.get_running_loop().time() + self.read_timeout_s
        while more:
            try:
                message = await asyncio.wait_for(receive(), deadline - asyncio.get_running_loop().time())
            except TimeoutError:
                slow = f"The body did not arrive within {self.read_timeout_s:g} s."
                closing = {"connection": "close"}
                return await error_response(408, "too_slow", slow, headers=closing)(scope, receive, send)
            if message["type"] == "http.disconnect":
                # Answer although the client left: BentoML's timeout middleware waits for a first byte, and a
                # handler that returns without one would hold the worker, and SIGTERM, for the whole timeout.
                return await error_response(400, "disconnected", "The client left.")(scope, receive, send)
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.max_body_bytes:
                return await too_large(scope, receive, send)
        if scope["method"] == "POST" and (refused := _refuse_body(headers, bytes(body))):
            return await refused(scope, receive, send)
        replay: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replayed() -> Message:
            return replay.pop() if replay else await receive()

        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, replayed, sending)
        except Exception as exc:  # the message may quote a request: log only type and position
            frames = traceback.extract_tb(exc.__traceback__)[-3:]
            where = " < ".join(f"{f.filename}:{f.lineno} {f.name}" for f in reversed(frames))
            log.error("%s at %s", type(exc).__name__, where)
            if not started:
                await crashed(scope, receive, send)


def _refuse_body(headers: Mapping[bytes, bytes], body: bytes) -> JSONResponse | None:
    """Return an error response if a body is not plain JSON, before it is parsed further; None if it is."""
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        return error_response(400, "compressed", "The body is compressed (Content-Encoding): send it as it is.")
    kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        return error_response(415, "unsupported_media_type", "Send JSON, with Content-Type: application/json.")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        return error_response(400, "invalid_utf8", f"The body is not UTF-8 (byte {error.start}).")
    if _depth(text) > MAX_DEPTH:
        return error_response(400, "too_deep", f"The body nests deeper than {MAX_DEPTH} levels.")
    try:
        json.loads(text, parse_float=_finite, parse_int=_finite, parse_constant=_finite)
    except _TooLarge:
        return error_response(400, "number_too_large", "A number of the body is not finite, or has too many digits.")
    except ValueError:
        return error_response(400, "invalid_json", "The body is not valid JSON.")
    return None


class _TooLarge(Exception):
    """A number that no field can hold."""


def _finite(text: str) -> float:
    if len(text) > 40 or not math.isfinite(value := float(text)):
        raise _TooLarge
    return value


def _depth(text: str) -> int:
    """Return how deep brackets nest, without those inside strings."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", text, flags=re.DOTALL)
    depth = deepest = 0
    for sign in re.findall(r"[\[\]{}]", bare):
        depth += 1 if sign in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _property_names(model: type[BaseModel]) -> frozenset[str]:
    """Return every property name of `model`'s schema: the only strings an error may repeat."""
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


def _name(loc: tuple[int | str, ...], known: frozenset[str]) -> str:
    names = loc[1:] if loc and loc[0] == "body" else loc
    return ".".join(str(n) if isinstance(n, int) or n in known else "*" for n in names) or "body"


def _problem(error: dict[str, object]) -> str:
    kind = str(error["type"])
    return str(error["msg"]) if _SAFE.fullmatch(kind) else f"invalid ({kind})"
