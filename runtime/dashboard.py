"""ZenML's dashboard on the repository's own store, in the foreground: python -m runtime.dashboard [PORT].

The server has a configuration of its own, so the client that runs pipelines is never switched to it.
It asks for no password: it listens on loopback only.
"""

import os
import sys

from runtime import store

DEFAULT_PORT = 8237


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

    client = Client()  # answers the first visit's questions; announcements would come from the internet
    client.update_user("default", updated_email_opt_in=False, updated_metadata={"finished_onboarding_survey": True})
    client.update_server_settings(
        "hallmark",
        updated_enable_analytics=False,
        updated_enable_announcements=False,
        updated_enable_updates=False,
    )
    print(f"dashboard: http://127.0.0.1:{port}  (Ctrl-C stops it)", file=sys.stderr)
    application = "zenml.zen_server.zen_server_api:app"
    uvicorn.run(application, host="127.0.0.1", port=port, log_level="warning", server_header=False)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_PORT)
