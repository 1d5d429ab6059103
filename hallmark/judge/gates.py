"""Quality gates: pass, fail or skip by test metrics before release; configured in `conf/evaluate/*.yaml`.

A gate without enough data to decide never passes: it is skipped with its reason where `may_skip` allows it, and fails
elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd

from hallmark.contracts import Evaluation, Metric, Status, Verdict
from hallmark.errors import ConfigError, GateError
from hallmark.judge.bootstrap import interval

WORST = 10  # times the bound of most numbers is that of every one
OURS = "hallmark"
CHAMPION = "champion"


class Gate(Protocol):
    """A rule on an evaluation."""

    def check(self, metrics: Mapping[str, Metric], segmentations: Sequence[str]) -> None:
        """Raise ConfigError, before anything runs, when it asks for what the evaluation will not measure."""

    def judge(self, evaluation: Evaluation, metrics: Mapping[str, Metric]) -> Verdict:
        """Decide."""


def find_row(summary: pd.DataFrame, model: str, metric: str, at: str, segment: str) -> "pd.Series[Any] | None":
    """Look up one row, None where it was not measured."""
    hit = summary[
        (summary["model"] == model)
        & (summary["metric"] == metric)
        & (summary["at"] == at)
        & (summary["segment"] == segment)
    ]
    return None if hit.empty else hit.iloc[0]


def find(summary: pd.DataFrame, model: str, metric: str, at: str, segment: str) -> float | None:
    """Look up one mean, None where it was not measured."""
    row = find_row(summary, model, metric, at, segment)
    return None if row is None else float(row["mean"])


def _status(passed: bool) -> Status:
    return "passed" if passed else "failed"


@dataclass(frozen=True)
class _OnMetric:
    """What every gate on one figure says: which metric, and where.

    Attributes:
        metric: its name.
        at: which horizon or part, as in the summary.
        may_skip: whether the gate is skipped, rather than failed, where the data cannot decide it.
    """

    metric: str
    at: str
    may_skip: bool = field(default=False, kw_only=True)

    def check(self, metrics: Mapping[str, Metric], segmentations: Sequence[str]) -> None:
        """The metric must be known."""
        if self.metric not in metrics:
            raise ConfigError(f"evaluate.gates: metric {self.metric!r} is unknown; the task has {', '.join(metrics)}")

    def undecided(self, gate: str, why: str, figure: float | None = None, unit: str = "") -> Verdict:
        """Skip where the configuration allows it, else fail."""
        hint = "" if self.may_skip else " (may_skip: true on this gate of evaluate.gates would skip it)"
        return Verdict(gate, "skipped" if self.may_skip else "failed", figure, None, unit, f"{why}{hint}")

    def missing(self, gate: str, evaluation: Evaluation, model: str = OURS) -> Verdict:
        """Say that a model's figure is not there, and why."""
        at = f"{self.metric}@{self.at}"
        return self.undecided(gate, f"{at} of {model} was not measured: {evaluation.left_out or 'no test data for it'}")


@dataclass(frozen=True)
class _AgainstModel(_OnMetric):
    """What every gate against another model says.

    Attributes:
        against: the model that ours is compared with: a baseline, a candidate or the champion.
        margin: share of that model's figure.
        segment: whose figures are compared.
    """

    against: str
    margin: float
    segment: str

    def gain(self, metric: Metric, ours: float, theirs: float) -> float:
        """By which share of the other model's figure ours is better."""
        return metric.gain(ours, theirs) / max(abs(theirs), 1e-9)


@dataclass(frozen=True)
class Beats(_AgainstModel):
    """Our metric must be better than another model's by a relative margin (negative: not worse beyond it)."""

    def judge(self, evaluation: Evaluation, metrics: Mapping[str, Metric]) -> Verdict:
        """Compare both means."""
        metric = metrics[self.metric]
        name = f"{self.metric}@{self.at} against {self.against}"
        ours = find(evaluation.summary, OURS, self.metric, self.at, self.segment)
        theirs = find(evaluation.summary, self.against, self.metric, self.at, self.segment)
        if self.against == CHAMPION and not (evaluation.summary["model"] == CHAMPION).any():
            return self.undecided(name, "there is no champion yet", ours, metric.unit)
        if ours is None or theirs is None:
            return self.missing(name, evaluation, OURS if ours is None else self.against)
        gain = self.gain(metric, ours, theirs)
        reason = f"{gain:+.1%} better, {self.margin:+.1%} needed"
        return Verdict(name, _status(gain >= self.margin), ours, theirs, metric.unit, reason)


