"""Split by subject (seen, held out) and, within each subject, by time (train, valid, test).

Some people are held out whole; everybody's time is cut into train, valid and test. Held-out people's
train time is never learned from by the base model: it is the history that personalises them.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hallmark.arrays import Array, Floats, Integers
from hallmark.errors import DataError
from hallmark.families.forecasting.panel import Panel

SEEN, HELD_OUT = "seen", "held_out"


@dataclass(frozen=True)
class SplitConfig:
    """How people and time are split.

    Attributes:
        held_out_share: share of the people that the base model never sees, drawn within each stratum.
        train_share: first share of everybody's readings, so that a pause does not empty a part.
        valid_share: share after it; the rest is test.
        purge_minutes: pause between two parts in which no window starts.
        seed: of the draw.
        stratify: columns of the subject table whose groups are all to be held out from.
    """

    held_out_share: float
    train_share: float
    valid_share: float
    purge_minutes: int
    seed: int
    stratify: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "stratify", tuple(self.stratify))
        if not (0 < self.held_out_share < 1 and self.train_share > 0 and self.valid_share > 0):
            raise ValueError("held_out_share, train_share and valid_share must lie within 0…1")
        if self.train_share + self.valid_share >= 1:
            raise ValueError(f"train_share + valid_share = {self.train_share + self.valid_share} leaves no test")


def split(rows: pd.DataFrame, subjects: pd.DataFrame, config: SplitConfig) -> pd.DataFrame:
    """Assign people and cut time.

    Returns:
        One row a subject: subject_id, group (seen, held_out), and the minutes since 1970 at which
        train ends, valid starts and ends, and test starts.

    Raises:
        DataError: fewer than two people.
    """
    people = sorted(subjects["subject_id"].astype(str))
    if len(people) < 2:
        raise DataError(
            f"{len(people)} person is left (data): splitting by person needs at least 2, one to learn from and one "
            "held out; add people or lower task.limits.minimum_days"
        )
    held = _draw(subjects, config)
    times = rows.sort_values(["subject_id", "timestamp"]).groupby("subject_id", sort=True)["timestamp"]

    def cut(share: float) -> Array:
        at = times.apply(lambda t: t.iloc[min(int(len(t) * share), len(t) - 1)]).loc[people]
        return at.to_numpy().astype("datetime64[m]").astype(np.int64)

    train_end, valid_end = cut(config.train_share), cut(config.train_share + config.valid_share)
    return pd.DataFrame(
        {
            "subject_id": people,
            "group": [HELD_OUT if person in held else SEEN for person in people],
            "train_end": train_end,
            "valid_start": train_end + config.purge_minutes,
            "valid_end": valid_end,
            "test_start": valid_end + config.purge_minutes,
        }
    )


def _draw(subjects: pd.DataFrame, config: SplitConfig) -> set[str]:
    """Draw the held-out people within each stratum, at least one in all."""
    generator = np.random.default_rng(config.seed)
    columns = [c for c in config.stratify if c in subjects.columns]
    keys = (
        subjects[columns].astype("string").fillna("unknown").agg("/".join, axis=1)
        if columns
        else pd.Series("", index=subjects.index)
    )
    people = subjects.assign(stratum=keys.astype(str), subject_id=subjects["subject_id"].astype(str)).sort_values(
        "subject_id"
    )
    held: set[str] = set()
    carry = 0.0  # a stratum's fraction goes to the next, so that small strata add up
    for _, group in people.groupby("stratum", sort=True):
        wanted = len(group) * config.held_out_share + carry
        count = int(wanted + 0.5)
        carry = wanted - count
        held.update(generator.permutation(group["subject_id"].to_numpy())[:count])
    if not held:
        held.add(str(people["subject_id"].iloc[0]))
    if len(held) == len(people):
        held.discard(max(held))
    return held


@dataclass(frozen=True)
class Parts:
    """A panel with its splits: which origins belong where, and until when targets may be seen.

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
        """Look up where one subject's time is cut, minutes since 1970."""
        return int(self._aligned(column)[code])

    @property
    def held_out(self) -> Array:
        """Whether each subject is held out, (S,)."""
        return np.asarray(self._aligned("group") == HELD_OUT)

    def origins(self, part: str, group: str | None = None) -> Integers:
        """Origins of `train`, `valid` or `test`, of everybody or of one group."""
        panel = self.panel
        subject, minute = panel.subject[panel.origins], panel.minute[panel.origins]
        low, high = self._bounds(part)
        keep = (minute >= low[subject]) & (minute < high[subject])
        if group is not None:
            keep &= self.held_out[subject] == (group == HELD_OUT)
        return panel.origins[keep]

    def _bounds(self, part: str) -> tuple[Array, Array]:
        never = np.iinfo(np.int64).max
        count = len(self.panel.subjects)
        if part == "train":
            return np.zeros(count, dtype=np.int64), self._aligned("train_end")
        if part == "valid":
            return self._aligned("valid_start"), self._aligned("valid_end")
        return self._aligned("test_start"), np.full(count, never)

    def target(self, origins: Integers, part: str) -> Floats:
        """Targets of some origins, NaN beyond the end of their part."""
        until = self._bounds(part)[1][self.panel.subject[origins]]
        ends = self.panel.minute[origins].astype(np.int64)[:, None] + np.asarray(self.panel.grid.horizons_minutes)
        return np.where(ends < until[:, None], self.panel.target(origins), np.float32(np.nan)).astype(np.float32)
