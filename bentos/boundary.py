"""ASGI middleware that limits methods, body size and time before a request reaches the application."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import traceback
from collections.abc import Mapping
from typing import Any

from fastapi.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bentos.problems import problem_response

log = logging.getLogger("bentoml.hallmark")  # a child of "bentoml": BentoML configures no other logger

MAX_DEPTH = 64  # levels of nested lists and objects; a valid request has fewer than ten
TOO_DEEP = f"The body nests deeper than {MAX_DEPTH} levels."
CRASHED = "The service failed; the failure is logged."
SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'"),
)


class Boundary:
    """Check requests as pure ASGI middleware, before they reach the application.

    Too large bodies get status 413, slow ones 408, and bodies that are not JSON 400 or 415. A body is parsed once, and
    lies in `request.state.json`. Crashes are logged without their message.

    Args:
        app: the application.
        max_body_bytes: largest body.
        read_timeout_s: seconds within which a body must arrive.
        streamed: paths whose bodies are files: their routes read them piece by piece and limit them.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, read_timeout_s: float, streamed: frozenset[str]) -> None:
        self.app, self.max_body_bytes, self.read_timeout_s = app, max_body_bytes, read_timeout_s
        self.streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # a websocket: close it before it opens
            return await send({"type": "websocket.close", "code": 1008})
        if scope["path"] in self.streamed and scope["method"] == "POST":
            return await self._guarded(scope, receive, send)
        body = await self._read(scope, receive)
        if isinstance(body, Response):
            return await body(scope, receive, send)
        if scope["method"] in ("POST", "PUT", "PATCH"):
            parsed = parse_json(dict(scope["headers"]), body)
            if isinstance(parsed, Response):
                return await parsed(scope, receive, send)
            scope.setdefault("state", {})["json"] = parsed[0]
        replay: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replayed() -> Message:
            return replay.pop() if replay else await receive()

        return await self._guarded(scope, replayed, send)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; a crash is answered and logged."""
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *SECURITY]}
            started = True
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except Exception as exc:
            log_failure(exc)
            if not started:
                await problem_response(500, "internal", CRASHED)(scope, receive, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | Response:
        """Read the whole body: a chunked body is limited too, and the response to a too long one has not begun."""
        too_large = f"The body is over {self.max_body_bytes} bytes."
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self.max_body_bytes:
            return problem_response(413, "too_large", too_large)
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(self.read_timeout_s):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return problem_response(400, "disconnected", "The client left.")
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > self.max_body_bytes:
                        return problem_response(413, "too_large", too_large)
        except TimeoutError:
            slow = f"The body did not arrive within {self.read_timeout_s:g} s."
            return problem_response(408, "too_slow", slow, headers={"connection": "close"})
        return bytes(body)


def log_failure(error: Exception) -> None:
    """Log the type and the position of an exception: its message may quote a request."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    where = " < ".join(f"{f.filename}:{f.lineno} {f.name}" for f in reversed(frames))
    log.error("%s at %s", type(error).__name__, where)


def parse_json(headers: Mapping[bytes, bytes], body: bytes) -> tuple[Any] | Response:
    """Parse a body, or return the response that refuses it."""
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        return problem_response(400, "compressed", "The body is compressed (Content-Encoding): send it as it is.")
    kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        return problem_response(415, "unsupported_media_type", "Send JSON, with Content-Type: application/json.")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        return problem_response(400, "invalid_utf8", f"The body is not UTF-8 (byte {error.start}).")
    try:
        parsed = json.loads(text, parse_float=_finite, parse_int=_integer, parse_constant=_finite)
    except _TooLarge:
        return problem_response(400, "number_too_large", "A number of the body is not finite, or has too many digits.")
    except RecursionError:
        return problem_response(400, "too_deep", TOO_DEEP)
    except ValueError:
        return problem_response(400, "invalid_json", "The body is not valid JSON.")
    return problem_response(400, "too_deep", TOO_DEEP) if nests_deeper(parsed, MAX_DEPTH) else (parsed,)


class _TooLarge(Exception):
    """A number that no field can hold."""


def _finite(text: str) -> float:
    if len(text) > 40 or not math.isfinite(value := float(text)):
        raise _TooLarge
    return value


def _integer(text: str) -> int:
    if len(text) > 40:
        raise _TooLarge
    return int(text)


def nests_deeper(value: Any, most: int) -> bool:
    """Tell whether lists and objects nest deeper than `most`."""
    level = [value]
    for _ in range(most):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
