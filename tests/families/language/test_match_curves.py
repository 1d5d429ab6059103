"""Cosines become probabilities that can be checked against counting."""

from pathlib import Path

import numpy as np
import pytest

from hallmark.errors import BundleError, DataError
from hallmark.families.language.match_curves import MatchConfig, fit_curves, load_curves, save_curves


def world(questions: int = 300, answers: int = 12) -> tuple[np.ndarray, list[set[int]]]:
    rng = np.random.default_rng(0)
    right = [{int(rng.integers(answers))} for _ in range(questions)]
    cosines = rng.normal(0.3, 0.1, (questions, answers))
    for q, mine in enumerate(right):
        cosines[q, list(mine)] += 0.25
    return cosines, right


def test_probabilities_are_how_often_it_is_so() -> None:
    cosines, right = world()
    found = fit_curves(cosines, right, MatchConfig(nearest=12, sentences_per_document=10, samples=2, seed=0))
    belongs = np.asarray([[a in mine for a in range(12)] for mine in right])
    said = found.requirement.probability(cosines)
    for low, high in ((0.0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.0)):
        inside = (said >= low) & (said < high)
        assert belongs[inside].mean() == pytest.approx(said[inside].mean(), abs=0.12)


def test_more_lines_need_more_to_show_something() -> None:
    cosines, right = world()
    few, many = (
        fit_curves(cosines, right, MatchConfig(12, sentences_per_document, 2, 0)).evidence
        for sentences_per_document in (2, 60)
    )
    assert many.probability(0.55) < few.probability(0.55)


def test_valid_without_contrast_is_refused() -> None:
    with pytest.raises(DataError, match="too few to calibrate on"):
        fit_curves(np.ones((1, 1)), [{0}], MatchConfig(1, 1, 1, 0))


def test_curves_come_back_as_they_were(tmp_path: Path) -> None:
    found = fit_curves(*world(), MatchConfig(5, 5, 1, 0))
    save_curves(tmp_path, found)
    assert load_curves(tmp_path) == found
    (tmp_path / "curves.json").write_text("{}")
    with pytest.raises(BundleError, match="run `dvc repro train`"):
        load_curves(tmp_path)