@dataclass(frozen=True)
class NotWorse(_AgainstModel):
    """Our metric must not be worse than another model's by more than a margin, beyond chance.

    For baselines that nothing beats by much: at parity a comparison of means would fail every other time. Subjects are
    compared with themselves; the gate fails when the 95% bootstrap interval of the mean gain lies wholly below it.

    Attributes:
        minimum_people: fewer than this prove nothing either way: the gate is undecided.
    """

    minimum_people: int

    def judge(self, evaluation: Evaluation, metrics: Mapping[str, Metric]) -> Verdict:
        """Compare subject by subject."""
        metric = metrics[self.metric]
        name = f"{self.metric}@{self.at} not worse than {self.against}"
        s = evaluation.scores
        mine = s[(s["metric"] == self.metric) & (s["at"] == self.at) & (s["segment"] == self.segment)]
        wide = mine[mine["model"].isin([OURS, self.against])].pivot(index="subject_id", columns="model", values="value")
        if wide.shape[1] < 2 or (wide := wide.dropna()).empty:
            return self.missing(name, evaluation)
        if len(wide) < self.minimum_people:
            return self.undecided(name, f"{len(wide)} subjects prove nothing, {self.minimum_people} are needed")
        pairs = zip(wide[OURS], wide[self.against], strict=True)
        gains = np.asarray([self.gain(metric, ours, theirs) for ours, theirs in pairs])
        low, high = interval(gains)
        found = f"{gains.mean():+.1%} better ({low:+.1%}…{high:+.1%}, {len(gains)} people)"
        reason = f"{found}, failed when all of it lies below {-self.margin:+.1%}"
        bound = float(wide[self.against].mean())
        status = _status(high >= -self.margin)
        return Verdict(name, status, float(wide[OURS].mean()), bound, metric.unit, reason)


@dataclass(frozen=True)
class Within(_OnMetric):
    """Our mean must lie within bounds."""

    low: float
    high: float
    segment: str

    def judge(self, evaluation: Evaluation, metrics: Mapping[str, Metric]) -> Verdict:
        """Compare the mean with the bounds."""
        metric = metrics[self.metric]
        name = f"{self.metric}@{self.at} within {self.low:g}–{self.high:g}"
        ours = find(evaluation.summary, OURS, self.metric, self.at, self.segment)
        if ours is None:
            return self.missing(name, evaluation)
        bound = self.low if ours < (self.low + self.high) / 2 else self.high
        status = _status(self.low <= ours <= self.high)
        return Verdict(name, status, ours, bound, metric.unit, f"it is {ours:.3g}")


@dataclass(frozen=True)
class NotAbove(_OnMetric):
    """Our figure must not lie above a bound, beyond chance: it fails when its whole 95% interval does.

    For figures that chance alone moves, such as differences between groups of a few names.
    """

    bound: float
    segment: str

    def judge(self, evaluation: Evaluation, metrics: Mapping[str, Metric]) -> Verdict:
        """Compare the lower end of the interval with the bound."""
        name = f"{self.metric}@{self.at} not above {self.bound:g}"
        row = find_row(evaluation.summary, OURS, self.metric, self.at, self.segment)
        if row is None:
            return self.missing(name, evaluation)
        mean, low, high = (float(row[column]) for column in ("mean", "low", "high"))
        reason = f"{mean:.3g} ({low:.3g}–{high:.3g}), failed when all of it lies above {self.bound:g}"
        return Verdict(name, _status(low <= self.bound), mean, self.bound, metrics[self.metric].unit, reason)


@dataclass(frozen=True)
class EachWithin(_OnMetric):
    """Every subject with enough examples must lie within bounds.

    Attributes:
        minimum_examples: fewer than this say nothing about a subject.
    """

    low: float
    high: float
    segment: str
    minimum_examples: int

    def judge(self, evaluation: Evaluation, metrics: Mapping[str, Metric]) -> Verdict:
        """Compare the subject that lies worst."""
        metric = metrics[self.metric]
        name = f"{self.metric}@{self.at} of each within {self.low:g}–{self.high:g}"
        s = evaluation.scores
        mine = s[(s["model"] == OURS) & (s["metric"] == self.metric) & (s["at"] == self.at)]
        mine = mine[mine["segment"] == self.segment]
        if mine.empty:
            return self.missing(name, evaluation)
        most = int(mine["n_examples"].max())
        mine = mine[mine["n_examples"] >= self.minimum_examples]
        if mine.empty:
            return self.undecided(name, f"nobody has {self.minimum_examples} test examples, the most is {most}")
        outside = mine[~mine["value"].between(self.low, self.high)]
        excess = (self.low - mine["value"]).combine(mine["value"] - self.high, max)
        worst = mine.iloc[int(excess.to_numpy().argmax())]
        bound = self.low if worst["value"] < (self.low + self.high) / 2 else self.high
        # No id: verdicts are public. Who it is stands in scores.parquet.
        reason = f"{len(outside)} of {len(mine)} subjects outside"
        return Verdict(name, _status(outside.empty), float(worst["value"]), bound, metric.unit, reason)


