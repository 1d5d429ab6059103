"""python -m benchmarks.service_steady --bundle bundle: a lone request after a burst, and memory at steady load.

A burst of 64 clients, then single requests: they must be no slower than before it. Then ten minutes of four clients:
memory of the service is read every 30 seconds, and must not grow after the first minutes.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.crowd import crowded, name_of, read_example, requests
from benchmarks.http_load import fire
from benchmarks.service_load import PEOPLE, calls, memory, serving
from bentos.keys import make_key, write_keys
from hallmark.prove.bundle import open_bundle


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("bundle"), help="of a forecasting task")
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="steady-") as scratch:
        bundle = crowded(options.bundle, PEOPLE, Path(scratch))
        asked = requests(read_example(open_bundle(bundle)[0].task), [name_of(i) for i in range(PEOPLE)])
        key, entry = make_key("load", "service")
        write_keys(Path(scratch, "keys.json"), [entry])
        path, bodies, headers = calls("ours", asked, key)
        with serving("ours", bundle, Path(scratch)) as (port, process, _):

            def load(clients: int, seconds: float) -> tuple[list[float], int]:
                return asyncio.run(fire(port, path, bodies, clients, seconds, headers))

            load(4, 5.0)
            before, _ = load(1, 8.0)
            load(64, 10.0)
            after, _ = load(1, 8.0)
            medians = [1000 * statistics.median(took) for took in (before, after)]
            print(f"a lone request: {medians[0]:.1f} ms before a burst, {medians[1]:.1f} ms after it")
            rows, failed = 0, 0
            used = [memory(process)]
            for _ in range(round(2 * options.minutes)):
                took, bad = load(4, 30.0)
                rows, failed = rows + len(took), failed + bad
                used.append(memory(process))
            print(f"{rows:,} requests, {failed} failed; MB every half minute: {json.dumps([round(m) for m in used])}")


if __name__ == "__main__":
    main()
