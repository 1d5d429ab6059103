"""python -m benchmarks.hash_tree: prove, read, add and remove one of 10,000 packed adapters.

The peer is what a bundle without a tree does: digest the whole file. Times are on the clock, medians.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hallmark.adapters.bank import AdapterSpec
from hallmark.adapters.files import PackedStore, row_digest, write_packed
from hallmark.adapters.tree import HashTree, check_proof
from hallmark.files import sha256

TRIED = 500


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=int, default=10_000)
    options = parser.parse_args()
    shapes = {f"layer.{i}": (128, 128) for i in range(8)}  # rank 4, 32 KB an adapter
    spec, generator = AdapterSpec("b" * 64, 4, 8.0, shapes), np.random.default_rng(0)
    names = [f"person-{i:06d}" for i in range(options.adapters)]
    with tempfile.TemporaryDirectory(prefix="packed-", dir=os.environ.get("TMPDIR")) as scratch:
        file = Path(scratch) / "adapters.safetensors"
        rows = ((name, generator.standard_normal(spec.size, dtype=np.float32)) for name in names)
        root = write_packed(rows, len(names), spec, file)
        store = PackedStore(file, spec, root)
        opening = timed(lambda: store.subjects)
        picked = [names[int(i)] for i in generator.integers(0, len(names), TRIED)]
        reading = statistics.median(timed(lambda name=name: store.read(name)) for name in picked)
        row, proof = store.read(picked[0]), store.prove(picked[0])
        proving = statistics.median(
            timed(lambda: check_proof(root, picked[0], row_digest(row), proof)) for _ in range(TRIED)
        )
        whole = statistics.median(timed(lambda: sha256(file)) for _ in range(3))
        print(f"{len(names):,} adapters of {spec.size / 256:.0f} KB, {file.stat().st_size / 1e6:.0f} MB in one file")
        print(f"opened, with the tree: {1e3 * opening:.0f} ms; digesting the whole file: {1e3 * whole:.0f} ms")
        print(f"one adapter read and proven: {1e3 * reading:.3f} ms; digest and proof alone: {1e3 * proving:.3f} ms")
    tree = HashTree(dict.fromkeys(names, "ab" * 32))
    adding = statistics.median(timed(lambda i=i: tree.put(f"new-{i}", "cd" * 32)) for i in range(TRIED))
    removing = statistics.median(timed(lambda i=i: tree.remove(f"new-{i}")) for i in range(TRIED))
    hashes = tree.put("new", "cd" * 32)
    print(f"added: {hashes} hashes, {1e6 * adding:.0f} µs; removed: {hashes} hashes, {1e6 * removing:.0f} µs")


def timed(function: Callable[[], Any]) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
