"""Rows without a time, cut into train, valid and test: no group in two parts, every stratum in each."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hallmark.errors import DataError, LeakageError

PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class PartsConfig:
    """How rows are shared out.

    Attributes:
        valid_share: of the groups of every stratum.
        test_share: of the groups of every stratum.
        seed: of the draw.
    """

    valid_share: float
    test_share: float
    seed: int

    def __post_init__(self) -> None:
        if not (self.valid_share > 0 and self.test_share > 0 and self.valid_share + self.test_share < 1):
            raise ValueError(
                f"valid_share={self.valid_share} and test_share={self.test_share} must leave some to train"
            )


def split_groups(groups: "pd.Series[str]", strata: "pd.Series[str]", config: PartsConfig) -> "pd.Series[str]":
    """Draw every group's part, stratum by stratum.

    Args:
        groups: of every row; what shares one stays together.
        strata: of every row; a group has that of its first row.
        config: how.

    Returns:
        The part of every row.

    Raises:
        DataError: a part would be empty.
    """
    first = pd.DataFrame({"group": groups, "stratum": strata}).drop_duplicates("group").sort_values("group")
    rng = np.random.default_rng(config.seed)
    part: dict[str, str] = {}
    for _, names in first.groupby("stratum", sort=True)["group"]:
        order = rng.permutation(names.to_numpy(dtype=object))
        test = round(len(order) * config.test_share)
        valid = test + round(len(order) * config.valid_share)
        for name, place in zip(order, range(len(order)), strict=True):
            part[name] = "test" if place < test else "valid" if place < valid else "train"
    found: pd.Series[str] = groups.map(part)
    for name in PARTS:
        if not (found == name).any():
            raise DataError(f"no row falls into {name}: {len(first)} texts are too few for task.parts")
    return found


def check_parts(groups: "pd.Series[str]", part: "pd.Series[str]") -> dict[str, int]:
    """Check that no group lies in two parts.

    Returns:
        How many rows lie in each.

    Raises:
        LeakageError: how many do.
    """
    torn = int((part.groupby(groups.to_numpy()).nunique() > 1).sum())
    if torn:
        raise LeakageError(f"{torn} texts lie in two of {', '.join(PARTS)}: split anew with `dvc repro prepare`")
    return {name: int((part == name).sum()) for name in PARTS}
