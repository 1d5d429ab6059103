"""python -m bentos.serve [--port N]: serve the bundle on loopback; print when it is ready and how to send a request.

Port, settings and bundle are checked before the server starts, so that an error is one line and not a traceback.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bentos.settings import Settings, read_settings
from hallmark import kernels
from hallmark.errors import ConfigError, HallmarkError
from hallmark.prove.bundle import Hallmark, open_accepted

HOST = "127.0.0.1"
READY_S = 120.0  # seconds within which the model must be loaded


def main(arguments: Sequence[str]) -> int:
    """Serve until interrupted; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bentos.serve", description=__doc__)
    parser.add_argument("--port", default=os.environ.get("PORT", "3000"))
    options = parser.parse_args(arguments)
    try:
        port, settings = port_of(options.port), read_settings()
        hallmark, _ = open_accepted(settings.bundle)
        environment = {**os.environ, **kernels.environment()}
    except HallmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    environment |= {"HALLMARK_BUNDLE": str(settings.bundle), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", "--quiet", "bentos.service:Service"]
    command += ["--host", HOST, "--port", str(port)]
    process = subprocess.Popen(command, env=environment)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: process.terminate())
    print(f"loading {hallmark.task} {hallmark.version} from {settings.bundle} …", file=sys.stderr, flush=True)
    if wait_until_ready(process, port):
        print(welcome(hallmark, settings, port), file=sys.stderr, flush=True)
    elif process.poll() is None:
        process.terminate()
        print(f"error: the service was not ready within {READY_S:g} s", file=sys.stderr)
    code = process.wait()
    return 0 if code in (0, -signal.SIGTERM, -signal.SIGINT) else 1


def port_of(text: str) -> int:
    """Parse the number of a port and check that it is free.

    Raises:
        ConfigError: the text is no port number, or the port is taken.
    """
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise ConfigError(f"PORT={text!r} must be a number within 1…65535, such as 3000")
    with socket.socket() as probe:
        if probe.connect_ex((HOST, int(text))) == 0:
            raise ConfigError(f"port {text} is taken: try another, make serve PORT=3100")
    return int(text)


def wait_until_ready(process: "subprocess.Popen[Any]", port: int) -> bool:
    """Wait until the model is loaded (True), or the process has ended or `READY_S` has passed (False)."""
    deadline = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/readyz", timeout=2):
                return True
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
    return False


def welcome(hallmark: Hallmark, settings: Settings, port: int) -> str:
    """Describe the address of the service and how to send a request."""
    address = f"http://{HOST}:{port}"
    example = Path("examples") / f"{hallmark.task}.json"
    ask = f"curl -H 'content-type: application/json' -d @{example} {address}/predict"
    lines = [
        f"ready: {hallmark.task} {hallmark.version} on {address}   (Ctrl-C stops it)",
        f"  ask       {ask}",
        f"  schema    {address}/openapi.json",
        f"  hallmark  {address}/hallmark",
    ]
    return "\n".join(lines if example.is_file() else [lines[0], *lines[2:]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
