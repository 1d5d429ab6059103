"""An S3 store on loopback."""

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.bentos.server import free_port


@pytest.fixture(scope="session")
def bucket() -> Iterator[tuple[str, str]]:
    """A bucket and the address of its store."""
    with served_bucket() as found:
        yield found


@contextmanager
def served_bucket() -> Iterator[tuple[str, str]]:
    """Serve a bucket; yields it and the address of its store."""
    address = f"http://127.0.0.1:{free_port()}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", address.rpartition(":")[2]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # it writes a line for every request: a pipe that nobody reads would stop it
    )
    try:
        request = urllib.request.Request(f"{address}/artifacts", method="PUT")
        deadline = time.monotonic() + 300
        while True:
            try:
                urllib.request.urlopen(request)
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        yield "s3://artifacts", address
    finally:
        server.kill()
        server.wait()
