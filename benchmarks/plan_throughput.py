"""How many measured training runs lie in the range of a GPU's peak that a plan assumes.

    python -m benchmarks.plan_throughput TABLE.csv

TABLE.csv: columns GPU (a100_40gb, a100_80gb, h100_80gb), Precision and MFU, as MosaicML publishes them. Rows
in fp8 are another peak and are left out; the ranges of conf/plan/gpus.yaml were read from the same table.
"""

import argparse
from pathlib import Path

import pandas as pd

from hallmark.plan.prices import read_gpus

NAMES = {"a100_40gb": "A100-40GB", "a100_80gb": "A100-80GB", "h100_80gb": "H100"}


def main() -> None:
    """Print the share per GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("table", type=Path)
    table = pd.read_csv(parser.parse_args().table)
    table = table[~table["Precision"].str.contains("fp8")]
    gpus = read_gpus()
    inside = []
    for name, rows in table.groupby("GPU"):
        low, high = gpus[NAMES[str(name)]].mfu or (0.0, 0.0)
        inside.append(rows["MFU"].between(100 * low, 100 * high))
        print(f"{name}: {inside[-1].mean():.0%} of {len(rows)} rows in {low:.0%} to {high:.0%}")
    print(f"all: {pd.concat(inside).mean():.0%}")


if __name__ == "__main__":
    main()
