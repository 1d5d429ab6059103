"""python -m benchmarks.operate_guard: how often the guard rolls back versions that fail by various shares.

The guard looks after every ten rows of 5,000, by the default settings of the service; the version before is not known.
A naive guard rolls back as soon as the share seen so far is above the bound.
"""

import numpy as np

from bentos.settings import GuardSettings
from hallmark.watch.guard import Seen, judge

RUNS, ROWS, LOOK = 1000, 5000, 10


def main() -> None:
    """Measure and print."""
    rule = GuardSettings().rule
    generator = np.random.default_rng(0)
    looks = np.arange(LOOK, ROWS + 1, LOOK)
    first = [next((f for f in range(rows + 1) if judge(Seen(rows, f), Seen(), rule)), ROWS + 1) for rows in looks]
    for share in (0.005, 0.01, 0.015, 0.02, 0.04, 0.1, 0.5):
        failed = (generator.random((RUNS, ROWS)) < share).reshape(RUNS, -1, LOOK).sum(2).cumsum(1)
        told = failed >= np.asarray(first)
        rows = [int(looks[row.argmax()]) for row in told if row.any()]
        naive = (failed[:, 1:] / looks[1:] > rule.failed_share).any(1).mean()
        after = f", median after {int(np.median(rows))} rows" if rows else ""
        print(f"fails at {share:.1%}: rolled back in {told.any(1).mean():.1%} of {RUNS} runs{after}; naive {naive:.1%}")


if __name__ == "__main__":
    main()
