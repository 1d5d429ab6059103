"""Features of the recent time series: lags, means over growing bins, summary statistics, time of day.

`window_inputs` reads the 48 h context alone; the personal inputs come from a `History`
(hallmark/families/forecasting/history.py), which holds the subject's past up to the last midnight and nothing after.
Legend of shapes: B windows, C context, P window inputs, K ridge features, H horizons.
"""

import functools

import numpy as np

from hallmark.arrays import Array, Floats
from hallmark.families.forecasting.panel import MINUTES_A_DAY, TimeGrid, ValueScale

FINE = 24  # grid points kept one by one (2 h at 5 minutes)
QUARTER = 3  # grid points per mean beyond that, within the recent window
HOURLY = 12  # grid points per mean beyond the recent window
SLOTS = 8  # means of QUARTER points of the coming hours, as they were one and two days ago


def clock(minute: Array, harmonics: int) -> Floats:
    """Encode the time of day as sine and cosine, (B, 2 × harmonics)."""
    angle = (2 * np.pi / MINUTES_A_DAY) * (minute % MINUTES_A_DAY).astype(np.float32)
    angles = angle[:, None] * np.arange(1, harmonics + 1, dtype=np.float32)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def is_weekend(minute: Array) -> Array:
    """Tell whether minutes lie on a Saturday or Sunday, (B,); day 0 of 1970 was a Thursday."""
    return (minute // MINUTES_A_DAY + 3) % 7 >= 5


def window_inputs(context: Floats, minute: Array, grid: TimeGrid, scale: ValueScale) -> Floats:
    """Compute the window inputs of a context, coarser for older readings.

    Args:
        context: (B, C) readings, oldest first, gaps short enough already interpolated; the last
            `grid.recent_length` are complete, older ones NaN where nothing is known.
        minute: (B,) local wall-clock minute of the last reading.
        grid: of the readings.
        scale: units.

    Returns:
        (B, P) inputs of order one; `window_columns` names them. A missing older mean is 0 (the level of the recent
        window), and the share of known means is itself an input.
    """
    return np.concatenate(list(_window_blocks(context, minute, grid, scale).values()), axis=1).astype(np.float32)


@functools.cache
def window_columns(grid: TimeGrid) -> dict[str, slice]:
    """Return the columns of each block of `window_inputs`."""
    nothing = np.zeros((1, grid.context_length), dtype=np.float32)
    blocks = _window_blocks(nothing, np.zeros(1, dtype=np.int64), grid, ValueScale(0.0, 1.0, -1.0, 1.0))
    ends = np.cumsum([block.shape[1] for block in blocks.values()]).tolist()
    return {name: slice(start, end) for name, start, end in zip(blocks, [0, *ends], ends, strict=False)}


def _window_blocks(context: Floats, minute: Array, grid: TimeGrid, scale: ValueScale) -> dict[str, Array]:
    """Compute the blocks of `window_inputs`, in its order."""
    length, recent_length = context.shape[1], grid.recent_length
    recent = context[:, length - recent_length :]
    last = recent[:, -1:]
    level = recent.mean(axis=1, keepdims=True)
    older, known = _known_means(context[:, : length - recent_length], HOURLY, level)
    hour = recent[:, -HOURLY:]
    three = recent[:, -3 * HOURLY :]
    summaries = np.stack(
        [
            last[:, 0] - scale.center,
            level[:, 0] - scale.center,
            recent.std(axis=1),
            recent.min(axis=1) - scale.center,
            recent.max(axis=1) - scale.center,
            hour.mean(axis=1) - scale.center,
            hour.std(axis=1),
            three.std(axis=1),
            (recent[:, -1] - recent[:, -4]) * 2,
            recent[:, -1] - recent[:, -7],
            recent[:, -1] - recent[:, -HOURLY],
            (recent[:, -1] - 2 * recent[:, -4] + recent[:, -7]) * 2,
            np.abs(np.diff(hour, axis=1)).mean(axis=1) * 4,
            (recent < scale.low).mean(axis=1) * scale.spread,
            (recent > scale.high).mean(axis=1) * scale.spread,
        ],
        axis=1,
    )
    values = {
        "lags": recent[:, -FINE:-1] - last,
        "quarters": _blocks(recent[:, :-FINE], QUARTER) - last,
        "older": older,
        "a day ago": _slots(context, grid.day_length, level),
        "two days ago": _slots(context, 2 * grid.day_length, level),
        "summaries": summaries,
    }
    return {
        **{name: block / scale.spread for name, block in values.items()},
        "clock": np.concatenate([clock(minute, 4), is_weekend(minute)[:, None]], axis=1),
        "known": known.mean(axis=1, keepdims=True) if known.shape[1] else np.ones((len(context), 1)),
    }


def ridge_features(context: Floats, minute: Array, recent_length: int, scale: ValueScale) -> Floats:
    """Compute the linear adapter's features of a recent window: lags, level terms, clock and their products.

    Returns:
        (B, K) with K = 52, the last one constant.
    """
    length = context.shape[1]
    recent = context[:, length - recent_length :]
    last = recent[:, -1]
    lags = np.concatenate([np.arange(1, 13), np.arange(15, 37, 3), np.arange(48, 133, 12)])
    lags = lags[lags < recent_length]
    differences = (recent[:, -1 - lags] - last[:, None]) / np.float32(0.6 * scale.spread)
    level = (last - scale.center) / scale.spread
    mean = (recent.mean(axis=1) - scale.center) / scale.spread
    sd = recent.std(axis=1) / scale.spread
    slope = (last - recent[:, -4]) / np.float32(0.3 * scale.spread)
    times = clock(minute, 2)
    terms = [level, mean, sd, level * level, mean * mean, level * mean, slope * np.abs(slope)]
    terms += [level * slope, mean * slope, sd * slope, sd * level]
    return np.concatenate(
        [
            differences,
            np.stack(terms, axis=1),
            times,
            times * slope[:, None],
            times * level[:, None],
            np.ones((len(context), 1), dtype=np.float32),
        ],
        axis=1,
    ).astype(np.float32)


def _blocks(values: Floats, width: int) -> Array:
    """Average every `width` columns, oldest first; a remainder at the old end is dropped."""
    keep = values.shape[1] // width * width
    means: Array = values[:, values.shape[1] - keep :].reshape(len(values), keep // width, width).mean(axis=2)
    return means


def _known_means(values: Floats, width: int, neutral: Array) -> tuple[Array, Array]:
    """Average the known values in every `width` columns, minus `neutral`; 0 where under a third is known."""
    keep = values.shape[1] // width * width
    blocks = values[:, values.shape[1] - keep :].reshape(len(values), keep // width, width)
    is_known = ~np.isnan(blocks)
    count = is_known.sum(axis=2)
    total = np.where(is_known, blocks, np.float32(0)).sum(axis=2)
    enough = count * 3 >= width
    means = np.where(enough, total / np.maximum(count, 1) - neutral, np.float32(0))
    return means, enough.astype(np.float32)


def _slots(context: Floats, back: int, neutral: Array) -> Array:
    """Average the next SLOTS quarters of `back` grid points ago; 0 where unknown or beyond the context."""
    first = context.shape[1] - 1 - back
    columns = first + 1 + np.arange(SLOTS * QUARTER)
    inside = columns >= 0
    values = context[:, np.maximum(columns, 0)]
    values = np.where(inside, values, np.float32(np.nan)).astype(np.float32)
    return _known_means(values, QUARTER, neutral)[0]
