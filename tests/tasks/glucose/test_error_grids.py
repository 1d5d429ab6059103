"""Every expected zone below was derived by hand from the published rules and coordinates."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from hallmark.tasks.glucose.error_grids import (
    PARKES_LOWER,
    PARKES_UPPER,
    ZONES,
    clarke_zone,
    parkes_zone,
)

Zones = Callable[[npt.ArrayLike, npt.ArrayLike], npt.NDArray[np.int64]]
GRIDS = pytest.mark.parametrize("grid", [clarke_zone, parkes_zone])

# (reference, predicted, zone), mg/dL. Corners of the figure in Clarke et al. 1987, each with the
# points around it: on a boundary the milder zone, one mg/dL beyond it the next.
CLARKE_CASES = [
    # (70, 70): below it on both axes is A; the 20% band passes through.
    (69, 69, "A"), (70, 70, "A"), (69, 70, "A"), (70, 69, "A"),
    # (70, 56): the lower 20% line meets reference 70; left of it is A, below the line is B.
    (70, 56, "A"), (70, 55, "B"), (69, 55, "A"), (69, 0, "A"), (70, 0, "B"),
    # (70, 84): the upper 20% line meets reference 70 (82.8 at 69); left is D, right is B.
    (70, 84, "A"), (70, 85, "B"), (69, 82, "A"), (69, 83, "D"), (69, 84, "D"),
    # (58 1/3, 70): the upper 20% line meets prediction 70 (69.6 at 58, 70.8 at 59).
    (58, 69, "A"), (58, 70, "D"), (59, 70, "A"), (59, 71, "D"), (50, 60, "A"), (60, 72, "A"),
    (60, 73, "D"),
    # (0, 70) and (0, 180): the left edge of D.
    (0, 69, "A"), (0, 70, "D"), (0, 180, "D"), (0, 181, "E"),
    # (70, 180): D, E, B and C meet.
    (69, 180, "D"), (69, 181, "E"), (70, 180, "B"), (70, 181, "C"), (71, 181, "B"), (71, 182, "C"),
    # The upper C line, reference + 110, and its end in the figure at (290, 400).
    (100, 210, "B"), (100, 211, "C"), (290, 400, "B"), (290, 401, "C"), (291, 401, "B"),
    (291, 402, "C"), (400, 511, "C"),
    # (130, 0), where lower C begins: 7/5 reference - 182 is 0 at 130, 1.4 at 131.
    (130, 0, "B"), (131, 0, "C"), (131, 1, "C"), (131, 2, "B"), (129, 0, "B"),
    # On the lower C line at (150, 28).
    (150, 28, "B"), (150, 27, "C"),
    # (180, 70): lower C, E and B meet; the line is 68.6 at 179.
    (180, 70, "B"), (180, 69, "C"), (179, 69, "B"), (179, 68, "C"), (181, 69, "E"), (181, 70, "B"),
    # (180, 0): between lower C and E.
    (180, 0, "C"), (181, 0, "E"),
    # (240, 70) and (240, 180): the left edge of the right D.
    (240, 70, "B"), (240, 69, "E"), (241, 70, "D"), (241, 69, "E"),
    (240, 180, "B"), (241, 180, "D"), (241, 181, "B"), (240, 181, "B"),
    # The 20% lines at 100 and 300.
    (100, 120, "A"), (100, 121, "B"), (100, 80, "A"), (100, 79, "B"),
    (300, 240, "A"), (300, 239, "B"), (300, 360, "A"), (300, 361, "B"),
    # Above reference 550 the 20% band reaches over the upper C line (700 + 110 = 810): A wins.
    (700, 840, "A"), (700, 841, "C"),
]  # fmt: skip

# Corners of Table 1 in Pfützner et al. 2013, the points around them, and points on the lines.
PARKES_CASES = [
    # Upper B: (0, 50), (30, 50), then 12/11 to (140, 170), 3/2 to (280, 380), 17/15 beyond.
    (0, 50, "A"), (0, 51, "B"), (30, 50, "A"), (30, 51, "B"), (31, 51, "A"), (31, 52, "B"),
    (85, 110, "A"), (85, 111, "B"), (140, 170, "A"), (140, 171, "B"), (141, 171, "A"),
    (141, 172, "B"), (280, 380, "A"), (280, 381, "B"), (281, 381, "A"), (281, 382, "B"),
    (430, 550, "A"), (430, 551, "B"), (580, 720, "A"), (580, 721, "B"),
    # Upper C: (0, 60), (30, 60), then 1 to (50, 80), 3/2 to (70, 110), 44/19 beyond.
    (0, 60, "B"), (0, 61, "C"), (30, 60, "B"), (30, 61, "C"), (31, 61, "B"), (31, 62, "C"),
    (50, 80, "B"), (50, 81, "C"), (51, 81, "B"), (51, 82, "C"), (70, 110, "B"), (70, 111, "C"),
    (71, 112, "B"), (71, 113, "C"), (260, 550, "B"), (260, 551, "C"), (279, 594, "B"),
    (279, 595, "C"),
    # Upper D: (0, 100), (25, 100), then 1 to (50, 125), 3 to (80, 215), 67/9 beyond.
    (0, 100, "C"), (0, 101, "D"), (25, 100, "C"), (25, 101, "D"), (26, 101, "C"), (26, 102, "D"),
    (50, 125, "C"), (50, 126, "D"), (51, 128, "C"), (51, 129, "D"), (80, 215, "C"),
    (80, 216, "D"), (81, 222, "C"), (81, 223, "D"), (125, 550, "C"), (125, 551, "D"),
    (134, 617, "C"), (134, 618, "D"),
    # Upper E: (0, 150), then 1/7 to (35, 155), 79/3 to (50, 550) and beyond.
    (0, 150, "D"), (0, 151, "E"), (7, 151, "D"), (7, 152, "E"), (35, 155, "D"), (35, 156, "E"),
    (36, 181, "D"), (36, 182, "E"), (50, 550, "D"), (50, 551, "E"), (53, 629, "D"),
    (53, 630, "E"),
    # Lower B: (50, 0), up to (50, 30), 23/24 to (170, 145), 31/43 to (385, 300), 10/11 beyond.
    (49, 0, "A"), (50, 0, "A"), (51, 0, "B"), (50, 30, "A"), (50, 29, "A"), (51, 30, "B"),
    (51, 31, "A"), (74, 53, "A"), (74, 52, "B"), (170, 145, "A"), (170, 144, "B"),
    (171, 145, "B"), (171, 146, "A"), (385, 300, "A"), (385, 299, "B"), (386, 300, "B"),
    (386, 301, "A"), (550, 450, "A"), (550, 449, "B"), (561, 460, "A"), (561, 459, "B"),
    # Lower C: (120, 0), up to (120, 30), 5/7 to (260, 130), 12/29 beyond.
    (120, 0, "B"), (121, 0, "C"), (120, 30, "B"), (120, 29, "B"), (121, 30, "C"), (121, 31, "B"),
    (260, 130, "B"), (260, 129, "C"), (261, 130, "C"), (261, 131, "B"), (550, 250, "B"),
    (550, 249, "C"), (579, 262, "B"), (579, 261, "C"),
    # Lower D: (250, 0), up to (250, 40), 11/30 beyond. The pair (550, 155) refuses a line
    # to (550, 161.3), which some implementations draw.
    (250, 0, "C"), (251, 0, "D"), (250, 40, "C"), (250, 39, "C"), (251, 40, "D"), (251, 41, "C"),
    (550, 150, "C"), (550, 149, "D"), (550, 155, "C"), (580, 161, "C"), (580, 160, "D"),
]  # fmt: skip


@pytest.mark.parametrize(("reference", "predicted", "zone"), CLARKE_CASES)
def test_clarke_corners_fall_on_the_published_side(reference: int, predicted: int, zone: str) -> None:
    assert ZONES[int(clarke_zone(reference, predicted))] == zone


@pytest.mark.parametrize(("reference", "predicted", "zone"), PARKES_CASES)
def test_parkes_corners_fall_on_the_published_side(reference: int, predicted: int, zone: str) -> None:
    assert ZONES[int(parkes_zone(reference, predicted))] == zone


def test_every_published_parkes_vertex_is_among_the_cases() -> None:
    tested = {(reference, predicted) for reference, predicted, _ in PARKES_CASES}
    boundaries = [*PARKES_UPPER.values(), *PARKES_LOWER.values()]
    assert {vertex for boundary in boundaries for vertex in boundary} <= tested


def test_parkes_agrees_with_exact_interpolation_of_the_published_lines() -> None:
    def line(boundary: tuple[tuple[int, int], ...], reference: int) -> Fraction:
        segments = list(pairwise(boundary))
        start, end = next((s for s in segments if reference <= s[1][0]), segments[-1])
        slope = Fraction(end[1] - start[1], end[0] - start[0])
        return start[1] + slope * (reference - start[0])

    axis = np.arange(0, 621, 4)
    zones = parkes_zone(*np.meshgrid(axis, axis, indexing="ij"))
    for row, reference in zip(zones, axis.tolist(), strict=True):
        uppers = [line(boundary, reference) for boundary in PARKES_UPPER.values()]
        lowers = [line(b[1:], reference) for b in PARKES_LOWER.values() if reference > b[0][0]]
        expected = [
            sum(predicted > y for y in uppers) + sum(predicted < y for y in lowers) for predicted in axis.tolist()
        ]
        assert row.tolist() == expected


@GRIDS
def test_a_perfect_prediction_is_always_in_zone_a(grid: Zones) -> None:
    glucose = np.linspace(0, 1000, 4001)
    assert not grid(glucose, glucose).any()


@GRIDS
def test_a_prediction_farther_off_is_never_in_a_milder_zone(grid: Zones) -> None:
    axis = np.arange(0, 651)
    zones = grid(*np.meshgrid(axis, axis, indexing="ij"))
    for reference, row in enumerate(zones):
        assert (np.diff(row[reference:]) >= 0).all()
        assert (np.diff(row[reference::-1]) >= 0).all()


@GRIDS
def test_all_five_zones_are_reached(grid: Zones) -> None:
    axis = np.arange(0, 401)
    assert set(np.unique(grid(*np.meshgrid(axis, axis)))) == {0, 1, 2, 3, 4}


def test_parkes_type_1_has_no_lower_e() -> None:
    assert int(parkes_zone(1000, 0)) == ZONES.index("D")


@GRIDS
def test_zones_are_integers_in_the_shape_of_the_input(grid: Zones) -> None:
    zones = grid([[100, 100], [60, 300]], [[100.0, 130.0], [100.0, 60.0]])
    assert zones.shape == (2, 2)
    assert zones.dtype == np.int64
    assert grid([], []).shape == (0,)


@GRIDS
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_a_value_that_is_no_concentration_is_refused(grid: Zones, bad: float) -> None:
    with pytest.raises(ValueError, match="predicted_mg_dl holds 1 values"):
        grid([100.0, 100.0], [100.0, bad])
    with pytest.raises(ValueError, match="reference_mg_dl holds 1 values"):
        grid([100.0, bad], [100.0, 100.0])


@GRIDS
def test_shapes_that_differ_are_refused_not_broadcast(grid: Zones) -> None:
    with pytest.raises(ValueError, match=r"shape \(2,\) but predicted_mg_dl \(1,\)"):
        grid([100.0, 120.0], [100.0])
