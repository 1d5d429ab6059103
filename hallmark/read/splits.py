"""Split rows into train, valid and test: by groups, or by time with a gap between splits."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hallmark.errors import DataError, LeakageError

PARTS = ("train", "valid", "test")
PURGED = "purged"


def _check_shares(valid: float, test: float) -> None:
    if not (valid > 0 and test > 0 and valid + test < 1):
        raise ValueError(f"valid_share={valid} and test_share={test} must be positive and leave some to train")


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
        _check_shares(self.valid_share, self.test_share)


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
    found = share_out(groups, strata, {"test": config.test_share, "valid": config.valid_share}, "train", config.seed)
    for name in PARTS:
        if not (found == name).any():
            raise DataError(f"no row falls into {name}: {groups.nunique()} texts are too few for task.parts")
    return found


def share_out(
    groups: "pd.Series[str]", strata: "pd.Series[str]", shares: Mapping[str, float], rest: str, seed: int
) -> "pd.Series[str]":
    """Draw every group's part, stratum by stratum, without a check that none is empty.

    Args:
        groups: of every row; what shares one stays together.
        strata: of every row; a group has that of its first row.
        shares: part → share of every stratum's groups.
        rest: the part of all others.
        seed: of the draw.

    Returns:
        The part of every row.
    """
    first = pd.DataFrame({"group": groups, "stratum": strata}).drop_duplicates("group").sort_values("group")
    rng = np.random.default_rng(seed)
    part: dict[str, str] = {}
    for _, names in first.groupby("stratum", sort=True)["group"]:
        order = rng.permutation(names.to_numpy(dtype=object))
        drawn = [name for name, share in shares.items() for _ in range(round(len(order) * share))]
        part |= dict(zip(order, [*drawn, *[rest] * len(order)], strict=False))
    return groups.map(part)


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


@dataclass(frozen=True)
class TimesConfig:
    """How time is cut.

    Attributes:
        valid_share: of the rows, before the test's.
        test_share: of the rows, the last.
        purge_s: seconds before valid and before test whose rows are left out.
    """

    valid_share: float
    test_share: float
    purge_s: float

    def __post_init__(self) -> None:
        _check_shares(self.valid_share, self.test_share)
        if self.purge_s < 0:
            raise ValueError(f"purge_s={self.purge_s} must not be negative")


def split_times(time_ms: "pd.Series[int]", config: TimesConfig) -> "pd.Series[str]":
    """Cut at two times, so that rows of one time stay together, and leave out what comes right before each.

    Raises:
        DataError: a part would be empty.
    """
    ordered = np.sort(time_ms.to_numpy())
    test = ordered[int(len(ordered) * (1 - config.test_share))]
    valid = ordered[int(len(ordered) * (1 - config.test_share - config.valid_share))]
    gap = config.purge_s * 1000
    part = pd.Series(PURGED, index=time_ms.index)
    part[time_ms < valid - gap] = "train"
    part[(time_ms >= valid) & (time_ms < test - gap)] = "valid"
    part[time_ms >= test] = "test"
    for name in PARTS:
        if not (part == name).any():
            raise DataError(f"no row falls into {name}: {len(part)} rows are too few for task.parts")
    return part


def check_times(time_ms: "pd.Series[int]", part: "pd.Series[str]", config: TimesConfig) -> dict[str, int]:
    """Check that parts follow each other in time with the gap between them.

    Returns:
        How many rows lie in each, the purged ones too.

    Raises:
        LeakageError: names the parts and their times.
    """
    spans = {name: (int(time_ms[part == name].min()), int(time_ms[part == name].max())) for name in PARTS}
    for before, after in (("train", "valid"), ("valid", "test")):
        gap = (spans[after][0] - spans[before][1]) / 1000
        if gap <= 0 or gap < config.purge_s:
            raise LeakageError(
                f"{before} ends {gap:.3f} s before {after} begins, task.parts.purge_s asks for {config.purge_s:g}: "
                "split by time"
            )
    return {name: int((part == name).sum()) for name in (*PARTS, PURGED)}
