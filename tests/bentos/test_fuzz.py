"""Whatever the OpenAPI document allows, and what it does not: never a server error, and no echo in the logs."""

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bentos.server import Server, running

EXAMPLES = "25"  # of every operation and phase


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    people = {"ada": ("sim-000", "person", ())}
    settings: dict[str, Any] = {"rate": {"rows": "1000000/second", "failures": "1000000/second"}}
    with running(bundle, tmp_path_factory.mktemp("fuzz"), people, **settings) as found:
        yield found


@pytest.mark.parametrize("who", ["admin", "ada", None])
def test_no_request_is_a_server_error(
    server: Server, who: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{server.address}/openapi.json"]
    command += ["--checks", "not_a_server_error,content_type_conformance", "--max-examples", EXAMPLES]
    command += ["--mode", "all", "--phases", "examples,coverage,fuzzing", "--seed", "1", "--no-color"]
    if who:
        command += ["--header", f"Authorization: Bearer {server.keys[who]}"]
    with caplog.at_level(logging.INFO):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    generated, passed = re.search(r"(\d+) generated, (\d+) passed", done.stdout).groups()  # type: ignore[union-attr]
    assert int(passed) == int(generated) > 300
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
