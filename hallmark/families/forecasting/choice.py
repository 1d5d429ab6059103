"""Paired comparison of two methods' errors for one subject, with a standard error clustered by day.

Windows of one day resemble each other, days much less so: the days are what is counted.
Legend of shapes: B windows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hallmark.arrays import Floats


@dataclass(frozen=True)
class Comparison:
    """What changing from one method to another gains.

    Attributes:
        gain: by which share the summed error falls; negative when it rises.
        error: standard error of the gain over days; infinite for a single day.
        days: how many days were compared.
    """

    gain: float
    error: float
    days: int

    def convinces(self, margin: float, sureness: float) -> bool:
        """Tell whether the gain exceeds a margin and so many of its standard errors."""
        return self.gain > margin and self.gain > sureness * self.error

    def __str__(self) -> str:
        return f"{self.gain:+.1%} ± {self.error:.1%} over {self.days} days"


def compare(before: Floats, after: Floats, day: npt.NDArray[Any]) -> Comparison:
    """Compare two methods on the same windows.

    Args:
        before: (B,) errors of the method in use, not negative.
        after: (B,) errors of its challenger.
        day: (B,) day of each window.
    """
    _, number = np.unique(day, return_inverse=True)
    fall = np.bincount(number, weights=before.astype(np.float64) - after)
    total = float(np.sum(before, dtype=np.float64))
    if not total > 0:
        return Comparison(0.0, float("inf"), len(fall))
    error = float(np.sqrt(len(fall) * fall.var(ddof=1))) if len(fall) > 1 else float("inf")
    return Comparison(float(fall.sum()) / total, error / total, len(fall))
