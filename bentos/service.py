"""The BentoML service: it starts the processes; `bentos/app.py` answers in each of them.

A Bento serves the bundle inside it; in the source tree, `HALLMARK_BUNDLE` (default `bundle`) names the bundle.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import bentoml
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from bentos import connection
from hallmark import kernels

connection.install()  # before uvicorn chooses its protocol


@asynccontextmanager
async def lifespan(outer: Starlette) -> AsyncIterator[None]:
    """Make the application when a process starts, so that importing this module reads nothing."""
    from bentos.app import create_app
    from bentos.settings import read_settings

    os.umask(0o077)  # records and jobs are readable by this user alone
    settings = read_settings()
    app = create_app(settings)
    connection.Connection.read_timeout_s = settings.read_timeout_s
    async with app.router.lifespan_context(app):
        outer.state.app = app
        yield


outer = Starlette(lifespan=lifespan)


class Front:
    """Give every request to our application: BentoML's own pages and metrics know no tokens."""

    def __init__(self, app: ASGIApp) -> None:
        self.bentoml = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app: FastAPI | None = getattr(outer.state, "app", None)
        await (app if app is not None and scope["type"] != "lifespan" else self.bentoml)(scope, receive, send)


@bentoml.service(
    name="hallmark",
    workers=1,
    traffic={"timeout": 3600},  # our own deadlines are shorter; the upload of a job may take this long
    logging={"access": {"enabled": False}},  # it would print the paths of requests
    metrics={"enabled": False},  # without authentication, and with the paths of requests as labels
    envs=[{"name": name, "value": value} for name, value in kernels.environment().items()],
)
@bentoml.asgi_app(outer, path="/")
class Service:
    """One process with one model and one thread for predictions."""


cast("bentoml.Service[Any]", Service).add_asgi_middleware(Front)
