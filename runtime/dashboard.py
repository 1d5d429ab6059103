"""ZenML's dashboard on the repository's own store, in the foreground: python -m runtime.dashboard [PORT].

The server has its own configuration, so that the client that runs pipelines keeps using the store directly.
No password is needed, because the server listens on loopback only.
"""

import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from runtime import store

DEFAULT_PORT = 8237
RUNS = "/projects/default/runs"

Application = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application."""


def main(port: int) -> None:
    """Serve until interrupted."""
    os.environ.update(store.environment())
    os.environ.update(
        {
            "ZENML_CONFIG_PATH": str(store.ROOT / ".zen" / "server"),
            "ZENML_SERVER": "true",
            "ZENML_SERVER_ALLOW_LOCAL_FILE_ACCESS": "true",
            "ZENML_SERVER_AUTH_SCHEME": "NO_AUTH",
            "ZENML_SERVER_DEPLOYMENT_TYPE": "local",
            "ZENML_SERVER_AUTO_ACTIVATE": "true",
        }
    )
    import uvicorn
    from zenml.client import Client

    client = Client()  # skips the first visit's survey; announcements would be fetched from the internet
    client.update_user("default", updated_email_opt_in=False, updated_metadata={"finished_onboarding_survey": True})
    client.update_server_settings(
        "hallmark",
        updated_enable_analytics=False,
        updated_enable_announcements=False,
        updated_enable_updates=False,
    )
    from zenml.zen_server.zen_server_api import app

    print(f"dashboard: http://127.0.0.1:{port}  (Ctrl-C stops it)", file=sys.stderr)
    uvicorn.run(opening_on_runs(app), host="127.0.0.1", port=port, log_level="warning", server_header=False)


def opening_on_runs(application: Application) -> Application:
    """Wrap ZenML's server so that its first page is the list of runs, the newest first."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/":
            await send({"type": "http.response.start", "status": 307, "headers": [(b"location", RUNS.encode())]})
            await send({"type": "http.response.body", "body": b""})
        else:
            await application(scope, receive, send)

    return serve


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_PORT)
