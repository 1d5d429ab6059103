"""python -m benchmarks.operate_rollback --bundle bundle: promotions and rollbacks while a real service is asked.

Four clients ask all the time. Of every switch: seconds from the moment at which the pointer moved until the last answer
of the old version was sent, and whether a request failed. The first switch to a version opens it; a later one finds the
model that answered before in memory.
"""

import argparse
import http.client
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.crowd import crowded, name_of, read_example, requests
from benchmarks.service_load import calls, serving
from bentos.keys import make_key, write_keys
from hallmark.contracts import Verdict
from hallmark.prove.bundle import Contents, make_bundle, open_bundle
from hallmark.prove.serving import ServedVersions

PEOPLE, CLIENTS = 64, 4


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("bundle"), help="of a forecasting task")
    parser.add_argument("--switches", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rollback-") as scratch:
        first = crowded(options.bundle, PEOPLE, Path(scratch))
        second = other(first, Path(scratch, "second"))
        task = open_bundle(first)[0].task
        served = ServedVersions(task, Path(scratch, "served"))
        served.promote(first)
        key, entry = make_key("load", "service")
        write_keys(Path(scratch, "keys.json"), [entry])
        asked = requests(read_example(task), [name_of(i) for i in range(PEOPLE)])
        path, bodies, headers = calls("ours", asked, key)
        known = dict(line.split(": ", 1) for line in headers.strip().split("\r\n"))
        with serving("ours", served.current, Path(scratch)) as (port, _, _):
            answers: list[tuple[float, str, bool]] = []
            stop = threading.Event()
            clients = [
                threading.Thread(target=ask, args=(port, path, bodies[number::CLIENTS], known, answers, stop))
                for number in range(CLIENTS)
            ]
            for client in clients:
                client.start()
            time.sleep(5)
            moved = []
            for number in range(options.switches):
                switch = served.promote(second) if number % 2 == 0 else served.roll_back()
                moved.append((time.perf_counter(), switch.before[1], number))
                time.sleep(5)
            stop.set()
            for client in clients:
                client.join()
        took = [
            max([end for end, digest, _ in answers if digest == old and at < end < at + 5] or [at]) - at
            for at, old, _ in moved
        ]
        failed = sum(not good for _, _, good in answers)
        print(f"{len(answers):,} requests of {CLIENTS} clients, {failed} failed, {len(moved)} switches")
        print(f"the first one {took[0]:.2f} s; later ones, median {statistics.median(took[1:]):.2f}, ", end="")
        print(f"longest {max(took[1:]):.2f} s; all: {json.dumps([round(t, 2) for t in took])}")


def other(bundle: Path, out: Path) -> Path:
    """Make a version with the same weights and another manifest."""
    hallmark, _ = open_bundle(bundle)
    verdicts = [Verdict(**verdict) for verdict in hallmark.verdicts]
    spec = (hallmark.task, hallmark.spec, hallmark.requirements, hallmark.schema, {"crowd": "other"}, hallmark.metrics)
    make_bundle(bundle, Contents(*spec, verdicts, "# other\n", None), out)
    return out


def ask(
    port: int,
    path: str,
    bodies: list[bytes],
    headers: dict[str, str],
    answers: list[tuple[float, str, bool]],
    stop: threading.Event,
) -> None:
    """Ask until told to stop; note when each answer came, of which version, and whether it was one."""
    connection, number = http.client.HTTPConnection("127.0.0.1", port, timeout=30), 0
    while not stop.is_set():
        body = bodies[number % len(bodies)]
        number += 1
        try:
            connection.request("POST", path, body, {"content-type": "application/json", **headers})
            response = connection.getresponse()
            text = response.read()
            [row] = json.loads(text)["rows"]
            answers.append((time.perf_counter(), str(row["evidence"]["hallmark_sha256"]), response.status == 200))
        except (OSError, ValueError, KeyError, http.client.HTTPException):
            answers.append((time.perf_counter(), "", False))
            connection.close()


if __name__ == "__main__":
    main()
