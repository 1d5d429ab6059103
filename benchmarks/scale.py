"""What grows with the number of people, measured with the files of a real bundle as far as they fit on this machine.

    python -m benchmarks.scale [--bundle bundles/glucose] [--people 10000 100000 1000000]

Every person gets the personal files of somebody in the bundle, as hard links in directories as the bundle has them; so
the names are real, and the bytes exist once. Printed are constants per person; docs/scale.md computes with them.
"""

import argparse
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from hallmark.adapters.tree import HashTree
from hallmark.files import sha256

SLOTS = (256, 4096)
REQUESTS = 200_000


def main() -> None:
    """Print one line per figure and number of people."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bundle", type=Path, default=Path("bundles/glucose"))
    parser.add_argument("--people", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    options = parser.parse_args()
    subjects = sorted(path for path in (options.bundle / "subjects").iterdir() if path.is_dir())
    histories = [subject / "history.safetensors" for subject in subjects]
    size = sum(sum(f.stat().st_size for f in s.rglob("*") if f.is_file()) for s in subjects) / len(subjects)
    print(f"bytes a person, mean of {len(subjects)}: {size:,.0f}; a history alone {histories[0].stat().st_size:,}")
    for people in options.people:
        with tempfile.TemporaryDirectory(dir=options.bundle.parent, prefix=".scale-") as scratch:
            measure(people, histories, Path(scratch))


def measure(people: int, histories: list[Path], scratch: Path) -> None:
    """Write files for so many people, then find and digest those of some, and change some in a hash tree."""
    began = time.process_time()
    for number in range(people):
        directory = scratch / f"p{number:07d}"
        directory.mkdir()
        os.link(histories[number % len(histories)], directory / "history.safetensors")
    written = time.process_time() - began
    generator = np.random.default_rng(0)
    asked = [scratch / f"p{number:07d}" / "history.safetensors" for number in generator.integers(0, people, 2_000)]
    began = time.process_time()
    digests = [sha256(file) for file in asked]
    read = (time.process_time() - began) / len(asked)
    began = time.process_time()
    tree = HashTree({f"p{number:07d}": digests[number % len(digests)] for number in range(people)})
    built = time.process_time() - began
    began = time.process_time()
    for place, file in enumerate(asked):
        tree.put(file.parent.name, digests[place])
    changed = (time.process_time() - began) / len(asked)
    hits = ", ".join(f"{hit_rate(people, slots):.0%} of {slots:,} slots" for slots in SLOTS)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{people:>9,} people: directories written in {written:.1f} CPU s; a file found and digested in "
        f"{read * 1e6:.0f} µs; hash tree built in {built:.1f} s, one changed in {changed * 1e6:.0f} µs; "
        f"cache hits {hits} (Zipf, exponent 1); {memory:.2f} GB",
        flush=True,
    )
    began = time.process_time()
    shutil.rmtree(scratch, ignore_errors=True)
    print(f"{'':>9}         removed in {time.process_time() - began:.1f} CPU s")


def hit_rate(people: int, slots: int) -> float:
    """Return the share of requests whose adapter is in an LRU cache, if people ask by Zipf's law."""
    from collections import OrderedDict

    weights = 1 / np.arange(1, people + 1)
    drawn = np.random.default_rng(1).choice(people, REQUESTS, p=weights / weights.sum())
    cache: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for person in drawn.tolist():
        if person in cache:
            hits += 1
            cache.move_to_end(person)
            continue
        cache[person] = None
        if len(cache) > slots:
            cache.popitem(last=False)
    return hits / REQUESTS


if __name__ == "__main__":
    main()
