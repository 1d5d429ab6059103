"""Prices of GPUs, each with its date and source; and what the GPUs can do."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from hallmark.errors import ConfigError

GPUS, PRICES = Path("conf/plan/gpus.yaml"), Path("conf/plan/prices.csv")
COLUMNS = ("provider", "product", "gpu", "gpus", "usd_per_hour", "tier", "region", "date", "source", "note")
OLD_DAYS = 90
UNKNOWN_MFU = (0.2, 0.5)  # of a GPU that nobody measured


@dataclass(frozen=True)
class Gpu:
    """What a GPU can do.

    Attributes:
        name: as in conf/plan/gpus.yaml.
        memory_gb: 10⁹ bytes.
        tflops: dense matrix products in bf16 (fp16 where it has none), 10¹² operations a second, by its maker.
        tflops_fp32: in fp32 without TF32.
        bf16: whether it computes in bf16.
        mfu: share of them that training reaches, from, to; None if it was not measured.
    """

    name: str
    memory_gb: float
    tflops: float
    tflops_fp32: float
    bf16: bool
    mfu: tuple[float, float] | None


@dataclass(frozen=True)
class Price:
    """What a machine costs.

    Attributes:
        provider: who rents it.
        product: its name there.
        gpu: kind of GPU.
        gpus: their number.
        usd_per_hour: of the whole machine.
        tier: such as on-demand or spot.
        read: on which day.
        source: where.
    """

    provider: str
    product: str
    gpu: str
    gpus: int
    usd_per_hour: float
    tier: str
    read: date
    source: str

    def age_days(self, today: date) -> int:
        """Days since it was read."""
        return (today - self.read).days


def read_gpus(file: Path = GPUS) -> dict[str, Gpu]:
    """Read the GPUs by name.

    Raises:
        ConfigError: the file is missing, or an entry is incomplete.
    """
    import yaml

    if not file.is_file():
        raise ConfigError(f"{file} is not there: run this in the repository")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is no YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} holds no mapping: it needs name → memory_gb, tflops, tflops_fp32, bf16, mfu")
    return {str(name): _gpu(str(name), entry, file) for name, entry in values.items()}


def _gpu(name: str, entry: Any, file: Path) -> Gpu:
    try:
        low, high = entry["mfu"] or (0.0, 0.0)
        memory, peak, single = (float(entry[key]) for key in ("memory_gb", "tflops", "tflops_fp32"))
        if min(memory, peak, single) <= 0 or not 0 <= low <= high <= 1:
            raise ValueError("numbers must be above zero, and mfu two shares in order")
        return Gpu(name, memory, peak, single, bool(entry["bf16"]), (low, high) if entry["mfu"] else None)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{file}: {name} needs memory_gb, tflops, tflops_fp32, bf16 and mfu: {error}") from error


def read_prices(file: Path = PRICES, known: Iterable[str] | None = None) -> list[Price]:
    """Read a table of prices.

    Args:
        file: CSV with the columns of `COLUMNS`.
        known: names of GPUs; None for those of conf/plan/gpus.yaml.

    Raises:
        ConfigError: the file or a column is missing; or a row has a price that is not above zero, no date, no source,
            or a GPU that is not known. The message names the line.
    """
    if not file.is_file():
        raise ConfigError(f"{file} is not there: give a CSV file with the columns {', '.join(COLUMNS)}")
    names = set(read_gpus() if known is None else known)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not in UTF-8: save it as UTF-8") from error
    reader = csv.DictReader(text.splitlines())
    if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
        raise ConfigError(f"{file} has no column {missing[0]!r}: it needs {', '.join(COLUMNS)}")
    rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
    if not rows:
        raise ConfigError(f"{file} has no row: a plan without prices says nothing")
    return [_price(row, f"{file} line {place}", names) for place, row in enumerate(rows, 2)]


def _price(row: Mapping[str, str], where: str, names: set[str]) -> Price:
    try:
        price = float(row["usd_per_hour"])
        gpus = int(row["gpus"])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: usd_per_hour and gpus must be numbers: {error}") from error
    if not 0 < price < float("inf") or gpus < 1:
        raise ConfigError(f"{where}: usd_per_hour={price:g} for gpus={gpus}: both must be above zero")
    try:
        read = date.fromisoformat(row["date"])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: date={row['date']!r}: give the day it was read, as 2026-11-27") from error
    if read > date.today():
        raise ConfigError(f"{where}: date={row['date']} lies in the future")
    if not row["source"]:
        raise ConfigError(f"{where}: source is empty: say where the price was read")
    if row["gpu"] not in names:
        raise ConfigError(f"{where}: gpu={row['gpu']!r} is not in {GPUS}: known are {', '.join(sorted(names))}")
    return Price(row["provider"], row["product"], row["gpu"], gpus, price, row["tier"], read, row["source"])


def import_prices(file: Path, to: Path = PRICES) -> int:
    """Check a table of prices and let it replace the one in conf/plan; returns the number of its rows.

    Raises:
        ConfigError: see `read_prices`; nothing is changed then.
    """
    from hallmark.files import write_text

    count = len(read_prices(file))
    write_text(to, file.read_text(encoding="utf-8"))
    return count
