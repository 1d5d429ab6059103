"""Clarke and Parkes (consensus) error grids: the clinical risk of a glucose error, pair by pair.

Both functions return severities 0 (A, clinically accurate) to 4 (E, opposite treatment), so lower
is better. All concentrations are mg/dL: a mmol/L series would look almost perfect, because in
both grids every pair of very low values is in zone A. Check the unit before calling.

A point exactly on a boundary belongs to the milder of the two zones, in both grids. Comparisons
are cross-multiplied rather than divided, so the rule is exact for whole mg/dL.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

ZONES: Final = ("A", "B", "C", "D", "E")
A, B, C, D, E = range(5)

# Type 1 diabetes, (reference, predicted) in mg/dL, as printed in Table 1 of Pfützner et al. 2013.
# A boundary is the mild edge of its zone; beyond its last vertex the last segment is extended.
PARKES_UPPER: Final = {
    "B": ((0, 50), (30, 50), (140, 170), (280, 380), (430, 550)),
    "C": ((0, 60), (30, 60), (50, 80), (70, 110), (260, 550)),
    "D": ((0, 100), (25, 100), (50, 125), (80, 215), (125, 550)),
    "E": ((0, 150), (35, 155), (50, 550)),
}
PARKES_LOWER: Final = {
    "B": ((50, 0), (50, 30), (170, 145), (385, 300), (550, 450)),
    "C": ((120, 0), (120, 30), (260, 130), (550, 250)),
    "D": ((250, 0), (250, 40), (550, 150)),
}


def clarke_zone(reference_mg_dl: npt.ArrayLike, predicted_mg_dl: npt.ArrayLike) -> IntArray:
    """Assign each pair to its zone of the Clarke error grid.

    The paper defines the zones in words and a figure: A is at most 20% off, or both below 70;
    treatment targets 70 to 180, and it is failing to treat below 70 or above 240 that harms.
    The lines of the figure, hence the equations, are the interpretation that implementations share:
    upper C above `reference + 110`, lower C below `7/5 reference - 182` for 130 to 180. Upper C
    is not cut off at reference 290, where its line merely leaves the 400 mg/dL figure.

    Args:
        reference_mg_dl: measured glucose, mg/dL, finite and not negative, any shape.
        predicted_mg_dl: predicted glucose, mg/dL, of the same shape.

    Returns:
        Zones of the same shape, 0 (A) to 4 (E).

    Raises:
        ValueError: shapes differ, or a value is NaN, infinite or negative.

    Source: Clarke et al. 1987, Diabetes Care 10(5):622-628, doi 10.2337/diacare.10.5.622.
    """
    reference, predicted = _checked(reference_mg_dl, predicted_mg_dl)
    low, high = reference < 70, reference > 180
    predicted_low, predicted_high = predicted < 70, predicted > 180

    accurate = (5 * np.abs(predicted - reference) <= reference) | (low & predicted_low)
    opposite = (low & predicted_high) | (high & predicted_low)
    overcorrected = (~low & predicted_high & (predicted > reference + 110)) | (
        ~high & (5 * predicted < 7 * (reference - 130))
    )
    missed = (low | (reference > 240)) & ~predicted_low & ~predicted_high
    # The first match wins: the 20% band cuts a corner out of D (reference 58.3 to 70, and above
    # it nothing below 550), and the other zones do not overlap.
    return np.select([accurate, opposite, overcorrected, missed], [A, E, C, D], default=B)


def parkes_zone(reference_mg_dl: npt.ArrayLike, predicted_mg_dl: npt.ArrayLike) -> IntArray:
    """Assign each pair to its zone of the Parkes error grid for type 1 diabetes.

    The boundaries of one side are nested, so the severity is the number of boundaries between
    the pair and the diagonal. There is no lower E in this grid.

    Args:
        reference_mg_dl: measured glucose, mg/dL, finite and not negative, any shape.
        predicted_mg_dl: predicted glucose, mg/dL, of the same shape.

    Returns:
        Zones of the same shape, 0 (A) to 4 (E).

    Raises:
        ValueError: shapes differ, or a value is NaN, infinite or negative.

    Source: Parkes et al. 2000, Diabetes Care 23(8):1143-1148, doi 10.2337/diacare.23.8.1143;
        coordinates: Pfützner et al. 2013, J Diabetes Sci Technol 7(5):1275-1281, Table 1,
        doi 10.1177/193229681300700517.
    """
    reference, predicted = _checked(reference_mg_dl, predicted_mg_dl)
    zone = np.zeros(reference.shape, dtype=np.int64)
    for upper in PARKES_UPPER.values():
        zone += _height_over(upper, reference, predicted) > 0
    for lower in PARKES_LOWER.values():
        zone += _height_over(lower, reference, predicted) < 0
    return zone


def _height_over(boundary: tuple[tuple[int, int], ...], reference: FloatArray, predicted: FloatArray) -> FloatArray:
    """Return a number that is positive above the boundary, negative below it, zero on it.

    It is the cross product with the segment over each reference, which needs no slope: on a
    vertical first segment it is positive to the left (never below) and zero on the line.
    """
    x, y = np.array(boundary, dtype=np.float64).T
    left = np.clip(np.searchsorted(x, reference, side="left") - 1, 0, len(x) - 2)
    run, rise = np.diff(x)[left], np.diff(y)[left]
    height: FloatArray = (predicted - y[left]) * run - (reference - x[left]) * rise
    return height


def _checked(reference_mg_dl: npt.ArrayLike, predicted_mg_dl: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    reference = np.asarray(reference_mg_dl, dtype=np.float64)
    predicted = np.asarray(predicted_mg_dl, dtype=np.float64)
    if reference.shape != predicted.shape:
        raise ValueError(
            f"reference_mg_dl has shape {reference.shape} but predicted_mg_dl {predicted.shape}: "
            "pass one prediction for each reference."
        )
    for name, values in (("reference_mg_dl", reference), ("predicted_mg_dl", predicted)):
        invalid = ~(np.isfinite(values) & (values >= 0))
        if invalid.any():
            raise ValueError(
                f"{name} holds {int(invalid.sum())} values that are no concentration, the first "
                f"is {values[invalid][0]}: drop pairs without a reading, clip predictions at 0."
            )
    return reference, predicted
