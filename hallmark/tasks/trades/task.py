"""The trades task: was a trade started by its buyer or by its seller?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel

from hallmark.contracts import Clean, Prepared, Progress, Raw
from hallmark.errors import DataError, LeakageError
from hallmark.learn.candidates import Follow, distinct, fit_candidates
from hallmark.learn.impersonal import Impersonal, write_nobody
from hallmark.learn.selection import Selection
from hallmark.learn.temperature import (
    TemperatureConfig,
    fit_temperature,
    load_temperature,
    save_temperature,
    softmax,
)
from hallmark.learn.trainer import TrainResult
from hallmark.models.trees import TreeConfig, TreeTraining
from hallmark.read.parts import TimesConfig, check_times, split_times
from hallmark.read.validation import Ledger, Limits, require_columns
from hallmark.tasks.trades.features import TOGETHER, Feature, compute, names_of, windows
from hallmark.tasks.trades.messages import DISCLAIMER, LATEST_MS, TradesRequest, TradesResponse
from hallmark.tasks.trades.predictor import SIDES, TradesModel, TradesPredictor, load_model, save_model

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TradesTask:
    """Configuration and contract of the task.

    Attributes:
        name: of the ZenML model and the Bento.
        features: their definitions.
        memory: trades of a window, the one in question among them.
        selection: which columns the model is given.
        limits: when cleaning fails.
        parts: how time is cut.
        least_trades: a request with fewer is not answered, and no example has fewer.
        longest_gap_s: a request whose last two trades lie further apart is not answered.
    """

    name: str
    features: Sequence[Feature]
    memory: int
    selection: Selection
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
        again = frame.duplicated(["subject_id", "id"]).to_numpy()
        ledger.count("merged", "the same id again", frame.loc[again, "subject_id"])
        frame = frame[~again]
        back = (frame.groupby("subject_id", sort=False)["timestamp"].diff() < 0).to_numpy()
        ledger.count("noted", "out of order, sorted", frame.loc[back, "subject_id"])
        frame = frame.sort_values(["subject_id", "timestamp"], kind="stable")
        ledger.enforce(self.limits)
        if absent := [side for side in SIDES if not (frame["side"] == side).any()]:
            raise DataError(f"no trade has the side {absent[0]!r}: one class alone cannot be learned")
        rows = frame[["subject_id", "timestamp", "side", "price", "amount"]].reset_index(drop=True)
        rows["side"] = rows["side"].astype(str)
        subjects = pd.DataFrame({"subject_id": sorted(rows["subject_id"].unique())})
        notes = {"sides": rows["side"].value_counts().sort_index().to_dict()}
        return Clean(rows, subjects, ledger.report(len(rows), notes))

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
            other["side"] = rng.permutation(other["side"].to_numpy())
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

    def table(self, prepared: Prepared, part: str) -> tuple[Array, Array, pd.DataFrame]:
        """Return one part's features, targets (1: buy) and rows; features may look back into the part before."""
        mine = (prepared.splits["part"] == part).to_numpy() & self.usable(prepared.rows)
        rows = prepared.rows[mine]
        return self.examples(prepared.rows)[mine], (rows["side"] == "buy").to_numpy().astype(np.int64), rows

    def fit(
        self,
        prepared: Prepared,
        candidates: Sequence[TreeConfig],
        nodes: Sequence[Mapping[str, Any]],
        train: TreeTraining,
        out: Path,
        scratch: Path,
        progress: Progress,
        look: Callable[[int, float], None] | None = None,
    ) -> dict[str, Any]:
        """Fit every candidate on the chosen columns; see `Task.fit`."""
        distinct(candidates)
        x, y, _ = self.table(prepared, "train")
        x_valid, y_valid, _ = self.table(prepared, "valid")
        chosen = self.selection.choose(x, y, train.seed)
        if not chosen:
            raise DataError("task.selection keeps no feature: loosen it")

        def fit_one(config: TreeConfig, follow: Follow) -> tuple[TradesModel, TrainResult]:
            trees = config.fit(x[:, chosen], y, train.seed)
            p = softmax(trees.logits(x_valid[:, chosen]))[np.arange(len(y_valid)), y_valid]
            loss, count = float(-np.log(np.maximum(p, 1e-12)).mean()), len(trees.roots)
            follow(count, count, loss)
            return TradesModel(trees, self.features, chosen, self.memory), TrainResult(
                loss, count, count, ((count, loss),)
            )

        def save(model: TradesModel, node: Mapping[str, Any], directory: Path) -> dict[str, Any]:
            return save_model(model, directory)

        facts = {"train_trades": len(y), "valid_trades": len(y_valid), "features": len(chosen)}
        return fit_candidates(candidates, nodes, fit_one, save, out, facts, progress, look)

    def personalise(
        self, prepared: Prepared, model: Path, config: Impersonal, scratch: Path, progress: Progress
    ) -> dict[str, Any]:
        """Nobody is personalised."""
        write_nobody(model / "people")
        return {}

    def calibrate(
        self, prepared: Prepared, model: Path, config: TemperatureConfig, progress: Progress
    ) -> dict[str, Any]:
        """Fit temperature and threshold on valid."""
        x, y, _ = self.table(prepared, "valid")
        found = load_model(model / "base", self.features, self.memory)
        calibration = fit_temperature(found.trees.logits(x[:, list(found.chosen)]), y, config)
        save_temperature(model / "calibration", calibration)
        return {"temperature": calibration.temperature, "threshold": calibration.threshold}

    def data_for_report(self, prepared: Prepared) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Features, sides and instruments of train and test."""
        tables = []
        for part in ("train", "test"):
            x, _, rows = self.table(prepared, part)
            frame = pd.DataFrame(x, columns=names_of(self.features))
            groups = {"side": rows["side"].to_numpy(object), "instrument": rows["subject_id"].to_numpy(object)}
            tables.append(frame.assign(**groups))
        return tables[0], tables[1]

    def predictor(self, model: Path, version: str = "", digest: str = "") -> TradesPredictor:
        """Open a model directory."""
        found = load_model(model / "base", self.features, self.memory)
        calibration = load_temperature(model / "calibration")
        return TradesPredictor(found, calibration, self.least_trades, self.longest_gap_s, version, digest)

    def request_type(self) -> type[BaseModel]:
        """The pydantic type of a request."""
        return TradesRequest

    def response_type(self) -> type[BaseModel]:
        """The pydantic type of an answer."""
        return TradesResponse
