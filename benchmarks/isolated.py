"""python -m benchmarks.isolated: what it costs that steps share nothing but a bucket, beside a local run of a toy.

Every step runs in a process and an empty checkout of its own; the bucket is an S3 store on loopback. dvc.lock must be
the same. Most of the difference is starting Python, ZenML and torch again for each step.
"""

import argparse
import tempfile
import time
from pathlib import Path

from hallmark import kernels
from tests.buckets import served_bucket
from tests.presets import SMALL, outputs
from tests.stacks import compose, on_stack, repro
from tests.workspace import copy_repository


def main() -> None:
    """Measure and print."""
    kernels.pin()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=sorted(SMALL), help="presets of conf/experiment")
    options = parser.parse_args()
    with served_bucket() as bucket:
        for name in options.only:
            with tempfile.TemporaryDirectory(prefix="isolated-") as scratch:
                local, remote = (copy_repository(Path(scratch) / where) for where in ("local", "remote"))
                compose(local, name)
                compose(remote, name)
                start = time.monotonic()
                done = repro(local)
                here = time.monotonic() - start
                if done.returncode:
                    raise SystemExit(f"{name}: {done.stdout[-500:]}{done.stderr[-500:]}")
                start = time.monotonic()
                steps = on_stack(remote, bucket, {})
                there = time.monotonic() - start
                equal = "equal" if outputs(remote) == outputs(local) else "NOT equal"
                overhead = (there - here) / len(steps)
                print(
                    f"{name:10} outputs {equal}: {here:.0f} s here, {there:.0f} s in {len(steps)} isolated steps, "
                    f"{overhead:.1f} s a step more",
                    flush=True,
                )


if __name__ == "__main__":
    main()
