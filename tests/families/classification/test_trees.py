"""Trees as arrays say what the library that grew them says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.ensemble import HistGradientBoostingClassifier

from hallmark.errors import BundleError
from hallmark.families.classification.trees import HistGradientBoosting, LightGBM, Trees
from hallmark.learn.candidates import NoTrainer

SETTINGS: dict[str, Any] = {"iterations": 30, "learning_rate": 0.1, "leaves": 15, "leaf_examples": 5, "l2": 1.0}


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 6)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] * x[:, 2] + 0.5 * rng.normal(size=1500) > 0).astype(np.int64)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[::50, 5] = np.inf
    return x, y


def test_scikit_learns_trees_are_taken_over_exactly(sample: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = sample
    trees = HistGradientBoosting("h", feature_share=0.5, **SETTINGS).fit(x, y, 3)
    oracle = HistGradientBoostingClassifier(
        max_iter=30, learning_rate=0.1, max_leaf_nodes=15, min_samples_leaf=5, l2_regularization=1.0, max_features=0.5,
        early_stopping=False, random_state=3,
    ).fit(x, y)  # fmt: skip
    np.testing.assert_allclose(trees.raw(x), oracle.decision_function(x), rtol=1e-12, atol=1e-12)
    logits = trees.logits(x)
    np.testing.assert_allclose(1 / (1 + np.exp(logits[:, 0] - logits[:, 1])), oracle.predict_proba(x)[:, 1])


@pytest.mark.parametrize("missing", [True, False])
def test_lightgbms_trees_are_taken_over_exactly(sample: tuple[np.ndarray, np.ndarray], missing: bool) -> None:
    import lightgbm

    x, y = sample
    learned = x if missing else np.nan_to_num(x, posinf=9.0)
    config = LightGBM("l", feature_share=1.0, **SETTINGS)
    trees = config.fit(learned, y, 3)
    settings = {
        "objective": "binary", "learning_rate": 0.1, "num_leaves": 15, "min_data_in_leaf": 5, "lambda_l2": 1.0,
        "feature_fraction": 1.0, "seed": 3, "deterministic": True, "force_row_wise": True, "num_threads": 1,
        "verbosity": -1,
    }  # fmt: skip
    oracle = lightgbm.train(settings, lightgbm.Dataset(learned, y), num_boost_round=30)
    np.testing.assert_allclose(trees.raw(x), oracle.predict(x, raw_score=True), rtol=1e-9, atol=1e-9)


def test_they_are_stored_as_arrays_and_a_corrupt_file_is_refused(
    sample: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    x, y = sample
    trees = HistGradientBoosting("h", feature_share=1.0, **SETTINGS).fit(x, y, 0)
    save_file(trees.tensors(), str(tmp_path / "trees.safetensors"))
    tensors = load_file(str(tmp_path / "trees.safetensors"))
    np.testing.assert_array_equal(Trees.of(tensors).raw(x), trees.raw(x))
    with pytest.raises(BundleError, match="value is missing or unknown"):
        Trees.of({name: array for name, array in tensors.items() if name != "value"})
    with pytest.raises(BundleError, match=r"trees point outside their \d+ nodes \(left\)"):
        Trees.of({**tensors, "left": tensors["left"] + 10**6})
    inner = int(np.flatnonzero(tensors["left"] > np.arange(len(tensors["left"])))[3])
    turned = tensors["left"].copy()
    turned[inner] = 0
    with pytest.raises(BundleError, match="points back"):
        Trees.of({**tensors, "left": turned})


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"leaves\n.*greater than or equal to 2"):
        HistGradientBoosting("h", feature_share=1.0, **{**SETTINGS, "leaves": 0})
    with pytest.raises(ValueError, match="processes=2: one is enough"):
        NoTrainer(0, 2)
