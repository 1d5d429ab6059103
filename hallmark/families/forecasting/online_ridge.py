"""Per-subject ridge on the residuals of the population model, updated every midnight in closed form.

It corrects the population model's forecast from a recent window. A window joins the training set at the first midnight
after the last of its targets was observed. A midnight adds its windows to the normal equations and solves them, so the
cost of a day depends on its own windows and no past window is read again. Subjects are fitted together.
Legend of shapes: S subjects, W windows, K ridge features, H horizons, G groups of horizons that are fitted together.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Annotated

import numpy as np
from pydantic import Field

from hallmark.arrays import Array, Floats, Integers
from hallmark.build import Count, Positive, Tuple, configuration
from hallmark.families.forecasting.inputs import ridge_features
from hallmark.families.forecasting.panel import MINUTES_A_DAY, Panel, TimeGrid, ValueScale

Forecast = Callable[[Integers], Floats]
"""Forecast of the population model at some origins, (B,) → (B, H): the change from the last reading."""


@configuration
class OnlineRidgeConfig:
    """Settings of the linear adapter.

    Attributes:
        penalty: of the main solution, for windows every `stride` grid points.
        other_penalties: of further solutions, offered to the network at `input_horizons_minutes`.
        input_horizons_minutes: horizons at which corrections are inputs of the network.
        stride: grid points between two training windows.
        short_minutes: horizons up to here are fitted on a window as soon as they have passed; longer ones wait for the
            longest horizon.
        clip: larger residuals are clipped to this, in the value's unit.
        young_days: up to so many days with windows the penalties are divided by three.
        memory_days: half-life of the record of the ridge's own errors.
    """

    penalty: Positive
    other_penalties: Tuple[Positive]
    input_horizons_minutes: Annotated[Tuple[Count], Field(min_length=1)]
    stride: Count
    short_minutes: int
    clip: Positive
    young_days: Annotated[int, Field(ge=0)]
    memory_days: Positive

    def __post_init__(self) -> None:
        horizons = self.input_horizons_minutes
        if len(set(horizons)) < len(horizons):
            raise ValueError(f"input_horizons_minutes={list(horizons)} names a horizon twice")

    def groups(self, grid: TimeGrid) -> list[slice]:
        """Horizons that are fitted together: the short ones, the long ones."""
        short = int(np.searchsorted(grid.horizons_minutes, self.short_minutes, side="right"))
        return [
            horizons for horizons in (slice(0, short), slice(short, len(grid.steps))) if horizons.stop > horizons.start
        ]

    @property
    def other_solutions(self) -> int:
        """Number of solutions beside the main one: every other penalty at every input horizon."""
        return len(self.other_penalties) * len(self.input_horizons_minutes)

    def input_horizons(self, grid: TimeGrid) -> list[int]:
        """Return the positions of `input_horizons_minutes` among the horizons."""
        return [grid.index_of(m) for m in self.input_horizons_minutes]


@dataclass(frozen=True)
class TrainingWindows:
    """Training windows of the online ridge, by subject and time.

    Attributes:
        subject: (W,) of each window, ascending.
        day: (W, G) the midnight from which each group of horizons may be fitted on the window, in days since 1970.
        x: (W, K) features.
        y: (W, H) residuals of the population model, clipped; NaN where unknown.
    """

    subject: Integers
    day: Integers
    x: Floats
    y: Floats


def ridge_size(grid: TimeGrid, scale: ValueScale) -> int:
    """Count the features, K."""
    no_context = np.empty((0, grid.context_length), dtype=np.float32)
    return int(ridge_features(no_context, np.empty(0, dtype=np.int64), grid.recent_length, scale).shape[1])


def training_windows(
    panel: Panel, origins: Integers, config: OnlineRidgeConfig, scale: ValueScale, population: Forecast
) -> TrainingWindows:
    """Collect the training windows of some origins: those at every `stride`-th grid point."""
    grid = panel.grid
    chosen = panel.thinned(config.stride, origins)
    minute = panel.minute[chosen].astype(np.int64)
    waits = [grid.horizons_minutes[horizons.stop - 1] for horizons in config.groups(grid)]
    x, y = (
        np.empty((len(chosen), ridge_size(grid, scale)), np.float32),
        np.empty((len(chosen), len(grid.steps)), np.float32),
    )
    for start in range(0, len(chosen), 4096):  # contexts are gathered a chunk at a time
        rows = slice(start, start + 4096)
        chunk = chosen[rows]
        x[rows] = ridge_features(panel.context(chunk), minute[rows], grid.recent_length, scale)
        missed = panel.target(chunk) - panel.values[chunk][:, None] - population(chunk)
        y[rows] = np.clip(missed, -config.clip, config.clip)
    day = (minute[:, None] + np.asarray(waits, dtype=np.int64)) // MINUTES_A_DAY + 1
    return TrainingWindows(panel.subject[chosen].astype(np.int64), day, x, y)


@dataclass
class OnlineRidge:
    """State of all subjects: what the solution of a new day needs from earlier days.

    Attributes:
        config: settings.
        grid: the horizons.
        subjects: number of subjects, S.
        size: number of features, K.
        gram: (S, G, K, K) sum of the products of features.
        cross: (S, K, H) sum of the products of features and targets.
        seen: (S, H) targets that were known.
        windows: (S, G) number of fitted windows.
        days: (S, G) number of days with fitted windows.
        squares: (S, H) fading sum of squared errors on windows before they were fitted.
        counted: (S, H) the fading count of those errors.
        weights: (S, K, H) the main solution, in the value's unit.
        others: (S, K, other penalties × input horizons) the further solutions.
        last_day: (S,) the midnight up to which each subject is fitted, in days since 1970; -1 before the first.
    """

    config: OnlineRidgeConfig
    grid: TimeGrid
    subjects: int
    size: int
    gram: Array = field(init=False)
    cross: Array = field(init=False)
    seen: Array = field(init=False)
    windows: Array = field(init=False)
    days: Array = field(init=False)
    squares: Array = field(init=False)
    counted: Array = field(init=False)
    weights: Floats = field(init=False)
    others: Floats = field(init=False)
    last_day: Integers = field(init=False)

    def __post_init__(self) -> None:
        subjects, size, horizons = self.subjects, self.size, len(self.grid.steps)
        groups = len(self.config.groups(self.grid))
        self.gram = np.zeros((subjects, groups, size, size))
        self.cross = np.zeros((subjects, size, horizons))
        self.seen, self.squares, self.counted = np.zeros((3, subjects, horizons))
        self.windows, self.days = np.zeros((2, subjects, groups), dtype=np.int64)
        self.weights = np.zeros((subjects, size, horizons), dtype=np.float32)
        self.others = np.zeros((subjects, size, self.config.other_solutions), dtype=np.float32)
        self.last_day = np.full(subjects, -1, dtype=np.int64)

    def fit(self, group: int, subject: Integers, x: Floats, y: Floats) -> None:
        """Add one midnight's windows to one group of horizons, and solve again for the subjects of these windows.

        Time is that of S products and solutions of K × K; it does not depend on the length of a subject's record.

        Args:
            group: position of the horizons in `config.groups`.
            subject: (W,) of each window, ascending.
            x: (W, K) features.
            y: (W, H) targets; those of other groups are not used.
        """
        if not len(subject):
            return
        horizons = self.config.groups(self.grid)[group]
        subjects, place, count = np.unique(subject, return_inverse=True, return_counts=True)
        position = np.arange(len(subject)) - (np.cumsum(count) - count)[place]
        # Subjects with fewer windows are padded with rows of zeros, which do not change the fit.
        features = np.zeros((len(subjects), int(count.max()), self.size))
        features[place, position] = x
        is_known = np.zeros((*features.shape[:2], horizons.stop - horizons.start), dtype=bool)
        is_known[place, position] = ~np.isnan(y[:, horizons])
        targets = np.zeros(is_known.shape)
        targets[place, position] = np.nan_to_num(y[:, horizons])
        error = np.where(is_known, targets - features @ self.weights[subjects, :, horizons], 0.0)
        fade = 0.5 ** (1.0 / self.config.memory_days)
        self.squares[subjects, horizons] = self.squares[subjects, horizons] * fade + (error**2).sum(axis=1)
        self.counted[subjects, horizons] = self.counted[subjects, horizons] * fade + is_known.sum(axis=1)
        transposed = features.transpose(0, 2, 1)
        self.gram[subjects, group] += transposed @ features
        self.cross[subjects, :, horizons] += transposed @ targets
        self.seen[subjects, horizons] += is_known.sum(axis=1)
        self.windows[subjects, group] += count
        self.days[subjects, group] += 1
        self._solve(subjects, group, horizons)

    def _solve(self, subjects: Integers, group: int, horizons: slice) -> None:
        gram, eye = self.gram[subjects, group], np.eye(self.size)
        share = self.windows[subjects, group, None] / np.maximum(self.seen[subjects, horizons], 1.0)
        cross = self.cross[subjects, :, horizons] * share[:, None, :]  # a column with unknown targets is scaled up
        young = np.where(self.days[subjects, group] <= self.config.young_days, 3.0, 1.0)[:, None, None]
        self.weights[subjects, :, horizons] = np.linalg.solve(gram + eye * (self.config.penalty / young), cross)
        input_horizons = self.config.input_horizons(self.grid)
        inside = [i for i, horizon in enumerate(input_horizons) if horizons.start <= horizon < horizons.stop]
        if not inside:
            return
        cross = cross[:, :, [input_horizons[i] - horizons.start for i in inside]]
        for p, penalty in enumerate(self.config.other_penalties):
            solved = np.linalg.solve(gram + eye * (penalty / young), cross)
            self.others[subjects[:, None], :, [p * len(input_horizons) + i for i in inside]] = solved.transpose(0, 2, 1)

    def residual(self, scale: ValueScale) -> Floats:
        """Compute the root mean square of the ridge's own recent errors, in units of the spread, (S, H)."""
        residual: Floats = (np.sqrt(self.squares / np.maximum(self.counted, 1.0)) / scale.spread).astype(np.float32)
        return residual

    def replay(self, windows: TrainingWindows, first_day: Integers, days: Integers) -> Iterator[int]:
        """Fit midnight by midnight, each subject from its own first day on; yields the midnights since that day.

        A window that was due up to `last_day` was fitted before and is skipped, so that readings that arrive twice or
        late count once.

        Args:
            windows: training windows; those due before a subject's first day are skipped too.
            first_day: (S,) the first midnight, in days since 1970.
            days: (S,) number of midnights; windows that are due later are skipped.
        """
        ahead = windows.day - first_day[windows.subject][:, None]
        fresh = (windows.day > self.last_day[windows.subject][:, None]) & (ahead < days[windows.subject][:, None])
        ahead = np.where(fresh, ahead, -1)
        order = np.argsort(ahead, axis=0, kind="stable")  # by midnight, within it still by subject
        longest = int(days.max(initial=0))
        cuts = [np.searchsorted(ahead[order[:, g], g], np.arange(longest + 1)) for g in range(order.shape[1])]
        for midnight in range(longest):
            for group, cut in enumerate(cuts):
                due = order[cut[midnight] : cut[midnight + 1], group]
                self.fit(group, windows.subject[due], windows.x[due], windows.y[due])
            self.last_day[:] = np.maximum(self.last_day, np.minimum(first_day + midnight, first_day + days - 1))
            yield midnight

    def subset(self, subjects: slice) -> "OnlineRidge":
        """Return a view of neighbouring subjects: fitting the view updates this object."""
        viewed = OnlineRidge(self.config, self.grid, len(range(*subjects.indices(self.subjects))), self.size)
        for name, array in self.tensors().items():
            setattr(viewed, name, array[subjects])
        return viewed

    def with_more_subjects(self, places: Integers, subjects: int) -> "OnlineRidge":
        """Copy the state for more subjects: the present ones move to `places`, the others start empty."""
        larger = OnlineRidge(self.config, self.grid, subjects, self.size)
        for name, array in larger.tensors().items():
            array[places] = self.tensors()[name]
        return larger

    def tensors(self) -> dict[str, Array]:
        """Return the state by name, for safetensors."""
        return {f.name: getattr(self, f.name) for f in fields(self) if not f.init}

    def restore(self, tensors: dict[str, Array]) -> None:
        """Restore a state that `tensors` returned.

        Raises:
            ValueError: an array has another shape than with these settings.
        """
        for name, array in self.tensors().items():
            if tensors[name].shape != array.shape:
                raise ValueError(f"state {name} has shape {tensors[name].shape}, these settings take {array.shape}")
            setattr(self, name, tensors[name].copy())
