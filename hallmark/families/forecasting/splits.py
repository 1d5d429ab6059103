"""Split by subject (seen, held out) and, within each subject, by time (train, valid, test).

Some subjects are held out as a whole; the time of every subject is cut into train, valid and test. The base model is
never fitted on held-out subjects: their train split is the history that personalises them.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from hallmark.arrays import Array, Floats, Integers
from hallmark.build import InnerShare, Tuple, configuration
from hallmark.errors import DataError
from hallmark.families.forecasting.panel import Panel

SEEN, HELD_OUT = "seen", "held_out"


@configuration
class SplitConfig:
    """How subjects and time are split.

    Attributes:
        held_out_share: share of the subjects that the base model never sees, sampled within each stratum.
        train_share: first share of every subject's readings, so that a pause does not empty a split.
        valid_share: share after it; the rest is test.
        purge_minutes: pause between two splits in which no window starts.
        seed: of the sampling.
        stratify: columns of the subject table that define the strata.
    """

    held_out_share: InnerShare
    train_share: InnerShare
    valid_share: InnerShare
    purge_minutes: Annotated[int, Field(ge=0)]
    seed: int
    stratify: Tuple[str]

    def __post_init__(self) -> None:
        if self.train_share + self.valid_share >= 1:
            raise ValueError(f"train_share + valid_share = {self.train_share + self.valid_share} leaves no test")


def split(rows: pd.DataFrame, subjects: pd.DataFrame, config: SplitConfig) -> pd.DataFrame:
    """Assign subjects and cut time.

    Returns:
        One row a subject: subject_id, group (seen, held_out), and the minutes since 1970 at which
        train ends, valid starts and ends, and test starts.

    Raises:
        DataError: fewer than two subjects.
    """
    names = sorted(subjects["subject_id"].astype(str))
    if len(names) < 2:
        raise DataError(
            f"number of subjects left (data): {len(names)}; splitting by subject needs at least 2, one to fit on and "
            "one held out: add subjects or lower task.limits.min_days"
        )
    held = _sample_held_out(subjects, config)
    times = rows.sort_values(["subject_id", "timestamp"]).groupby("subject_id", sort=True)["timestamp"]

    def cut(share: float) -> Array:
        cut_times = times.apply(lambda t: t.iloc[min(int(len(t) * share), len(t) - 1)]).loc[names]
        return cut_times.to_numpy().astype("datetime64[m]").astype(np.int64)

    train_end, valid_end = cut(config.train_share), cut(config.train_share + config.valid_share)
    return pd.DataFrame(
        {
            "subject_id": names,
            "group": [HELD_OUT if name in held else SEEN for name in names],
            "train_end": train_end,
            "valid_start": train_end + config.purge_minutes,
            "valid_end": valid_end,
            "test_start": valid_end + config.purge_minutes,
        }
    )


def _sample_held_out(subjects: pd.DataFrame, config: SplitConfig) -> set[str]:
    """Sample the held-out subjects within each stratum, at least one in all."""
    generator = np.random.default_rng(config.seed)
    columns = [c for c in config.stratify if c in subjects.columns]
    keys = (
        subjects[columns].astype("string").fillna("unknown").agg("/".join, axis=1)
        if columns
        else pd.Series("", index=subjects.index)
    )
    subjects = subjects.assign(stratum=keys.astype(str), subject_id=subjects["subject_id"].astype(str)).sort_values(
        "subject_id"
    )
    held: set[str] = set()
    carry = 0.0  # a stratum's fraction goes to the next, so that small strata add up
    for _, group in subjects.groupby("stratum", sort=True):
        wanted = len(group) * config.held_out_share + carry
        count = int(wanted + 0.5)
        carry = wanted - count
        held.update(generator.permutation(group["subject_id"].to_numpy())[:count])
    if not held:
        held.add(str(subjects["subject_id"].iloc[0]))
    if len(held) == len(subjects):
        held.discard(max(held))
    return held


@dataclass(frozen=True)
class SplitPanel:
    """A panel with its splits: the split of every origin, and how far its targets may reach.

    Attributes:
        panel: the readings.
        splits: the splits table.
    """

    panel: Panel
    splits: pd.DataFrame

    def _aligned(self, column: str) -> Array:
        table = self.splits.set_index("subject_id")[column]
        return table.loc[list(self.panel.subjects)].to_numpy()

    def minute_of(self, column: str, code: int) -> int:
        """Look up a boundary of one subject's splits, in minutes since 1970."""
        return int(self._aligned(column)[code])

    @property
    def held_out(self) -> Array:
        """Whether each subject is held out, (S,)."""
        return np.asarray(self._aligned("group") == HELD_OUT)

    def origins(self, split: str, group: str | None = None) -> Integers:
        """Return the origins of `train`, `valid` or `test`, of all subjects or of one group."""
        panel = self.panel
        subject, minute = panel.subject[panel.origins], panel.minute[panel.origins]
        low, high = self._bounds(split)
        keep = (minute >= low[subject]) & (minute < high[subject])
        if group is not None:
            keep &= self.held_out[subject] == (group == HELD_OUT)
        return panel.origins[keep]

    def _bounds(self, split: str) -> tuple[Array, Array]:
        never = np.iinfo(np.int64).max
        count = len(self.panel.subjects)
        if split == "train":
            return np.zeros(count, dtype=np.int64), self._aligned("train_end")
        if split == "valid":
            return self._aligned("valid_start"), self._aligned("valid_end")
        return self._aligned("test_start"), np.full(count, never)

    def target(self, origins: Integers, split: str) -> Floats:
        """Gather the targets of some origins, (B, H), NaN beyond the end of their split."""
        until = self._bounds(split)[1][self.panel.subject[origins]]
        ends = self.panel.minute[origins].astype(np.int64)[:, None] + np.asarray(self.panel.grid.horizons_minutes)
        return np.where(ends < until[:, None], self.panel.target(origins), np.float32(np.nan)).astype(np.float32)
