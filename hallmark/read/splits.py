"""Split rows into train, valid and test: by groups, or by time with a gap between the splits."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from hallmark.build import InnerShare, NotNegative, configuration
from hallmark.errors import DataError, LeakageError

SPLITS = ("train", "valid", "test")
PURGED = "purged"


def _check_shares(valid: float, test: float) -> None:
    if not (valid > 0 and test > 0 and valid + test < 1):
        raise ValueError(f"valid_share={valid} and test_share={test} must be positive and leave a share for train")


@configuration
class GroupSplitConfig:
    """Settings of a split by groups.

    Attributes:
        valid_share: share of every stratum's groups in valid.
        test_share: share of every stratum's groups in test.
        seed: seed of the random assignment.
    """

    valid_share: InnerShare
    test_share: InnerShare
    seed: int

    def __post_init__(self) -> None:
        _check_shares(self.valid_share, self.test_share)


def split_groups(groups: "pd.Series[str]", strata: "pd.Series[str]", config: GroupSplitConfig) -> "pd.Series[str]":
    """Assign every group to train, valid or test at random, in each stratum separately.

    Args:
        groups: group of every row; rows of one group are in one split.
        strata: stratum of every row; a group has the stratum of its first row.
        config: settings.

    Returns:
        The split of every row.

    Raises:
        DataError: a split would be empty.
    """
    split = assign_groups(
        groups, strata, {"test": config.test_share, "valid": config.valid_share}, "train", config.seed
    )
    for name in SPLITS:
        if not (split == name).any():
            raise DataError(f"no row falls into {name}: {groups.nunique()} texts are too few for task.split_config")
    return split


def assign_groups(
    groups: "pd.Series[str]", strata: "pd.Series[str]", shares: Mapping[str, float], rest: str, seed: int
) -> "pd.Series[str]":
    """Assign every group to a split at random, in each stratum separately; a split may be empty.

    Args:
        groups: group of every row; rows of one group are in one split.
        strata: stratum of every row; a group has the stratum of its first row.
        shares: split → share of every stratum's groups.
        rest: split of the remaining groups.
        seed: seed of the random assignment.

    Returns:
        The split of every row.
    """
    first = pd.DataFrame({"group": groups, "stratum": strata}).drop_duplicates("group").sort_values("group")
    rng = np.random.default_rng(seed)
    split: dict[str, str] = {}
    for _, names in first.groupby("stratum", sort=True)["group"]:
        order = rng.permutation(names.to_numpy(dtype=object))
        assigned = [name for name, share in shares.items() for _ in range(round(len(order) * share))]
        split |= dict(zip(order, [*assigned, *[rest] * len(order)], strict=False))
    return groups.map(split)


def check_groups(groups: "pd.Series[str]", split: "pd.Series[str]") -> dict[str, int]:
    """Check that no group is in two splits.

    Returns:
        Split → number of its rows.

    Raises:
        LeakageError: with the number of groups in two splits.
    """
    n_leaked = int((split.groupby(groups.to_numpy()).nunique() > 1).sum())
    if n_leaked:
        raise LeakageError(f"{n_leaked} texts lie in two of {', '.join(SPLITS)}: split anew with `dvc repro prepare`")
    return {name: int((split == name).sum()) for name in SPLITS}


@configuration
class TimeSplitConfig:
    """Settings of a split by time.

    Attributes:
        valid_share: share of the rows in valid, which comes before test.
        test_share: share of the rows in test, the last ones.
        purge_s: gap in seconds before valid and before test; rows in it are left out.
    """

    valid_share: InnerShare
    test_share: InnerShare
    purge_s: NotNegative

    def __post_init__(self) -> None:
        _check_shares(self.valid_share, self.test_share)


def split_times(time_ms: "pd.Series[int]", config: TimeSplitConfig) -> "pd.Series[str]":
    """Split rows at two points in time, and purge the rows in the gap before each; rows of one time stay together.

    Raises:
        DataError: a split would be empty.
    """
    ordered = np.sort(time_ms.to_numpy())
    test_start = ordered[int(len(ordered) * (1 - config.test_share))]
    valid_start = ordered[int(len(ordered) * (1 - config.test_share - config.valid_share))]
    gap = config.purge_s * 1000
    split = pd.Series(PURGED, index=time_ms.index)
    split[time_ms < valid_start - gap] = "train"
    split[(time_ms >= valid_start) & (time_ms < test_start - gap)] = "valid"
    split[time_ms >= test_start] = "test"
    for name in SPLITS:
        if not (split == name).any():
            raise DataError(f"no row falls into {name}: {len(split)} rows are too few for task.split_config")
    return split


def check_times(time_ms: "pd.Series[int]", split: "pd.Series[str]", config: TimeSplitConfig) -> dict[str, int]:
    """Check that train, valid and test follow each other in time, with the gap between them.

    Returns:
        Split → number of its rows, and the number of purged rows.

    Raises:
        LeakageError: names the splits and their times.
    """
    spans = {name: (int(time_ms[split == name].min()), int(time_ms[split == name].max())) for name in SPLITS}
    for earlier, later in (("train", "valid"), ("valid", "test")):
        gap = (spans[later][0] - spans[earlier][1]) / 1000
        if gap <= 0 or gap < config.purge_s:
            raise LeakageError(
                f"{earlier} ends {gap:.3f} s before {later} begins, "
                f"task.split_config.purge_s asks for {config.purge_s:g}: split by time"
            )
    return {name: int((split == name).sum()) for name in (*SPLITS, PURGED)}
