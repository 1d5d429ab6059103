"""ZenML's dashboard opens on the runs."""

import asyncio
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from runtime.dashboard import RUNS, opening_on_runs
from tests.workspace import copy_repository, environment


def answer(application: Any, path: str) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(application({"type": "http", "path": path}, None, send))
    return sent


def test_the_first_page_leads_to_the_runs_and_every_other_page_is_zenmls() -> None:
    async def zenml(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    start, _ = answer(opening_on_runs(zenml), "/")
    assert (start["status"], dict(start["headers"])[b"location"]) == (307, RUNS.encode())
    assert answer(opening_on_runs(zenml), "/models") == [{"type": "http.response.start", "status": 200}]


@pytest.mark.slow
def test_the_real_server_shows_a_page_there(tmp_path: Path) -> None:
    where = copy_repository(tmp_path / "repository")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "runtime.dashboard", str(port)]
    server = subprocess.Popen(command, cwd=where, env=environment(where), stderr=subprocess.DEVNULL)
    try:
        for _ in range(240):
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60)
                break
            except OSError:  # not there yet, or busy
                assert server.poll() is None
                time.sleep(0.5)
        assert page.url.endswith(RUNS)
        assert b"<html" in page.read().lower()
    finally:
        server.terminate()
        server.wait(30)
