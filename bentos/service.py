"""The BentoML service: it starts the processes; `bentos/app.py` answers in each of them.

A Bento serves the bundle inside it; in the source tree, `HALLMARK_BUNDLE` (default `bundle`) names the bundle.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import bentoml
from starlette.applications import Starlette

from bentos import connection
from hallmark import kernels

connection.install()  # before uvicorn chooses its protocol


@asynccontextmanager
async def lifespan(outer: Starlette) -> AsyncIterator[None]:
    """Make the application that answers all requests when a process starts; importing this module reads nothing."""
    from bentos.app import create_app
    from bentos.settings import read_settings

    os.umask(0o077)  # records and jobs are readable by this user alone
    settings = read_settings()
    app = create_app(settings)
    connection.Connection.read_timeout_s = settings.read_timeout_s
    async with app.router.lifespan_context(app):
        connection.Connection.application = app
        yield


outer = Starlette(lifespan=lifespan)


@bentoml.service(
    name="hallmark",
    workers=1,
    logging={"access": {"enabled": False}},  # it would print the paths of requests
    metrics={"enabled": False},  # without authentication, and with the paths of requests as labels
    envs=[{"name": name, "value": value} for name, value in kernels.environment().items()],
)
@bentoml.asgi_app(outer, path="/")
class Service:
    """One process with one model and one thread for predictions."""
