"""The BentoML service: it starts the processes; `bentos/app.py` answers in each of them.

A Bento serves the bundle inside it; in the source tree, `HALLMARK_BUNDLE` (default `bundle`) names the bundle.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

import bentoml
from starlette.applications import Starlette

from bentos import connection
from hallmark import kernels
from hallmark.errors import HallmarkError

connection.install()  # before uvicorn chooses its protocol


@asynccontextmanager
async def lifespan(outer: Starlette) -> AsyncIterator[None]:
    """Make the application that answers all requests when a process starts; importing this module reads nothing."""
    from bentos.app import create_app
    from bentos.settings import read_settings

    os.umask(0o077)  # records and jobs are readable by this user alone
    try:
        settings = read_settings()
        app = create_app(settings)
    except HallmarkError as error:
        give_up(error)
    connection.Connection.read_timeout_s = settings.read_timeout_s
    async with app.router.lifespan_context(app):
        connection.Connection.application = app
        yield


def give_up(error: HallmarkError) -> NoReturn:
    """Say why the service cannot start, and stop the server, which would start this process again and again."""
    print(f"error: the service cannot start: {error}", file=sys.stderr, flush=True)
    os.kill(os.getppid(), signal.SIGTERM)
    os._exit(1)


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