@dataclass(frozen=True)
class FairBetween(_OnMetric):
    """The groups of one segmentation may differ by at most a share of the overall mean.

    Attributes:
        by: prefix of the segments, such as `sex`.
        bound: largest difference between two groups, as a share of the overall mean.
        minimum_people: smaller groups are reported but not judged.
    """

    by: str
    bound: float
    minimum_people: int

    def check(self, metrics: Mapping[str, Metric], segmentations: Sequence[str]) -> None:
        """The metric and the segmentation must be known."""
        super().check(metrics, segmentations)
        if self.by not in segmentations:
            known = ", ".join(segmentations)
            raise ConfigError(f"evaluate.gates: there is no segmentation {self.by!r}; the task has {known}")

    def judge(self, evaluation: Evaluation, metrics: Mapping[str, Metric]) -> Verdict:
        """Compare the best with the worst group."""
        name = f"{self.metric}@{self.at} gap by {self.by}"
        s = evaluation.summary
        mine = s[(s["model"] == OURS) & (s["metric"] == self.metric) & (s["at"] == self.at)]
        groups = mine[mine["segment"].str.startswith(f"{self.by}:") & (mine["drawn"] >= self.minimum_people)]
        overall = find(s, OURS, self.metric, self.at, "all")
        if overall is None:
            return self.missing(name, evaluation)
        if len(groups) < 2:
            return self.undecided(name, f"fewer than two groups of {self.minimum_people}")
        order = groups.sort_values("mean")
        worst, best = order.iloc[-1], order.iloc[0]
        gap = float(worst["mean"] - best["mean"]) / max(abs(overall), 1e-9)
        reason = (
            f"{worst['segment']} {worst['mean']:.3g} ({worst['low']:.3g}–{worst['high']:.3g}) against "
            f"{best['segment']} {best['mean']:.3g} ({best['low']:.3g}–{best['high']:.3g})"
        )
        return Verdict(name, _status(gap <= self.bound), gap, self.bound, "", reason)


@dataclass(frozen=True)
class FastEnough:
    """The 95th percentile of one answer's time must stay under a bound.

    Attributes:
        bound_ms: milliseconds, on the machine that evaluates.
    """

    bound_ms: float

    def check(self, metrics: Mapping[str, Metric], segmentations: Sequence[str]) -> None:
        """Every evaluation takes times."""

    def judge(self, evaluation: Evaluation, metrics: Mapping[str, Metric]) -> Verdict:
        """Compare the measured p95; the figure itself is not recorded, being a property of the machine."""
        name = "p95 latency of one answer"
        measured = evaluation.timings_ms
        if not measured:
            return Verdict(name, "failed", None, None, "", "latency was not measured")
        p95 = float(pd.Series(measured).quantile(0.95))
        word = "within" if p95 <= self.bound_ms else f"{p95:.1f} ms, over"
        return Verdict(name, _status(p95 <= self.bound_ms), None, self.bound_ms, "ms", f"{word} the bound")


@dataclass(frozen=True)
class NoDrift:
    """No column of the data report may have moved further from train to test than a distance.

    Attributes:
        bound: of the distance; Evidently counts 0.1 as drift.
        may_skip: whether the gate is skipped, rather than failed, where no column was compared.
    """

    bound: float
    may_skip: bool = field(default=False, kw_only=True)

    def check(self, metrics: Mapping[str, Metric], segmentations: Sequence[str]) -> None:
        """Every evaluation compares test with train."""

    def judge(self, evaluation: Evaluation, metrics: Mapping[str, Metric]) -> Verdict:
        """Compare the column that moved furthest."""
        name = f"drift of no column above {self.bound:g}"
        if not evaluation.drift:
            return Verdict(name, "skipped" if self.may_skip else "failed", None, None, "", "no column was compared")
        column, distance = max(evaluation.drift.items(), key=lambda item: item[1])
        reason = f"column {column!r} moved furthest of {len(evaluation.drift)}, by {distance:.3g}"
        return Verdict(name, _status(distance <= self.bound), distance, self.bound, "", reason)


def judge(gates: Sequence[Gate], evaluation: Evaluation, metrics: Mapping[str, Metric]) -> list[Verdict]:
    """Let every gate decide."""
    return [gate.judge(evaluation, metrics) for gate in gates]


def judge_drift(before: Any, after: Any, most: float) -> Verdict:
    """Hold what another form of a model gives against what was judged.

    Args:
        before: numbers that answers rest on, (B, K).
        after: the same in the other form.
        most: bound on the 99th percentile of the change, as a share of the standard deviation over all of a column.
    """
    spread = np.maximum(before.std(axis=0), 1e-9 + 1e-3 * np.abs(before).mean())
    change = np.abs(after - before) / spread
    figure, worst = float(np.quantile(change, 0.99)), float(change.max())
    passed = bool(np.isfinite(after).all()) and figure <= most and worst <= WORST * most
    reason = (
        f"99% of {before.size:,} numbers change by {figure:.2%} of their spread or less, {most:.2%} allowed; "
        f"the worst by {worst:.2%}, {WORST * most:.2%} allowed"
    )
    return Verdict("drift of the packaged form", _status(passed), round(figure, 6), most, "", reason)


def enforce(verdicts: Sequence[Verdict]) -> None:
    """Refuse a model that failed a gate.

    Raises:
        GateError: every failed gate with its figure, bound and reason.
    """
    failed = [v for v in verdicts if v.status == "failed"]
    if failed:
        lines = "; ".join(
            f"{v.gate}: {'' if v.figure is None else f'{v.figure:.4g} {v.unit} '.rstrip() + ', '}{v.reason}"
            for v in failed
        )
        raise GateError(f"{len(failed)} of {len(verdicts)} gates failed: {lines} (bounds: evaluate.gates)")
