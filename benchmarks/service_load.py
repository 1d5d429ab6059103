"""python -m benchmarks.service_load --bundle bundle: requests a second and latency of the service beside its peers.

64 people ask for personal forecasts; records and witness are on in ours. Every round runs all three one after the
other, so that other work on the machine meets all of them; medians of the rounds, and CPU seconds of the server.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import psutil

from benchmarks.crowd import crowded, name_of, read_example, requests
from benchmarks.http_load import fire
from bentos.keys import make_key, write_keys
from hallmark.files import write_json
from hallmark.kernels import processor
from hallmark.plan.serve import SERVED, Load
from hallmark.prove.bundle import open_bundle

PEOPLE = 64
CLIENTS = (1, 16, 64)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("bundle"), help="of a forecasting task")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", nargs="*", default=["ours", "fastapi", "batchable"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="service-") as scratch:
        bundle = crowded(options.bundle, PEOPLE, Path(scratch))
        example = read_example(open_bundle(bundle)[0].task)
        asked = requests(example, [name_of(i) for i in range(PEOPLE)])
        key, entry = make_key("load", "service")
        write_keys(Path(scratch, "keys.json"), [entry])
        rates: dict[tuple[str, int], list[float]] = {}
        latency: dict[tuple[str, int], list[float]] = {}
        for _ in range(options.rounds):
            for peer in options.peers:
                with serving(peer, bundle, Path(scratch)) as (port, process, start_s):
                    print(f"  {peer}: ready after {start_s:.1f} s, {memory(process):.0f} MB", file=sys.stderr)
                    for clients in CLIENTS:
                        path, bodies, headers = calls(peer, asked, key)
                        asyncio.run(fire(port, path, bodies, clients, 1.0, headers))
                        before = cpu(process)
                        took, failed = asyncio.run(fire(port, path, bodies, clients, options.seconds, headers))
                        spent = cpu(process) - before
                        rates.setdefault((peer, clients), []).append((len(took) - failed) / options.seconds)
                        latency.setdefault((peer, clients), []).extend(took)
                        milliseconds = 1000 * spent / max(len(took), 1)
                        rate = rates[peer, clients][-1]
                        figures = f"{rate:7.1f} req/s, {milliseconds:5.2f} CPU ms, {failed} failed"
                        line = f"  {peer:10} c={clients:<3} {figures}"
                        print(line, file=sys.stderr, flush=True)
        show(rates, latency)
        keep(rates, latency, options.bundle)


def show(rates: dict[tuple[str, int], list[float]], latency: dict[tuple[str, int], list[float]]) -> None:
    """Print a line for each peer and number of clients."""
    print(f"{'':10} {'clients':>8} {'req/s':>8} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8}")
    for (peer, clients), values in sorted(rates.items()):
        took = sorted(latency[peer, clients])
        at = [quantile_ms(took, share) for share in (0.5, 0.95, 0.99)]
        print(f"{peer:10} {clients:8} {statistics.median(values):8.1f}" + "".join(f"{value:9.1f}" for value in at))
    for clients in CLIENTS:
        ours = statistics.median(rates["ours", clients])
        for peer in {name for name, _ in rates} - {"ours"}:
            print(f"ours / {peer} at {clients}: {ours / statistics.median(rates[peer, clients]):.2f}")


def quantile_ms(took: list[float], share: float) -> float:
    """Return a quantile of sorted seconds, in milliseconds."""
    return 1000 * took[min(len(took) - 1, int(share * len(took)))]


def keep(rates: dict[tuple[str, int], list[float]], latency: dict[tuple[str, int], list[float]], bundle: Path) -> None:
    """Keep what the service carries here, for `hallmark plan serve`."""
    known, digest = open_bundle(bundle)
    loads = []
    for (peer, clients), values in sorted(rates.items()):
        if peer == "ours":
            took = sorted(latency[peer, clients])
            p95 = quantile_ms(took, 0.95)
            name = f"{known.task} {known.version} ({digest[:12]})"
            loads.append(asdict(Load(name, processor(), clients, statistics.median(values), p95)))
    if loads:
        write_json(SERVED, loads)


def calls(peer: str, asked: list[dict[str, object]], key: str) -> tuple[str, list[bytes], str]:
    """Return path, bodies and headers of a peer."""
    if peer == "ours":
        return "/v1/predict", [json.dumps(r).encode() for r in asked], f"Authorization: Bearer {key}\r\n"
    if peer == "batchable":
        return "/predict", [json.dumps({"requests": [r]}).encode() for r in asked], ""
    return "/predict", [json.dumps(r).encode() for r in asked], ""


@contextmanager
def serving(peer: str, bundle: Path, scratch: Path) -> Iterator[tuple[int, psutil.Process, float]]:
    """Run a peer; yields its port, its process, and the seconds until it was ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    module = {"ours": "bentos.service:Service", "batchable": "benchmarks.service_peers:Batchable"}.get(peer)
    home = str(scratch / peer)
    from hallmark import kernels

    environment = {**os.environ, **kernels.environment(), "HALLMARK_BUNDLE": str(bundle), "BENTOML_HOME": home}
    environment |= {"BENTOML_DO_NOT_TRACK": "True", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    if peer == "ours":
        environment |= {"HALLMARK_AUTH__KEYS_FILE": str(scratch / "keys.json"), "HALLMARK_RATE__ROWS": "1000000/second"}
        environment |= {"HALLMARK_RECORDS__URL": f"sqlite:///{scratch}/records.sqlite"}
        environment |= {"HALLMARK_RECORDS__SPOOL": str(scratch / "spool")}
    bin_ = Path(sys.executable).parent
    command = [str(bin_ / "bentoml"), "serve", "-q", str(module), "--host", "127.0.0.1", "--port", str(port)]
    if module is None:
        command = [str(bin_ / "uvicorn"), "benchmarks.service_peers:fastapi", "--factory", "--port", str(port)]
        command += ["--log-level", "warning"]
    start = time.perf_counter()
    with (scratch / f"{peer}.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        while True:
            if process.poll() is not None:
                raise SystemExit(f"{peer} ended: {(scratch / f'{peer}.log').read_text()[-2000:]}")
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                break
            time.sleep(0.1)
        yield port, psutil.Process(process.pid), time.perf_counter() - start
    finally:
        process.terminate()
        process.wait(60)


def tree(process: psutil.Process) -> list[psutil.Process]:
    """Return a process and its children."""
    return [process, *process.children(recursive=True)]


def cpu(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and its children."""
    return sum(sum(p.cpu_times()[:2]) for p in tree(process))


def memory(process: psutil.Process) -> float:
    """Return the resident memory of a process and its children, MB."""
    return sum(p.memory_info().rss for p in tree(process)) / 1e6


if __name__ == "__main__":
    main()
