"""The trades task: was a trade started by its buyer or by its seller?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hallmark.arrays import Array
from hallmark.contracts import Clean, Prepared, Raw
from hallmark.errors import DataError, LeakageError
from hallmark.families.classification.task import ClassTask
from hallmark.read.splits import TimesConfig, check_times, split_times
from hallmark.read.validation import Ledger, Limits, require_columns
from hallmark.tasks.trades.features import TOGETHER, Feature, compute, names_of, windows
from hallmark.tasks.trades.messages import DISCLAIMER, LATEST_MS, SIDES, Trade, TradesRequest, TradesResponse


@dataclass(frozen=True)
class TradesTask(ClassTask):
    """Configuration and contract of the task.

    Attributes:
        name: of the ZenML model and the Bento.
        features: their definitions.
        memory: trades of a window, the one in question among them.
        limits: when cleaning fails.
        parts: how time is cut.
        least_trades: a request with fewer is not answered, and no example has fewer.
        longest_gap_s: a request whose last two trades lie further apart is not answered.
    """

    labels = SIDES
    request, response = TradesRequest, TradesResponse

    name: str
    features: Sequence[Feature]
    memory: int
    limits: Limits
    parts: TimesConfig
    least_trades: int
    longest_gap_s: float

    def __post_init__(self) -> None:
        names = names_of(self.features)
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two features are named {twice[0]!r}")
        if not 1 < self.least_trades <= self.memory:
            raise ValueError(f"least_trades={self.least_trades} must be in 2…memory={self.memory}")
        try:
            self._compute(np.ones(2), np.ones(2), np.arange(2), np.arange(2))
        except IndexError as error:
            raise ValueError(f"a feature looks further back than memory={self.memory} trades") from error

    @property
    def purpose(self) -> str:
        """What it is for."""
        return f"Who started a trade, buyer or seller, from public prints alone. {DISCLAIMER}"

    @property
    def card_limits(self) -> Sequence[str]:
        """What it must not be used for, and where it is weak."""
        return (
            "Not for trading: it looks at trades that have happened.",
            "Learned on one instrument over a few days; another market needs its own training.",
            "Trades of one instant share their side, so intervals are drawn over instants.",
            "The first trades after a pause are refused: too little is known of them.",
        )

    def clean(self, raw: Raw) -> Clean:
        """Check and clean trades; every dropped or merged row is counted.

        Raises:
            DataError: a column is missing, times are in another unit, too much had to go, or only one side is left.
        """
        require_columns(raw.rows, ("subject_id", "timestamp", "id", "side", "price", "amount"), "the table")
        frame = raw.rows.assign(subject_id=raw.rows["subject_id"].astype(str)).reset_index(drop=True)
        ledger = Ledger(len(frame))
        for column in ("timestamp", "price", "amount"):
            number = pd.to_numeric(frame[column], errors="coerce").astype("float64")
            frame = frame.assign(**{column: number})
            frame = ledger.drop(frame, ~np.isfinite(frame[column]).to_numpy(), f"no number in {column}")
        for column in ("price", "amount"):
            frame = ledger.drop(frame, (frame[column] <= 0).to_numpy(), f"{column} not above zero")
        frame = ledger.drop(frame, ~frame["side"].isin(SIDES).to_numpy(), f"a side other than {', '.join(SIDES)}")
        if len(frame) and not 1e11 < frame["timestamp"].median() < LATEST_MS:
            median = f"{frame['timestamp'].median():.4g}"
            raise DataError(
                f"column 'timestamp' is no count of milliseconds since 1970 (median {median}): "
                "convert it, or set data.columns.timestamp"
            )
        frame["timestamp"] = frame["timestamp"].astype(np.int64)
        again = (frame.duplicated(["subject_id", "id"]) & frame["id"].notna()).to_numpy()
        ledger.count("merged", "the same id again", frame.loc[again, "subject_id"])
        frame = frame[~again]
        frame = _in_order(frame, ledger)
        rows = frame[["subject_id", "timestamp", "side", "price", "amount"]].reset_index(drop=True)
        return self.settle(rows.rename(columns={"side": "label"}).astype({"label": str}), ledger)

    def split(self, clean: Clean) -> pd.DataFrame:
        """Cut time for all instruments alike; trades of one instant stay together."""
        part = split_times(clean.rows["timestamp"], self.parts)
        return pd.DataFrame({"row": np.arange(len(part)), "part": part})

    def check_leakage(self, prepared: Prepared) -> dict[str, int]:
        """Check the order of the parts, and that no feature knows a side or what came later.

        Raises:
            LeakageError: names the feature, or the parts that overlap.
        """
        rows, part = prepared.rows, prepared.splits["part"]
        counts = check_times(rows["timestamp"], part, self.parts)
        rng = np.random.default_rng(0)
        before = self.examples(rows)
        checked = 0
        for cut in np.linspace(0.2, 0.9, 5):
            at = int(len(rows) * cut)
            known = (rows["timestamp"] < rows["timestamp"].iloc[at]).to_numpy()
            other = rows.copy()
            other["label"] = rng.permutation(other["label"].to_numpy())
            for column in ("price", "amount"):
                later = other.loc[~known, column].to_numpy()
                other.loc[~known, column] = rng.permutation(later) * rng.uniform(0.5, 2.0, len(later))
            other.loc[~known, "timestamp"] += np.cumsum(rng.integers(1, 10_000, int((~known).sum())))
            after = self.examples(other)
            changed = ~((before[known] == after[known]) | (np.isnan(before[known]) & np.isnan(after[known])))
            if changed.any():
                name = names_of(self.features)[int(np.flatnonzero(changed.any(axis=0))[0])]
                raise LeakageError(f"feature {name!r} knows a side or what came later: it may look at the past alone")
            checked += int(known.sum())
        return {**counts, "windows_checked": checked}

    def examples(self, rows: pd.DataFrame) -> Array:
        """Compute every feature of every trade, (N, features); windows never reach into another instrument."""
        found = np.empty((len(rows), len(names_of(self.features))), dtype=np.float32)
        for places in rows.groupby("subject_id").indices.values():
            mine = rows.iloc[places]
            table = (mine["price"].to_numpy(), mine["amount"].to_numpy(), mine["timestamp"].to_numpy())
            for start in range(0, len(mine), TOGETHER):
                ends = np.arange(start, min(start + TOGETHER, len(mine)))
                found[places[ends]] = self._compute(*table, ends)
        return found

    def _compute(self, price: Array, amount: Array, time_ms: Array, ends: Array) -> Array:
        return compute(self.features, windows(price, amount, time_ms, ends, self.memory))

    def usable(self, rows: pd.DataFrame) -> Array:
        """Tell which trades would be answered, (N,): enough came before, and not too long ago."""
        by = rows.groupby("subject_id", sort=False)
        gap = by["timestamp"].diff().to_numpy() / 1000
        return np.asarray((by.cumcount() >= self.least_trades - 1).to_numpy() & (gap <= self.longest_gap_s))

    def rows_of(self, prepared: Prepared, part: str) -> pd.DataFrame:
        """Select the trades of one part that would be answered; the index is their place in `prepared.rows`."""
        return prepared.rows[(prepared.splits["part"] == part).to_numpy() & self.usable(prepared.rows)]

    def requests(self, prepared: Prepared, rows: pd.DataFrame) -> Sequence[TradesRequest]:
        """Ask for every trade with the window before it."""
        found = []
        for place in rows.index:
            before = prepared.rows.iloc[: place + 1]
            window = before[before["subject_id"] == before["subject_id"].iloc[-1]].tail(self.memory)
            columns = (window["timestamp"].tolist(), window["price"].tolist(), window["amount"].tolist())
            trades = [Trade(timestamp_ms=t, price=p, amount=a) for t, p, a in zip(*columns, strict=True)]
            found.append(TradesRequest(trades=trades))
        return found

    def segments(self, rows: pd.DataFrame) -> dict[str, Array]:
        """Cut by size and by the hour, UTC."""
        amount, hour = rows["amount"].to_numpy(), rows["timestamp"].to_numpy() // 3_600_000 % 24
        low, high = np.quantile(amount, [1 / 3, 2 / 3])
        found = {"small": amount <= low, "middle": (amount > low) & (amount <= high), "large": amount > high}
        hours = {f"hour:{start:02d}-{start + 5:02d}": hour // 6 * 6 == start for start in (0, 6, 12, 18)}
        return {f"amount:{name}": inside for name, inside in found.items()} | hours

    def drawn_together(self, rows: pd.DataFrame) -> Array:
        """Trades of one instant are one order's."""
        return rows.groupby(["subject_id", "timestamp"]).ngroup().to_numpy()

    def data_for_report(self, prepared: Prepared) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Features, sides and instruments of train and test."""
        tables = []
        for part in ("train", "test"):
            rows = self.rows_of(prepared, part)
            frame = pd.DataFrame(self.examples(prepared.rows)[rows.index], columns=names_of(self.features))
            groups = {"side": rows["label"].to_numpy(object), "instrument": rows["subject_id"].to_numpy(object)}
            tables.append(frame.assign(**groups))
        return tables[0], tables[1]


def _in_order(frame: pd.DataFrame, ledger: Ledger) -> pd.DataFrame:
    """Sort by time, and within an instant by the exchange's number, else as the file has them.

    Raises:
        DataError: the file is not in the order of trading and no numbers tell the order within an instant.
    """
    back = (frame.groupby("subject_id", sort=False)["timestamp"].diff() < 0).to_numpy()
    ledger.count("noted", "out of order, sorted", frame.loc[back, "subject_id"])
    number = pd.to_numeric(frame["id"], errors="coerce")
    if number.notna().all():
        return frame.assign(_n=number).sort_values(["subject_id", "timestamp", "_n"], kind="stable").drop(columns="_n")
    if back.any():
        raise DataError(
            f"{int(back.sum()):,} trades go back in time and 'id' holds no numbers: the order within an instant is not "
            "known. Sort the file as it was traded, the oldest first"
        )
    return frame.sort_values(["subject_id", "timestamp"], kind="stable")
