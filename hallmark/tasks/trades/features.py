"""Compute features of a trade from current and past prices, sizes and times; never from the label (side).

Every feature is a function of a window that ends with the classified trade, so later trades cannot affect it. A request
of `memory` trades gives features bit-identical to those of the training table; a shorter request is treated as if
trading had begun with its first trade. `describe` generates the documentation from the definitions.
Legend of shapes: N trades of a table, B windows, M trades of a window (the oldest first, NaN before the first trade).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from hallmark.build import Tuple, configuration

Array = npt.NDArray[np.float64]

TOGETHER = 8192  # windows that are computed in one batch


@dataclass(frozen=True)
class Window:
    """Trades up to and including the classified trade.

    Attributes:
        price: (B, M).
        amount: (B, M).
        age_s: (B, M) seconds before the last trade; 0 for the last trade itself.
        time_s: (B,) time of the last trade, seconds since 1970.
        tick: (B, M) sign of the last price change up to each trade; 0 where no price in the window had changed yet.
    """

    price: Array
    amount: Array
    age_s: Array
    time_s: Array
    tick: Array


def windows(price: Array, amount: Array, time_ms: npt.NDArray[np.int64], ends: Any, length: int) -> Window:
    """Gather windows from a table of one instrument.

    Args:
        price: (N,) in the order of trading.
        amount: (N,).
        time_ms: (N,) milliseconds since 1970.
        ends: (B,) positions of the classified trades, the last ones of their windows.
        length: trades of a window, M.
    """
    positions = np.asarray(ends)[:, None] + np.arange(1 - length, 1)
    exists = positions >= 0
    positions = np.maximum(positions, 0)
    prices = np.where(exists, price[positions], np.nan)
    amounts = np.where(exists, amount[positions], np.nan)
    last_ms = time_ms[np.asarray(ends)]
    age = np.where(exists, (last_ms[:, None] - time_ms[positions]) / 1000, np.nan)
    change = np.sign(np.diff(prices, axis=1, prepend=np.nan))
    moved = np.nan_to_num(change) != 0
    latest_change = np.maximum.accumulate(np.where(moved, np.arange(length), -1), axis=1)
    tick = np.where(latest_change >= 0, np.take_along_axis(change, np.maximum(latest_change, 0), axis=1), 0.0)
    return Window(prices, amounts, age, last_ms / 1000, tick)


@runtime_checkable
class Feature(Protocol):
    """Definition of one or more feature columns."""

    def names(self) -> Sequence[str]:
        """Return the name of each column."""

    def describe(self) -> str:
        """Describe the columns in one sentence."""

    def columns(self, window: Window) -> Sequence[Array]:
        """Compute the columns, each (B,); NaN where the window does not reach back far enough."""


@configuration
class Ticks:
    """Signs of price changes.

    Attributes:
        lags: how many trades back each sign is read.
        means: window lengths, in trades, over which signs are averaged.
    """

    lags: Tuple[int]
    means: Tuple[int]

    def names(self) -> Sequence[str]:
        """Return the name of each column."""
        return [f"tick_{lag}" for lag in self.lags] + [f"tick_mean_{n}" for n in self.means]

    def describe(self) -> str:
        """Describe the columns."""
        return (
            "Sign of the last price change, as it stood some trades ago (`tick_0` is the tick rule), and its mean over "
            "some trades."
        )

    def columns(self, window: Window) -> Sequence[Array]:
        """Compute the columns."""
        tick = window.tick
        return [tick[:, -1 - lag] for lag in self.lags] + [tick[:, -n:].mean(axis=1) for n in self.means]


@configuration
class Returns:
    """Changes of the logarithm of the price.

    Attributes:
        lags: how many trades back each reference price is.
    """

    lags: Tuple[int]

    def names(self) -> Sequence[str]:
        """Return the name of each column."""
        return [f"return_{lag}" for lag in self.lags]

    def describe(self) -> str:
        """Describe the columns."""
        return "Logarithm of the price over that of so many trades ago, in basis points."

    def columns(self, window: Window) -> Sequence[Array]:
        """Compute the columns."""
        log = np.log(window.price)
        return [(log[:, -1] - log[:, -1 - lag]) * 1e4 for lag in self.lags]


@configuration
class Levels:
    """Position of the price among the prices of recent trades.

    Attributes:
        lengths: window lengths, in trades.
    """

    lengths: Tuple[int]

    def names(self) -> Sequence[str]:
        """Return the name of each column."""
        return [f"{kind}_{n}" for n in self.lengths for kind in ("place", "from_mean")]

    def describe(self) -> str:
        """Describe the columns."""
        return (
            "Place of the price between the lowest (0) and the highest (1) of some trades, itself among them; and its "
            "distance from their mean weighted by size, in basis points."
        )

    def columns(self, window: Window) -> Sequence[Array]:
        """Compute the columns."""
        columns = []
        for n in self.lengths:
            price, amount = window.price[:, -n:], np.nan_to_num(window.amount[:, -n:])
            low, high = np.fmin.reduce(price, axis=1), np.fmax.reduce(price, axis=1)
            last = price[:, -1]
            with np.errstate(invalid="ignore", divide="ignore"):
                columns.append(np.where(high > low, (last - low) / (high - low), 0.5))
                mean = (np.nan_to_num(price) * amount).sum(axis=1) / amount.sum(axis=1)
                columns.append((last / mean - 1) * 1e4)
        return columns


@configuration
class Bounce:
    """Distance from the last prices reached by a rise and by a fall, which estimate ask and bid."""

    def names(self) -> Sequence[str]:
        """Return the name of each column."""
        return ["from_last_up", "from_last_down", "spread"]

    def describe(self) -> str:
        """Describe the columns."""
        return (
            "Distance of the price from the latest earlier price reached by a rise, from the latest reached by a fall, "
            "and the distance of those two, in basis points."
        )

    def columns(self, window: Window) -> Sequence[Array]:
        """Compute the columns."""
        before, tick = window.price[:, :-1], window.tick[:, :-1]
        last = window.price[:, -1]
        up, down = (_latest(before, tick == sign) for sign in (1, -1))
        return [(last / up - 1) * 1e4, (last / down - 1) * 1e4, (up / down - 1) * 1e4]


def _latest(values: Array, chosen: npt.NDArray[np.bool_]) -> Array:
    """Return the last chosen value of each row, NaN if no value is chosen."""
    position = np.where(chosen, np.arange(values.shape[1]), -1).max(axis=1)
    latest = values[np.arange(len(values)), np.maximum(position, 0)]
    return np.where(position >= 0, latest, np.nan)


@configuration
class Sizes:
    """Amounts of recent trades.

    Attributes:
        lags: how many trades back each amount is read.
        lengths: window lengths, in trades, whose mean amount the amount is compared with.
    """

    lags: Tuple[int]
    lengths: Tuple[int]

    def names(self) -> Sequence[str]:
        """Return the name of each column."""
        return (
            [f"amount_{lag}" for lag in self.lags] + [f"amount_over_mean_{n}" for n in self.lengths] + ["tick_amount"]
        )

    def describe(self) -> str:
        """Describe the columns."""
        return (
            "Logarithm of the amount of the trade and of those before it; its distance from their mean; and the "
            "interaction of the tick with the amount."
        )

    def columns(self, window: Window) -> Sequence[Array]:
        """Compute the columns."""
        log = np.log1p(window.amount)
        columns = [log[:, -1 - lag] for lag in self.lags]
        with np.errstate(invalid="ignore"):
            known = ~np.isnan(log)
            for n in self.lengths:
                mean = np.nan_to_num(log[:, -n:]).sum(axis=1) / known[:, -n:].sum(axis=1)
                columns.append(log[:, -1] - mean)
        return [*columns, window.tick[:, -1] * log[:, -1]]


@configuration
class Times:
    """Time since earlier trades, and time of day.

    Attributes:
        lags: how many trades back each time gap reaches.
    """

    lags: Tuple[int]

    def names(self) -> Sequence[str]:
        """Return the name of each column."""
        return [*(f"seconds_since_{lag}" for lag in self.lags), "same_instant", "hour_sin", "hour_cos"]

    def describe(self) -> str:
        """Describe the columns."""
        return (
            "Logarithm of the seconds since some trades ago; how many trades of the window carry the very same time "
            "(one order fills several); and the time of the day, UTC."
        )

    def columns(self, window: Window) -> Sequence[Array]:
        """Compute the columns."""
        angle = window.time_s % 86400 / 86400 * 2 * math.pi
        same = (window.age_s == 0).sum(axis=1).astype(np.float64) - 1
        return [*(np.log1p(window.age_s[:, -1 - lag]) for lag in self.lags), same, np.sin(angle), np.cos(angle)]


@configuration
class SameInstant:
    """Trades with the same timestamp: one order that fills several trades."""

    def names(self) -> Sequence[str]:
        """Return the name of each column."""
        return ["instant_move", "instant_jump", "instant_tick"]

    def describe(self) -> str:
        """Describe the columns."""
        return (
            "Of the trades that carry the very same time up to this one: how far the price has moved since the first, "
            "how far the first lies from the trade before it, both in basis points, and the tick of the first."
        )

    def columns(self, window: Window) -> Sequence[Array]:
        """Compute the columns."""
        rows = np.arange(len(window.price))
        first = np.argmax(window.age_s == 0, axis=1)
        start, before = window.price[rows, first], window.price[rows, np.maximum(first - 1, 0)]
        move, jump = window.price[:, -1] / start - 1, start / before - 1
        return [move * 1e4, np.where(first > 0, jump * 1e4, np.nan), window.tick[rows, first]]


def names_of(features: Sequence[Feature]) -> list[str]:
    """Return the name of every column."""
    return [name for feature in features for name in feature.names()]


def compute(features: Sequence[Feature], window: Window) -> npt.NDArray[np.float32]:
    """Compute every column, (B, features)."""
    return np.stack([column for f in features for column in f.columns(window)], axis=1).astype(np.float32)


def describe(features: Sequence[Feature]) -> str:
    """Return the documentation of the features: a Markdown table with one row per definition."""
    lines = ["| feature | what it is |", "|---|---|"]
    lines += [f"| {', '.join(f'`{name}`' for name in f.names())} | {f.describe()} |" for f in features]
    return "\n".join(lines) + "\n"
