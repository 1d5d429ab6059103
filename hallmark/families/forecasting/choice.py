"""Paired comparison of two methods' errors for one subject, with a standard error clustered by day.

Windows of one day resemble each other, days much less so: the sample size is the number of days.
Legend of shapes: B windows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hallmark.arrays import Floats


@dataclass(frozen=True)
class Comparison:
    """Gain of changing from one method to another.

    Attributes:
        gain: relative decrease of the summed error; negative when the error rises.
        error: standard error of the gain over days; infinite for a single day.
        days: number of days that were compared.
    """

    gain: float
    error: float
    days: int

    def exceeds(self, margin: float, standard_errors: float) -> bool:
        """Tell whether the gain exceeds both a margin and a number of its standard errors."""
        return self.gain > margin and self.gain > standard_errors * self.error

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
