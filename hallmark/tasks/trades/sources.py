"""Load labelled trades from an exchange file, or simulate them."""

from pathlib import Path

import numpy as np
import pandas as pd

from hallmark.build import configuration
from hallmark.contracts import Progress, Raw, no_progress
from hallmark.errors import SourceError
from hallmark.files import sha256
from hallmark.read.pointers import check_pointer
from hallmark.read.tables import read_table
from hallmark.read.validation import rename_columns

COLUMNS = ("subject_id", "timestamp", "id", "side", "price", "amount")
ENDINGS = (".feather", ".parquet", ".csv")


@configuration
class TradesFile:
    """A Feather, Parquet or CSV file with timestamp (ms), id, side, price and amount of one instrument.

    Attributes:
        path: path of the file.
        instrument: name of the instrument; becomes the subject_id.
        columns: column names of this task → names in the file.
    """

    path: str
    instrument: str
    columns: dict[str, str]

    def load(self, progress: Progress = no_progress) -> Raw:
        """Read the file; columns are checked by cleaning."""
        path = Path(self.path)
        if not path.is_file():
            raise SourceError(f"{path} is not there: set data.path, or `dvc pull {path}`")
        check_pointer(path)
        if path.suffix not in ENDINGS:
            raise SourceError(f"{path} is no {', '.join(ENDINGS)} file: save it as one")
        frame = read_table(path, COLUMNS[1:])
        frame = rename_columns(frame, self.columns, str(path))
        if frame.empty:
            raise SourceError(f"{path} has a header and no rows: set data.path to a file with trades")
        frame["subject_id"] = self.instrument
        kept = frame[[column for column in COLUMNS if column in frame]]
        return Raw(kept, pd.DataFrame({"subject_id": [self.instrument]}), {"file": path.name, "sha256": sha256(path)})


@configuration
class SimulatedMarket:
    """A simulated market: a random-walk price with a spread, runs of buyers and sellers, orders of several trades.

    Attributes:
        trades: number of trades.
        spread: distance between bid and ask, in ticks.
        persistence: probability that the next order comes from the same side.
        seed: seed of the simulation.
    """

    trades: int
    spread: int
    persistence: float
    seed: int

    def load(self, progress: Progress = no_progress) -> Raw:
        """Simulate the trades."""
        rng = np.random.default_rng(self.seed)
        mid_price, side, time_ms = 1000.0, 1, 1_700_000_000_000
        rows: list[tuple[int, int, str, float, float]] = []
        while len(rows) < self.trades:
            side = side if rng.random() < self.persistence else -side
            time_ms += int(rng.exponential(9000)) + 1
            mid_price += 0.25 * rng.normal() + 0.05 * side
            price = np.floor(mid_price) + (self.spread / 2) * side
            remaining = rng.lognormal(4, 1.4)
            while remaining > 1 and len(rows) < self.trades:  # a large order walks up or down the book
                amount = min(remaining, rng.lognormal(3.6, 1.0))
                rows.append((time_ms, len(rows), "buy" if side > 0 else "sell", price / 1e5, round(float(amount), 2)))
                remaining -= amount
                if remaining > 1 and rng.random() < 0.3:
                    price += side
                    mid_price += 0.4 * side
        frame = pd.DataFrame(rows, columns=list(COLUMNS[1:])).assign(subject_id="SIMULATED")
        frame["amount"] = frame["amount"].clip(lower=0.01)
        return Raw(frame, pd.DataFrame({"subject_id": ["SIMULATED"]}), {"simulated": self.seed})
