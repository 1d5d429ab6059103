"""python -m bentos.serve [--port N] [--task T]: serve a bundle on loopback; print when it is ready and how to ask.

It is the bundle that `HALLMARK_BUNDLE` names, else the champion, else the last one that was made.

Port, settings and bundle are checked before the server starts, so that an error is one line and not a traceback. Where
no keys and tokens are configured, a key for this run is made and printed (`HALLMARK_KEY` sets another one).
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

from bentos.engine import check_device
from bentos.identity import Identity, hash_key
from bentos.jobs import check_directory
from bentos.keys import make_key, write_keys
from bentos.rates import Rates
from bentos.settings import AuthSettings, read_settings
from hallmark import kernels
from hallmark.errors import ConfigError, HallmarkError
from hallmark.prove.bundle import Hallmark, open_accepted
from hallmark.prove.serving import champion_or_last
from hallmark.prove.signature import verify
from hallmark.records.database import Database
from hallmark.records.spool import Spool

HOST = "127.0.0.1"
READY_S = 120.0  # seconds within which the model must be loaded


def main(arguments: Sequence[str]) -> int:
    """Serve until interrupted; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bentos.serve", description=__doc__)
    parser.add_argument("--port", default=os.environ.get("PORT", "3000"))
    parser.add_argument("--task", default="", help="serve the champion of a task, or the last bundle of it")
    options = parser.parse_args(arguments)
    try:
        if options.task or "HALLMARK_BUNDLE" not in os.environ:
            os.environ["HALLMARK_BUNDLE"] = str(champion_or_last(options.task))
        port, settings = port_of(options.port), read_settings()
        os.umask(0o077)
        if settings.public_key is not None:
            verify(settings.served.resolve(), settings.public_key)
        hallmark, _ = open_accepted(settings.served.resolve())
        Identity(settings.auth)
        Database(settings.records.url.get_secret_value())
        Rates(settings.rate)
        Spool(settings.records.spool).close()
        check_directory(settings.jobs.directory)
        check_device(settings.device)
        environment = {**os.environ, **kernels.environment()}
        keys = Path(f".records/local-keys-{port}.json")  # of its own, so that two services do not replace each other's
        key = None if settings.auth != AuthSettings() else local_key(keys)
    except HallmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    environment |= {"HALLMARK_BUNDLE": str(settings.served), "PYTHONDONTWRITEBYTECODE": "1"}
    if key is not None:
        environment["HALLMARK_AUTH__KEYS_FILE"] = str(keys.resolve())
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", "--quiet", "bentos.service:Service"]
    command += ["--host", HOST, "--port", str(port)]
    process = subprocess.Popen(command, env=environment, start_new_session=True)  # Ctrl-C comes through us alone
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: process.terminate())
    print(f"loading {hallmark.task} {hallmark.version} from {_short(settings.served)} …", file=sys.stderr, flush=True)
    if wait_until_ready(process, port):
        print(welcome(hallmark, key, port), file=sys.stderr, flush=True)
    elif process.poll() is None:
        process.terminate()
        print(f"error: the service was not ready within {READY_S:g} s", file=sys.stderr)
    code = process.wait()
    return 0 if code in (0, -signal.SIGTERM, -signal.SIGINT) else 1


def _short(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


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


def local_key(file: Path) -> str:
    """Make the key of this run, for a service on loopback; the file keeps its sha256."""
    key, entry = make_key("local", "admin")
    if given := os.environ.get("HALLMARK_KEY"):
        key, entry = given, {**entry, "sha256": hash_key(given)}
    write_keys(file, [entry])
    return key


def welcome(hallmark: Hallmark, key: str | None, port: int) -> str:
    """Describe the address of the service and how to send a request."""
    address = f"http://{HOST}:{port}"
    example = Path("examples") / f"{hallmark.task}.json"
    token = key or "YOUR_KEY"
    headers = f"-H 'authorization: Bearer {token}' -H 'content-type: application/json'"
    lines = [
        f"ready: {hallmark.task} {hallmark.version} on {address}   (Ctrl-C stops it)",
        f"  ask       curl {headers} -d @{example} {address}/v1/predict",
        f"  page      {address}/",
        f"  docs      {address}/docs",
    ]
    return "\n".join(lines if example.is_file() else [lines[0], *lines[2:]])


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
