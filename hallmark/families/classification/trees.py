"""Binary gradient boosting (scikit-learn or LightGBM), saved as safetensors, predicted in NumPy.

Loading a pickle may run code; loading arrays cannot. Legend of shapes: B examples, F features, N nodes, T trees.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import Field

from hallmark.arrays import Array
from hallmark.build import Count, NotNegative, Positive, configuration
from hallmark.errors import BundleError, ConfigError


@dataclass(frozen=True)
class Trees:
    """An ensemble of binary trees; its output is the sum of one leaf value per tree.

    Attributes:
        feature: (N,) column that the node compares.
        threshold: (N,) values up to it go to the left child.
        missing_left: (N,) whether NaN goes to the left child.
        left: (N,) index of the left child; a leaf is its own child.
        right: (N,) index of the right child; a leaf is its own child.
        value: (N,) value of a leaf; unused in other nodes.
        roots: (T,) index of each tree's root.
        start: (1,) constant that is added to every sum.
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
        """Sum the leaf values of all trees, (B, F) → (B,): the logit of the second of two classes.

        Time is B × T × depth, memory B × T.
        """
        return np.asarray(self.start[0] + self._leaves(x).sum(axis=1))

    def _leaves(self, x: Array) -> Array:
        """Return the leaf value of every tree, (B, F) → (B, T)."""
        x = np.asarray(x, dtype=np.float64)
        node = np.repeat(self.roots[None], len(x), axis=0)
        rows = np.arange(len(x))[:, None]
        while True:
            values = x[rows, self.feature[node]]
            go_left = np.where(np.isnan(values), self.missing_left[node], values <= self.threshold[node])
            child = np.where(go_left, self.left[node], self.right[node])
            if (child == node).all():
                return np.asarray(self.value[node])
            node = child

    def logits(self, x: Array) -> Array:
        """Return a logit for each class, (B, 2); their difference is `raw`."""
        half = self.raw(x) / 2
        return np.stack([-half, half], axis=1)

    def loss_by_size(self, x: Array, y: Array, points: int = 20) -> tuple[tuple[int, float], ...]:
        """Return (number of trees, log loss) of the first trees up to all of them, (B, F) and (B,) of 0 and 1."""
        raw = self.start[0] + np.cumsum(self._leaves(x), axis=1)
        sizes = np.unique(np.linspace(1, raw.shape[1], min(points, raw.shape[1])).astype(int))
        signed = np.where(y[:, None] == 1, raw[:, sizes - 1], -raw[:, sizes - 1])
        losses = np.minimum(np.logaddexp(0.0, -signed), -np.log(1e-12)).mean(axis=0)
        return tuple((int(size), float(loss)) for size, loss in zip(sizes, losses, strict=True))

    def tensors(self) -> dict[str, Array]:
        """Return the arrays by name, for safetensors."""
        return {f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def of(cls, tensors: Mapping[str, Array]) -> "Trees":
        """Build the trees from what `tensors` returned.

        Raises:
            BundleError: an array is missing or unknown, or a node has an invalid child.
        """
        if mismatched := sorted({f.name for f in fields(cls)} ^ set(tensors)):
            raise BundleError(f"trees have {', '.join(sorted(tensors))}: {mismatched[0]} is missing or unknown")
        trees = cls(**dict(tensors))
        n_nodes = len(trees.feature)
        for name in ("left", "right", "roots"):
            indices = getattr(trees, name)
            if len(indices) and not (indices.min() >= 0 and indices.max() < n_nodes):
                raise BundleError(f"trees point outside their {n_nodes} nodes ({name}): the file is corrupt")
        # A child comes after its parent, so every path from a root ends.
        ascending = [np.all((c > np.arange(n_nodes)) | (c == np.arange(n_nodes))) for c in (trees.left, trees.right)]
        if not all(ascending):
            raise BundleError("a node of the trees points back: the file is corrupt")
        return trees


class TreeConfig(Protocol):
    """A candidate for tables; built from `conf/model/*.yaml`."""

    @property
    def name(self) -> str:
        """Name in reports."""

    def fit(self, x: Array, y: Array, seed: int) -> Trees:
        """Fit two classes; x is (B, F) with NaN for missing values, y is (B,) of 0 and 1."""


@configuration
class _Boosting:
    """Hyperparameters of gradient boosting, the same for every library.

    Attributes:
        name: name among the candidates.
        iterations: number of trees.
        learning_rate: factor of each tree's leaf values.
        leaves: largest number of leaves per tree.
        leaf_examples: smallest number of examples per leaf.
        l2: L2 penalty on leaf values.
        feature_share: share of the features that a split (in LightGBM: a tree) may choose from.
    """

    name: str
    iterations: Count
    learning_rate: Positive
    leaves: Annotated[int, Field(ge=2)]
    leaf_examples: Count
    l2: NotNegative
    feature_share: Annotated[float, Field(gt=0, le=1)]


@configuration
class HistGradientBoosting(_Boosting):
    """scikit-learn's histogram gradient boosting."""

    def fit(self, x: Array, y: Array, seed: int) -> Trees:
        """Fit the trees, see `TreeConfig.fit`."""
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
        trees = [predictors[0].nodes for predictors in model._predictors]  # not public in scikit-learn
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


@configuration
class LightGBM(_Boosting):
    """LightGBM's gradient boosting; needs the extra `bench`."""

    def fit(self, x: Array, y: Array, seed: int) -> Trees:
        """Fit the trees, see `TreeConfig.fit`.

        Raises:
            ConfigError: LightGBM is not installed.
        """
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
        roots = [_append_node(tree["tree_structure"], rows) for tree in booster.dump_model()["tree_info"]]
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


def _append_node(node: Mapping[str, Any], rows: list[tuple[int, float, bool, int, int, float]]) -> int:
    """Append a node of LightGBM's dump and all its descendants to `rows`; returns its index."""
    index = len(rows)
    if "leaf_value" in node:
        rows.append((0, 0.0, True, index, index, float(node["leaf_value"])))
        return index
    rows.append((0, 0.0, True, index, index, 0.0))
    threshold = float(node["threshold"])
    # Without missing values in training, LightGBM reads NaN as zero.
    missing_left = bool(node["default_left"]) if node["missing_type"] == "NaN" else threshold >= 0
    left, right = _append_node(node["left_child"], rows), _append_node(node["right_child"], rows)
    rows[index] = (int(node["split_feature"]), threshold, missing_left, left, right, 0.0)
    return index
