"""Running services: in this process behind real HTTP, with a key for every role; or a real `bentoml serve`."""

import asyncio
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from bentos.app import create_app
from bentos.identity import hash_key
from bentos.keys import make_key, write_keys
from bentos.settings import Settings
from bentos.state import State
from bentos.witness import Witness
from tests.toys import ROOT

KEYS = {
    "service": ("app", "service", ()),
    "admin": ("boss", "admin", ()),
}


@dataclass
class Server:
    """A running service."""

    address: str
    state: State
    witness: Witness
    keys: dict[str, str] = field(default_factory=dict)

    def call(self, method: str, path: str, who: str | None = "service", **options: Any) -> httpx.Response:
        """Send a request with the key of a client, or without one."""
        headers = {**({"authorization": f"Bearer {self.keys[who]}"} if who else {}), **options.pop("headers", {})}
        return httpx.request(method, self.address + path, headers=headers, timeout=60, **options)

    def predict(self, body: Any, who: str | None = "service", **headers: str) -> httpx.Response:
        """Ask for answers."""
        return self.call("POST", "/v1/predict", who, json=body, headers=headers)

    def flush(self) -> None:
        """Wait until the database has all records."""
        assert self.state.records.flush(30)


@contextmanager
def running(bundle: Path, home: Path, people: dict[str, tuple[str, str, Any]], **settings: Any) -> Iterator[Server]:
    """Run a service; `people` are further clients: name → (client_id, role, subjects)."""
    keys: dict[str, str] = settings.pop("keys", {})
    entries = []
    for name, (client, role, subjects) in {**KEYS, **people}.items():
        key, entry = make_key(client, role, subjects)
        keys.setdefault(name, key)
        entries.append({**entry, "sha256": hash_key(keys[name])})
    home.mkdir(parents=True, exist_ok=True)
    write_keys(home / "keys.json", entries)
    auth = {"keys_file": home / "keys.json", **settings.pop("auth", {})}
    records = {"url": f"sqlite:///{home}/records.sqlite", "spool": home / "spool", **settings.pop("records", {})}
    jobs = {"directory": home / "jobs", **settings.pop("jobs", {})}
    known = {"bundle": bundle, "auth": auth, "records": records, "jobs": jobs, "witness": {"per_hour": 0}, **settings}
    app = create_app(Settings(**known))
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=free_port(), log_config=None, access_log=False, lifespan="on")
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the service did not start"
    try:
        yield Server(f"http://127.0.0.1:{server.config.port}", app.state.service, app.state.service.witness, keys)
    finally:
        server.should_exit = True
        thread.join(60)


class Service:
    """A real `bentoml serve` with records of its own beside its log.

    Args:
        bundle: that it serves.
        log: file of what it prints.
        role: of its key.
        environment: further settings.
    """

    def __init__(self, bundle: Path, log: Path, role: str = "service", **environment: str) -> None:
        home = log.parent
        home.mkdir(exist_ok=True)
        self.port, self.log = free_port(), log
        self.key, entry = make_key("app", role)
        write_keys(home / "keys.json", [entry])
        known = {**os.environ, "HALLMARK_BUNDLE": str(bundle), "BENTOML_HOME": str(home / "bentoml")}
        known |= {"HALLMARK_AUTH__KEYS_FILE": str(home / "keys.json")}
        known |= {"HALLMARK_RECORDS__URL": f"sqlite:///{home}/records.sqlite"}
        known |= {"HALLMARK_RECORDS__SPOOL": str(home / "spool"), "HALLMARK_JOBS__DIRECTORY": str(home / "jobs")}
        known |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [str(Path(sys.executable).parent / "bentoml"), "serve", "-q", "bentos.service:Service"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        with log.open("ab") as out:
            self.process = subprocess.Popen(command, cwd=ROOT, env={**known, **environment}, stdout=out, stderr=out)
        self.wait()

    def wait(self) -> None:
        """Wait until the service is ready."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.call("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(f"the service is not ready: {self.log.read_text()[-3000:]}")

    def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """Send a request; returns status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            known = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
            connection.request(method, path, body, {**known, **headers})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def predict(self, value: Any) -> tuple[int, Any]:
        """Ask for one answer; returns status, and the answer or the problem."""
        status, body = self.call("POST", "/v1/predict", json.dumps(value).encode())
        found = json.loads(body)
        return status, found["rows"][0]["answer"] if status == 200 else found


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
