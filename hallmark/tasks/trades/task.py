"""The trades task: classify whether the buyer or the seller started a trade."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hallmark.arrays import Array
from hallmark.build import configuration
from hallmark.contracts import Clean, Prepared, Raw
from hallmark.errors import DataError, LeakageError
from hallmark.families.classification.task import ClassTask
from hallmark.read.splits import TimeSplitConfig, check_times, split_times
from hallmark.read.validation import CleaningLimits, Ledger, require_columns
from hallmark.tasks.trades.features import TOGETHER, Feature, compute, names_of, windows
from hallmark.tasks.trades.messages import DISCLAIMER, LATEST_MS, SIDES, Trade, TradesRequest, TradesResponse


@configuration
class TradesTask(ClassTask):
    """Configuration and contract of the task.

    Attributes:
        name: name of the ZenML model and of the Bento.
        features: feature definitions.
        memory: trades of a window, including the classified trade.
        limits: maximum shares of dropped and changed rows; cleaning fails above them.
        split_config: how trades are split by time.
        min_trades: a request with fewer trades is not answered, and no example has fewer.
        max_gap_s: a request whose last two trades lie further apart, in seconds, is not answered.
    """

    labels = SIDES
    request, response = TradesRequest, TradesResponse
    label_field = "side"

    name: str
    features: Sequence[Feature]
    memory: int
    limits: CleaningLimits
    split_config: TimeSplitConfig
    min_trades: int
    max_gap_s: float

    def __post_init__(self) -> None:
        names = names_of(self.features)
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two features are named {twice[0]!r}")
        if not 1 < self.min_trades <= self.memory:
            raise ValueError(f"min_trades={self.min_trades} must be in 2…memory={self.memory}")
        try:
            self._compute(np.ones(2), np.ones(2), np.arange(2), np.arange(2))
        except IndexError as error:
            raise ValueError(f"a feature needs more than memory={self.memory} trades") from error

    @property
    def purpose(self) -> str:
        """Return the intended use, for the model card."""
        return f"Who started a trade, buyer or seller, from public prints alone. {DISCLAIMER}"

    @property
    def card_limits(self) -> Sequence[str]:
        """Return excluded uses and known weaknesses, for the model card."""
        return (
            "Not for trading: it classifies trades that have happened.",
            "Learned on one instrument over a few days; another market needs its own training.",
            "Trades of one instant share their side, so intervals are resampled over instants.",
            "The first trades after a pause are refused: too little is known of them.",
        )

    def clean(self, raw: Raw) -> Clean:
        """Check and clean trades; every dropped or merged row is counted.

        Raises:
            DataError: a column is missing, times are in another unit, too many rows are dropped, or a side is missing.
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
        repeated = (frame.duplicated(["subject_id", "id"]) & frame["id"].notna()).to_numpy()
        ledger.count("merged", "the same id again", frame.loc[repeated, "subject_id"])
        frame = frame[~repeated]
        frame = _in_order(frame, ledger)
        rows = frame[["subject_id", "timestamp", "side", "price", "amount"]].reset_index(drop=True)
        return self.settle(rows.rename(columns={"side": "label"}).astype({"label": str}), ledger)

    def split(self, clean: Clean) -> pd.DataFrame:
        """Split by time, at the same times for all instruments; trades of one instant stay together."""
        split = split_times(clean.rows["timestamp"], self.split_config)
        return pd.DataFrame({"row": np.arange(len(split)), "split": split})

    def check_leakage(self, prepared: Prepared) -> dict[str, int]:
        """Check the order of the splits, and that no feature depends on a side or on later trades.

        Raises:
            LeakageError: names the feature, or the splits that overlap.
        """
        rows, split = prepared.rows, prepared.splits["split"]
        counts = check_times(rows["timestamp"], split, self.split_config)
        rng = np.random.default_rng(0)
        expected = self.examples(rows)
        checked = 0
        for cut in np.linspace(0.2, 0.9, 5):
            position = int(len(rows) * cut)
            past = (rows["timestamp"] < rows["timestamp"].iloc[position]).to_numpy()
            perturbed = rows.copy()
            perturbed["label"] = rng.permutation(perturbed["label"].to_numpy())
            for column in ("price", "amount"):
                future = perturbed.loc[~past, column].to_numpy()
                perturbed.loc[~past, column] = rng.permutation(future) * rng.uniform(0.5, 2.0, len(future))
            perturbed.loc[~past, "timestamp"] += np.cumsum(rng.integers(1, 10_000, int((~past).sum())))
            actual = self.examples(perturbed)
            changed = ~((expected[past] == actual[past]) | (np.isnan(expected[past]) & np.isnan(actual[past])))
            if changed.any():
                name = names_of(self.features)[int(np.flatnonzero(changed.any(axis=0))[0])]
                raise LeakageError(f"feature {name!r} knows a side or what came later: use past trades only")
            checked += int(past.sum())
        return {**counts, "windows_checked": checked}

    def examples(self, rows: pd.DataFrame) -> Array:
        """Compute every feature of every trade, (N, features); a window never contains another instrument's trades."""
        features = np.empty((len(rows), len(names_of(self.features))), dtype=np.float32)
        for positions in rows.groupby("subject_id").indices.values():
            trades = rows.iloc[positions]
            columns = (trades["price"].to_numpy(), trades["amount"].to_numpy(), trades["timestamp"].to_numpy())
            for start in range(0, len(trades), TOGETHER):
                ends = np.arange(start, min(start + TOGETHER, len(trades)))
                features[positions[ends]] = self._compute(*columns, ends)
        return features

    def _compute(self, price: Array, amount: Array, time_ms: Array, ends: Array) -> Array:
        return compute(self.features, windows(price, amount, time_ms, ends, self.memory))

    def usable(self, rows: pd.DataFrame) -> Array:
        """Return which trades can be answered, (N,): enough earlier trades, the last of them recent enough."""
        by_instrument = rows.groupby("subject_id", sort=False)
        gap = by_instrument["timestamp"].diff().to_numpy() / 1000
        return np.asarray((by_instrument.cumcount() >= self.min_trades - 1).to_numpy() & (gap <= self.max_gap_s))

    def rows_of(self, prepared: Prepared, split: str) -> pd.DataFrame:
        """Select the trades of one split that can be answered; the index is their position in `prepared.rows`."""
        return prepared.rows[(prepared.splits["split"] == split).to_numpy() & self.usable(prepared.rows)]

    def requests(self, prepared: Prepared, rows: pd.DataFrame) -> Sequence[TradesRequest]:
        """Build a request for every trade from the window that ends with it."""
        requests = []
        for position in rows.index:
            history = prepared.rows.iloc[: position + 1]
            window = history[history["subject_id"] == history["subject_id"].iloc[-1]].tail(self.memory)
            columns = (window["timestamp"].tolist(), window["price"].tolist(), window["amount"].tolist())
            trades = [Trade(timestamp_ms=t, price=p, amount=a) for t, p, a in zip(*columns, strict=True)]
            requests.append(TradesRequest(trades=trades))
        return requests

    def segments(self, rows: pd.DataFrame) -> dict[str, Array]:
        """Return masks of the segments by amount and by hour of the day, UTC."""
        amount, hour = rows["amount"].to_numpy(), rows["timestamp"].to_numpy() // 3_600_000 % 24
        low, high = np.quantile(amount, [1 / 3, 2 / 3])
        sizes = {"small": amount <= low, "middle": (amount > low) & (amount <= high), "large": amount > high}
        hours = {f"hour:{start:02d}-{start + 5:02d}": hour // 6 * 6 == start for start in (0, 6, 12, 18)}
        return {f"amount:{name}": inside for name, inside in sizes.items()} | hours

    def resampling_units(self, rows: pd.DataFrame) -> Array:
        """Return the resampling unit of every trade: trades of one instant belong to one order."""
        return rows.groupby(["subject_id", "timestamp"]).ngroup().to_numpy()

    def data_for_report(self, prepared: Prepared) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return features, sides and instruments of train and test."""
        tables = []
        for split in ("train", "test"):
            rows = self.rows_of(prepared, split)
            frame = pd.DataFrame(self.examples(prepared.rows)[rows.index], columns=names_of(self.features))
            groups = {"side": rows["label"].to_numpy(object), "instrument": rows["subject_id"].to_numpy(object)}
            tables.append(frame.assign(**groups))
        return tables[0], tables[1]


def _in_order(frame: pd.DataFrame, ledger: Ledger) -> pd.DataFrame:
    """Sort by time, and within an instant by the exchange's id, or in file order if ids are not numbers.

    Raises:
        DataError: the file is not in the order of trading, and its ids are not numbers that order an instant.
    """
    backwards = (frame.groupby("subject_id", sort=False)["timestamp"].diff() < 0).to_numpy()
    ledger.count("noted", "out of order, sorted", frame.loc[backwards, "subject_id"])
    id_number = pd.to_numeric(frame["id"], errors="coerce")
    if id_number.notna().all():
        return (
            frame.assign(_n=id_number).sort_values(["subject_id", "timestamp", "_n"], kind="stable").drop(columns="_n")
        )
    if backwards.any():
        raise DataError(
            f"{int(backwards.sum()):,} trades go back in time and 'id' holds no numbers: the order within an instant "
            "is not known. Sort the file as it was traded, the oldest first"
        )
    return frame.sort_values(["subject_id", "timestamp"], kind="stable")
