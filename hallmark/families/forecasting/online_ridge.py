"""Per-subject ridge on the residuals of the population model, updated every midnight in closed form.

It mends the population model's forecast from a recent window. A window teaches at the first midnight after the last
of its targets has ended; a midnight adds its windows to the normal equations and solves them, so a day costs what the
day holds and no past window is looked at again. Subjects are taught together.
Legend of shapes: S subjects, W windows, K ridge features, H horizons, G groups of horizons that learn together.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields

import numpy as np

from hallmark.arrays import Array, Floats, Integers
from hallmark.families.forecasting.inputs import ridge_features
from hallmark.families.forecasting.panel import MINUTES_A_DAY, Grid, Panel, Scale

Forecast = Callable[[Integers], Floats]
"""Forecast of the population model at some origins, (B,) → (B, H): the change from the last reading."""


@dataclass(frozen=True)
class OnlineRidgeConfig:
    """How the linear adapter learns.

    Attributes:
        penalty: of the main solution, for windows every `stride` grid points.
        other_penalties: of further solutions, offered to the network at `input_horizons_minutes`.
        input_horizons_minutes: horizons at which corrections are inputs of the network.
        stride: grid points between two windows that it learns from.
        short_minutes: horizons up to here learn from a window as soon as they have passed; longer ones wait for the
            longest horizon.
        clip: largest residual that it learns from, in the value's unit.
        young_days: up to so many days with windows the penalties are divided by three.
        memory_days: half-life of the record of its own errors.
    """

    penalty: float
    other_penalties: tuple[float, ...]
    input_horizons_minutes: tuple[int, ...]
    stride: int
    short_minutes: int
    clip: float
    young_days: int
    memory_days: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "other_penalties", tuple(self.other_penalties))
        object.__setattr__(self, "input_horizons_minutes", tuple(self.input_horizons_minutes))
        for name in ("penalty", "stride", "clip", "memory_days"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if any(not p > 0 for p in self.other_penalties):
            raise ValueError(f"other_penalties={self.other_penalties} must be positive")
        marks = self.input_horizons_minutes
        if not marks or len(set(marks)) < len(marks):
            raise ValueError(f"input_horizons_minutes={marks} must name some horizons, each once")

    def groups(self, grid: Grid) -> list[slice]:
        """Horizons that learn together: the short ones, the long ones."""
        short = int(np.searchsorted(grid.horizons_minutes, self.short_minutes, side="right"))
        return [part for part in (slice(0, short), slice(short, len(grid.steps))) if part.stop > part.start]

    @property
    def further(self) -> int:
        """Solutions beside the main one: every other penalty at every mark."""
        return len(self.other_penalties) * len(self.input_horizons_minutes)

    def marks(self, grid: Grid) -> list[int]:
        """Places of `input_horizons_minutes` among the horizons."""
        return [grid.index_of(m) for m in self.input_horizons_minutes]


@dataclass(frozen=True)
class Lessons:
    """Windows that can teach, by subject and time.

    Attributes:
        subject: (W,) whose, ascending.
        day: (W, G) at which midnight each group of horizons may learn from it, in days since 1970.
        x: (W, K) features.
        y: (W, H) what the population model missed, clipped; NaN where nobody knows.
    """

    subject: Integers
    day: Integers
    x: Floats
    y: Floats


def ridge_size(grid: Grid, scale: Scale) -> int:
    """Count the features, K."""
    nobody = np.empty((0, grid.context_length), dtype=np.float32)
    return int(ridge_features(nobody, np.empty(0, dtype=np.int64), grid.recent_length, scale).shape[1])


def lessons(panel: Panel, origins: Integers, config: OnlineRidgeConfig, scale: Scale, population: Forecast) -> Lessons:
    """Collect the lessons of some origins; only every `stride`-th grid point teaches."""
    grid = panel.grid
    chosen = panel.every(config.stride, origins)
    minute = panel.minute[chosen].astype(np.int64)
    waits = [grid.horizons_minutes[part.stop - 1] for part in config.groups(grid)]
    x, y = (
        np.empty((len(chosen), ridge_size(grid, scale)), np.float32),
        np.empty((len(chosen), len(grid.steps)), np.float32),
    )
    for start in range(0, len(chosen), 4096):  # contexts are gathered a part at a time
        here = slice(start, start + 4096)
        part = chosen[here]
        x[here] = ridge_features(panel.context(part), minute[here], grid.recent_length, scale)
        missed = panel.target(part) - panel.values[part][:, None] - population(part)
        y[here] = np.clip(missed, -config.clip, config.clip)
    day = (minute[:, None] + np.asarray(waits, dtype=np.int64)) // MINUTES_A_DAY + 1
    return Lessons(panel.subject[chosen].astype(np.int64), day, x, y)


@dataclass
class OnlineRidge:
    """Everybody's state: all that a new day's solution needs of the days before.

    Attributes:
        config: how it learns.
        grid: the horizons.
        subjects: how many.
        size: features.
        gram: (S, G, K, K) sum of the products of features.
        cross: (S, K, H) sum of the products of features and targets.
        seen: (S, H) targets that were known.
        windows: (S, G) that have taught.
        days: (S, G) on which some did.
        squares: (S, H) fading sum of squared errors on windows not yet learned from.
        counted: (S, H) the fading count of those.
        weights: (S, K, H) the main solution, in the value's unit.
        others: (S, K, penalties × marks) the further ones.
        last_day: (S,) the midnight up to which each has been taught, in days since 1970; -1 before the first.
    """

    config: OnlineRidgeConfig
    grid: Grid
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
        people, size, horizons = self.subjects, self.size, len(self.grid.steps)
        groups = len(self.config.groups(self.grid))
        self.gram = np.zeros((people, groups, size, size))
        self.cross = np.zeros((people, size, horizons))
        self.seen, self.squares, self.counted = np.zeros((3, people, horizons))
        self.windows, self.days = np.zeros((2, people, groups), dtype=np.int64)
        self.weights = np.zeros((people, size, horizons), dtype=np.float32)
        self.others = np.zeros((people, size, self.config.further), dtype=np.float32)
        self.last_day = np.full(people, -1, dtype=np.int64)

    def teach(self, group: int, subject: Integers, x: Floats, y: Floats) -> None:
        """Let one midnight's windows teach one group of horizons, and solve anew for whoever learned.

        Time is that of S products and solutions of K × K; nothing depends on how long ago a subject began.

        Args:
            group: which horizons, as in `config.groups`.
            subject: (W,) whose window, ascending.
            x: (W, K) features.
            y: (W, H) targets; those of other groups are not looked at.
        """
        if not len(subject):
            return
        part = self.config.groups(self.grid)[group]
        people, place, count = np.unique(subject, return_inverse=True, return_counts=True)
        at = np.arange(len(subject)) - (np.cumsum(count) - count)[place]
        # Whoever has fewer windows is padded with rows of zeros, which teach nothing.
        features = np.zeros((len(people), int(count.max()), self.size))
        features[place, at] = x
        there = np.zeros((*features.shape[:2], part.stop - part.start), dtype=bool)
        there[place, at] = ~np.isnan(y[:, part])
        known = np.zeros(there.shape)
        known[place, at] = np.nan_to_num(y[:, part])
        error = np.where(there, known - features @ self.weights[people, :, part], 0.0)
        fade = 0.5 ** (1.0 / self.config.memory_days)
        self.squares[people, part] = self.squares[people, part] * fade + (error**2).sum(axis=1)
        self.counted[people, part] = self.counted[people, part] * fade + there.sum(axis=1)
        turned = features.transpose(0, 2, 1)
        self.gram[people, group] += turned @ features
        self.cross[people, :, part] += turned @ known
        self.seen[people, part] += there.sum(axis=1)
        self.windows[people, group] += count
        self.days[people, group] += 1
        self._solve(people, group, part)

    def _solve(self, people: Integers, group: int, part: slice) -> None:
        gram, eye = self.gram[people, group], np.eye(self.size)
        share = self.windows[people, group, None] / np.maximum(self.seen[people, part], 1.0)
        cross = self.cross[people, :, part] * share[:, None, :]  # a column with unknown targets is scaled up
        young = np.where(self.days[people, group] <= self.config.young_days, 3.0, 1.0)[:, None, None]
        self.weights[people, :, part] = np.linalg.solve(gram + eye * (self.config.penalty / young), cross)
        marks = self.config.marks(self.grid)
        inside = [i for i, mark in enumerate(marks) if part.start <= mark < part.stop]
        if not inside:
            return
        cross = cross[:, :, [marks[i] - part.start for i in inside]]
        for p, penalty in enumerate(self.config.other_penalties):
            solved = np.linalg.solve(gram + eye * (penalty / young), cross)
            self.others[people[:, None], :, [p * len(marks) + i for i in inside]] = solved.transpose(0, 2, 1)

    def residual(self, scale: Scale) -> Floats:
        """Root mean square of its own recent errors, in units of the spread, (S, H)."""
        found: Floats = (np.sqrt(self.squares / np.maximum(self.counted, 1.0)) / scale.spread).astype(np.float32)
        return found

    def replay(self, taught: Lessons, first_day: Integers, days: Integers) -> Iterator[int]:
        """Teach midnight by midnight, each subject from its own first day on; yields how many midnights ago that was.

        A window that was due up to `last_day` has taught already and is passed over, so that readings that come twice
        or late count once.

        Args:
            taught: lessons; those due before a subject's first day are passed over too.
            first_day: (S,) the first midnight, in days since 1970.
            days: (S,) how many midnights; nothing that is due later is taught.
        """
        ahead = taught.day - first_day[taught.subject][:, None]
        fresh = (taught.day > self.last_day[taught.subject][:, None]) & (ahead < days[taught.subject][:, None])
        ahead = np.where(fresh, ahead, -1)
        order = np.argsort(ahead, axis=0, kind="stable")  # by midnight, within it still by subject
        longest = int(days.max(initial=0))
        cuts = [np.searchsorted(ahead[order[:, g], g], np.arange(longest + 1)) for g in range(order.shape[1])]
        for now in range(longest):
            for group, cut in enumerate(cuts):
                here = order[cut[now] : cut[now + 1], group]
                self.teach(group, taught.subject[here], taught.x[here], taught.y[here])
            self.last_day[:] = np.maximum(self.last_day, np.minimum(first_day + now, first_day + days - 1))
            yield now

    def part(self, here: slice) -> "OnlineRidge":
        """View some neighbouring subjects: what they learn is learned here."""
        viewed = OnlineRidge(self.config, self.grid, len(range(*here.indices(self.subjects))), self.size)
        for name, mine in self.tensors().items():
            setattr(viewed, name, mine[here])
        return viewed

    def grown(self, places: Integers, subjects: int) -> "OnlineRidge":
        """Copy into room for more subjects, the present ones at `places`; the others have learned nothing."""
        larger = OnlineRidge(self.config, self.grid, subjects, self.size)
        for name, theirs in larger.tensors().items():
            theirs[places] = self.tensors()[name]
        return larger

    def tensors(self) -> dict[str, Array]:
        """Return the state by name, for safetensors."""
        return {f.name: getattr(self, f.name) for f in fields(self) if not f.init}

    def restore(self, tensors: dict[str, Array]) -> None:
        """Take up a state that `tensors` gave.

        Raises:
            ValueError: it belongs to other sizes.
        """
        for name, mine in self.tensors().items():
            if tensors[name].shape != mine.shape:
                raise ValueError(f"state {name} has shape {tensors[name].shape}, these settings take {mine.shape}")
            setattr(self, name, tensors[name].copy())
