"""Binary gradient boosting (scikit-learn or LightGBM), saved as safetensors, predicted in NumPy.

A pickle may run code when it is read; arrays cannot. Legend of shapes: B examples, F features, N nodes, T trees.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from hallmark.arrays import Array
from hallmark.errors import BundleError, ConfigError


@dataclass(frozen=True)
class Trees:
    """An ensemble of binary trees whose leaves add up.

    Attributes:
        feature: (N,) column that a node looks at.
        threshold: (N,) values up to it go left.
        missing_left: (N,) whether NaN goes left.
        left: (N,) child; a leaf's is itself.
        right: (N,) the same.
        value: (N,) of leaves.
        roots: (T,) nodes at which trees begin.
        start: (1,) what is added to every sum.
    """

    feature: Array
    threshold: Array
    missing_left: Array
    left: Array
    right: Array
    value: Array
    roots: Array
    start: Array

    def raw(self, x: Array) -> Array:
        """Sum every tree's leaf, (B, F) → (B,): the logit of the second of two classes.

        Time is B × T × depth, memory B × T.
        """
        x = np.asarray(x, dtype=np.float64)
        node = np.repeat(self.roots[None], len(x), axis=0)
        rows = np.arange(len(x))[:, None]
        while True:
            seen = x[rows, self.feature[node]]
            go_left = np.where(np.isnan(seen), self.missing_left[node], seen <= self.threshold[node])
            after = np.where(go_left, self.left[node], self.right[node])
            if (after == node).all():
                return np.asarray(self.start[0] + self.value[node].sum(axis=1))
            node = after

    def logits(self, x: Array) -> Array:
        """Give both classes a logit, (B, 2); their difference is `raw`."""
        half = self.raw(x) / 2
        return np.stack([-half, half], axis=1)

    def tensors(self) -> dict[str, Array]:
        """Return the arrays by name, for safetensors."""
        return {f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def of(cls, tensors: Mapping[str, Array]) -> "Trees":
        """Take up what `tensors` gave.

        Raises:
            BundleError: an array is missing, or a node points outside.
        """
        if odd := sorted({f.name for f in fields(cls)} ^ set(tensors)):
            raise BundleError(f"trees have {', '.join(sorted(tensors))}: {odd[0]} is missing or unknown")
        found = cls(**dict(tensors))
        nodes = len(found.feature)
        for name in ("left", "right", "roots"):
            places = getattr(found, name)
            if len(places) and not (places.min() >= 0 and places.max() < nodes):
                raise BundleError(f"trees point outside their {nodes} nodes ({name}): the file is corrupt")
        # A child stands behind its parent, so every walk ends.
        ascending = [np.all((c > np.arange(nodes)) | (c == np.arange(nodes))) for c in (found.left, found.right)]
        if not all(ascending):
            raise BundleError("a node of the trees points back: the file is corrupt")
        return found


class TreeConfig(Protocol):
    """What `conf/model/*.yaml` builds for tables."""

    @property
    def name(self) -> str:
        """Name in reports."""

    def fit(self, x: Array, y: Array, seed: int) -> Trees:
        """Learn two classes, (B, F) and (B,) of 0 and 1; NaN is missing."""


@dataclass(frozen=True)
class _Boosting:
    """What every library's boosting is told.

    Attributes:
        name: among candidates.
        iterations: trees.
        learning_rate: of each.
        leaves: most of a tree.
        leaf_examples: fewest in a leaf.
        l2: penalty on leaves.
        feature_share: of features that a split, or in LightGBM a tree, may choose from.
    """

    name: str
    iterations: int
    learning_rate: float
    leaves: int
    leaf_examples: int
    l2: float
    feature_share: float

    def __post_init__(self) -> None:
        for name in ("iterations", "learning_rate", "leaves", "leaf_examples", "feature_share"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")


@dataclass(frozen=True)
class HistGradientBoosting(_Boosting):
    """scikit-learn's histogram gradient boosting."""

    def fit(self, x: Array, y: Array, seed: int) -> Trees:
        """Learn; see `TreeConfig.fit`."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        model = HistGradientBoostingClassifier(
            max_iter=self.iterations,
            learning_rate=self.learning_rate,
            max_leaf_nodes=self.leaves,
            min_samples_leaf=self.leaf_examples,
            l2_regularization=self.l2,
            max_features=self.feature_share,
            early_stopping=False,
            random_state=seed,
        ).fit(x, y)
        trees = [predictors[0].nodes for predictors in model._predictors]  # no public way to the nodes
        sizes = np.asarray([len(tree) for tree in trees])
        offset = np.repeat(np.cumsum(sizes) - sizes, sizes)
        nodes = np.concatenate(trees)
        leaf, own = nodes["is_leaf"].astype(bool), np.arange(len(nodes))
        return Trees(
            feature=np.where(leaf, 0, nodes["feature_idx"]).astype(np.int32),
            threshold=nodes["num_threshold"].astype(np.float64),
            missing_left=nodes["missing_go_to_left"].astype(bool),
            left=np.where(leaf, own, nodes["left"] + offset).astype(np.int32),
            right=np.where(leaf, own, nodes["right"] + offset).astype(np.int32),
            value=nodes["value"].astype(np.float64),
            roots=(np.cumsum(sizes) - sizes).astype(np.int32),
            start=np.asarray(model._baseline_prediction, dtype=np.float64).reshape(1),
        )


@dataclass(frozen=True)
class LightGBM(_Boosting):
    """LightGBM's gradient boosting; needs the extra `bench`."""

    def fit(self, x: Array, y: Array, seed: int) -> Trees:
        """Learn; see `TreeConfig.fit`. ConfigError if LightGBM is not installed."""
        try:
            import lightgbm
        except ModuleNotFoundError:
            raise ConfigError(f"model.candidates: {self.name} needs LightGBM: install the extra `bench`") from None
        settings = {
            "objective": "binary",
            "learning_rate": self.learning_rate,
            "num_leaves": self.leaves,
            "min_data_in_leaf": self.leaf_examples,
            "lambda_l2": self.l2,
            "feature_fraction": self.feature_share,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "verbosity": -1,
        }
        booster = lightgbm.train(settings, lightgbm.Dataset(x, y), num_boost_round=self.iterations)
        rows: list[tuple[int, float, bool, int, int, float]] = []
        roots = [_walk(tree["tree_structure"], rows) for tree in booster.dump_model()["tree_info"]]
        feature, threshold, missing, left, right, value = (np.asarray(column) for column in zip(*rows, strict=True))
        places = (np.asarray(a, dtype=np.int32) for a in (left, right, roots))
        left, right, root = places
        return Trees(
            feature.astype(np.int32),
            threshold.astype(np.float64),
            missing.astype(bool),
            left,
            right,
            value.astype(np.float64),
            root,
            np.zeros(1),
        )


def _walk(node: Mapping[str, Any], rows: list[tuple[int, float, bool, int, int, float]]) -> int:
    """Append a node of LightGBM's dump and all below it; returns its place."""
    place = len(rows)
    if "leaf_value" in node:
        rows.append((0, 0.0, True, place, place, float(node["leaf_value"])))
        return place
    rows.append((0, 0.0, True, place, place, 0.0))
    threshold = float(node["threshold"])
    # Without missing values in training, LightGBM reads NaN as zero.
    missing_left = bool(node["default_left"]) if node["missing_type"] == "NaN" else threshold >= 0
    left, right = _walk(node["left_child"], rows), _walk(node["right_child"], rows)
    rows[place] = (int(node["split_feature"]), threshold, missing_left, left, right, 0.0)
    return place
