"""A service of the toy bundle in this process, behind real HTTP, with a key for every role."""

import asyncio
import json
import socket
import threading
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


def as_json(model: Any) -> dict[str, Any]:
    """The JSON values of a pydantic model."""
    return dict(json.loads(model.model_dump_json()))


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
