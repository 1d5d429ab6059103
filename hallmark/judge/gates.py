"""Quality gates: rules on test metrics before release, each passed, failed or skipped; see `conf/evaluate/*.yaml`.

A gate without enough data to decide never passes: it is skipped with a reason if `may_skip` is true, and fails
otherwise.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd

from hallmark.build import configuration
from hallmark.contracts import CHAMPION, OURS, Evaluation, Metric, Status, Verdict
from hallmark.errors import ConfigError, GateError
from hallmark.judge.bootstrap import interval

MAX_CHANGE_FACTOR = 10  # bound of the largest change, as a multiple of the bound of the 99th percentile


class Gate(Protocol):
    """A rule that an evaluation must satisfy before release."""

    def check(self, metrics: Mapping[str, Metric], segmentations: Sequence[str]) -> None:
        """Check before the run that the evaluation measures what the gate needs; raises ConfigError if not."""

    def judge(self, evaluation: Evaluation, metrics: Mapping[str, Metric]) -> Verdict:
        """Return the verdict of the gate."""


def find_row(summary: pd.DataFrame, model: str, metric: str, place: str, segment: str) -> "pd.Series[Any] | None":
    """Return one row of the summary; None if it was not measured."""
    rows = summary[
        (summary["model"] == model)
        & (summary["metric"] == metric)
        & (summary["horizon_or_split"] == place)
        & (summary["segment"] == segment)
    ]
    return None if rows.empty else rows.iloc[0]


def find(summary: pd.DataFrame, model: str, metric: str, place: str, segment: str) -> float | None:
    """Return one mean of the summary; None if it was not measured."""
    row = find_row(summary, model, metric, place, segment)
    return None if row is None else float(row["mean"])


def _status(passed: bool) -> Status:
    return "passed" if passed else "failed"


@configuration
class _OnMetric:
    """Base class of gates on one metric at a horizon or split.

    Attributes:
        metric: name of the metric.
        horizon: horizon in minutes, for forecasts; set exactly one of `horizon` and `split`.
        split: split or corpus of the test data, for other tasks.
        may_skip: whether a gate that the data cannot decide is skipped instead of failed.
    """

    metric: str
    horizon: str | int = field(default="", kw_only=True)
    split: str = field(default="", kw_only=True)
    may_skip: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if bool(self.horizon) == bool(self.split):
            raise ValueError(f'name either horizon or split of {self.metric}, such as horizon: "60" or split: test')

    @property
    def place(self) -> str:
        """The horizon or the split, as in the column `horizon_or_split` of the scores."""
        return str(self.horizon) or self.split

    def check(self, metrics: Mapping[str, Metric], segmentations: Sequence[str]) -> None:
        """Check that the metric is known."""
        if self.metric not in metrics:
            raise ConfigError(f"evaluate.gates: metric {self.metric!r} is unknown; the task has {', '.join(metrics)}")

    def undecided(self, gate: str, why: str, figure: float | None = None, unit: str = "") -> Verdict:
        """Return a skipped verdict if `may_skip` is true, else a failed one."""
        hint = "" if self.may_skip else " (may_skip: true on this gate of evaluate.gates would skip it)"
        return Verdict(gate, "skipped" if self.may_skip else "failed", figure, None, unit, f"{why}{hint}")

    def missing(self, gate: str, evaluation: Evaluation, model: str = OURS) -> Verdict:
        """Return the verdict for a model whose metric was not measured; a misspelt name is no lack of data."""
        figure = f"{self.metric}@{self.place}"
        segment = getattr(self, "segment", "all")
        named = {"against": ("model", model), "horizon or split": ("horizon_or_split", self.place)}
        for key, (column, name) in {**named, "segment": ("segment", segment)}.items():
            known = set(evaluation.summary.get(column, ()))
            if name not in known and (near := difflib.get_close_matches(name, known, 1)):
                reason = f"evaluate.gates: {key} {name!r} is unknown, did you mean {near[0]!r}?"
                return Verdict(gate, "failed", None, None, "", reason)
        return self.undecided(
            gate, f"{figure} of {model} was not measured: {evaluation.left_out or 'no test data for it'}"
        )


@configuration
class _AgainstModel(_OnMetric):
    """Base class of gates that compare our model with another one.

    Attributes:
        against: name of the other model: a baseline, a candidate or the champion.
        margin: relative margin, as a share of the other model's value.
        segment: segment whose values are compared.
    """

    against: str
    margin: float
    segment: str

    def gain(self, metric: Metric, ours: float, theirs: float) -> float:
        """Return the relative gain of our value over the other model's; positive is better."""
        return metric.gain(ours, theirs) / max(abs(theirs), 1e-9)


@configuration
class Beats(_AgainstModel):
    """Our mean must be better than another model's by a relative margin; a negative margin allows a loss."""

    def judge(self, evaluation: Evaluation, metrics: Mapping[str, Metric]) -> Verdict:
        """Compare the means of both models."""
        metric = metrics[self.metric]
        name = f"{self.metric}@{self.place} against {self.against}"
        ours = find(evaluation.summary, OURS, self.metric, self.place, self.segment)
        theirs = find(evaluation.summary, self.against, self.metric, self.place, self.segment)
        if self.against == CHAMPION and not (evaluation.summary["model"] == CHAMPION).any():
            return self.undecided(name, "there is no champion yet", ours, metric.unit)
        if ours is None or theirs is None:
            return self.missing(name, evaluation, OURS if ours is None else self.against)
        gain = self.gain(metric, ours, theirs)
        reason = f"{gain:+.1%} better, {self.margin:+.1%} needed"
        return Verdict(name, _status(gain >= self.margin), ours, theirs, metric.unit, reason)


@configuration
class NotWorse(_AgainstModel):
    """Our metric must not be significantly worse than another model's by more than a margin.

    For strong baselines: between equal models, a comparison of means would fail half of the time. The gain is
    computed per subject; the gate fails if the whole 95% bootstrap interval of its mean is below minus the margin.

    Attributes:
        min_subjects: with fewer subjects, the gate is undecided.
    """

    min_subjects: int

    def judge(self, evaluation: Evaluation, metrics: Mapping[str, Metric]) -> Verdict:
        """Compare both models, paired by subject."""
        metric = metrics[self.metric]
        name = f"{self.metric}@{self.place} not worse than {self.against}"
        scores = evaluation.scores
        rows = scores[
            (scores["metric"] == self.metric)
            & (scores["horizon_or_split"] == self.place)
            & (scores["segment"] == self.segment)
        ]
        wide = rows[rows["model"].isin([OURS, self.against])].pivot(index="subject_id", columns="model", values="value")
        if wide.shape[1] < 2 or (wide := wide.dropna()).empty:
            return self.missing(name, evaluation)
        if len(wide) < self.min_subjects:
            return self.undecided(name, f"{len(wide)} subjects prove nothing, {self.min_subjects} are needed")
        pairs = zip(wide[OURS], wide[self.against], strict=True)
        gains = np.asarray([self.gain(metric, ours, theirs) for ours, theirs in pairs])
        low, high = interval(gains)
        measured = f"{gains.mean():+.1%} better ({low:+.1%}…{high:+.1%}, {len(gains)} subjects)"
        reason = f"{measured}, failed when all of it lies below {-self.margin:+.1%}"
        bound = float(wide[self.against].mean())
        status = _status(high >= -self.margin)
        return Verdict(name, status, float(wide[OURS].mean()), bound, metric.unit, reason)


@configuration
class Within(_OnMetric):
    """Our mean must be within bounds."""

    low: float
    high: float
    segment: str

    def judge(self, evaluation: Evaluation, metrics: Mapping[str, Metric]) -> Verdict:
        """Compare the mean with the bounds."""
        metric = metrics[self.metric]
        name = f"{self.metric}@{self.place} within {self.low:g}–{self.high:g}"
        ours = find(evaluation.summary, OURS, self.metric, self.place, self.segment)
        if ours is None:
            return self.missing(name, evaluation)
        bound = self.low if ours < (self.low + self.high) / 2 else self.high
        status = _status(self.low <= ours <= self.high)
        return Verdict(name, status, ours, bound, metric.unit, f"it is {ours:.3g}")


@configuration
class NotAbove(_OnMetric):
    """Our value must not be significantly above a bound: the gate fails if the whole 95% interval is above it.

    For metrics with a high variance, such as differences between small groups.
    """

    bound: float
    segment: str

    def judge(self, evaluation: Evaluation, metrics: Mapping[str, Metric]) -> Verdict:
        """Compare the lower end of the interval with the bound."""
        name = f"{self.metric}@{self.place} not above {self.bound:g}"
        row = find_row(evaluation.summary, OURS, self.metric, self.place, self.segment)
        if row is None:
            return self.missing(name, evaluation)
        mean, low, high = (float(row[column]) for column in ("mean", "low", "high"))
        reason = f"{mean:.3g} ({low:.3g}–{high:.3g}), failed when all of it lies above {self.bound:g}"
        return Verdict(name, _status(low <= self.bound), mean, self.bound, metrics[self.metric].unit, reason)


@configuration
class EachWithin(_OnMetric):
    """The value of every subject with enough examples must be within bounds.

    Attributes:
        min_examples: subjects with fewer examples are ignored.
    """

    low: float
    high: float
    segment: str
    min_examples: int

    def judge(self, evaluation: Evaluation, metrics: Mapping[str, Metric]) -> Verdict:
        """Compare every subject with the bounds; the verdict shows the worst value."""
        metric = metrics[self.metric]
        name = f"{self.metric}@{self.place} of each within {self.low:g}–{self.high:g}"
        scores = evaluation.scores
        rows = scores[
            (scores["model"] == OURS) & (scores["metric"] == self.metric) & (scores["horizon_or_split"] == self.place)
        ]
        rows = rows[rows["segment"] == self.segment]
        if rows.empty:
            return self.missing(name, evaluation)
        most = int(rows["n_examples"].max())
        rows = rows[rows["n_examples"] >= self.min_examples]
        if rows.empty:
            return self.undecided(name, f"no subject has {self.min_examples} test examples, the most is {most}")
        outside = rows[~rows["value"].between(self.low, self.high)]
        excess = (self.low - rows["value"]).combine(rows["value"] - self.high, max)
        worst = rows.iloc[int(excess.to_numpy().argmax())]
        bound = self.low if worst["value"] < (self.low + self.high) / 2 else self.high
        # No subject id, because verdicts are public: see scores.parquet.
        reason = f"{len(outside)} of {len(rows)} subjects outside"
        return Verdict(name, _status(outside.empty), float(worst["value"]), bound, metric.unit, reason)


@configuration
class FairBetween(_OnMetric):
    """The groups of one segmentation may differ by at most a share of the overall mean.

    Attributes:
        by: segmentation, the prefix of the segments, such as `sex`.
        bound: largest difference between two groups, as a share of the overall mean.
        min_subjects: smaller groups are reported but not judged.
    """

    by: str
    bound: float
    min_subjects: int

    def check(self, metrics: Mapping[str, Metric], segmentations: Sequence[str]) -> None:
        """Check that the metric and the segmentation are known."""
        super().check(metrics, segmentations)
        if self.by not in segmentations:
            known = ", ".join(segmentations)
            raise ConfigError(f"evaluate.gates: there is no segmentation {self.by!r}; the task has {known}")

    def judge(self, evaluation: Evaluation, metrics: Mapping[str, Metric]) -> Verdict:
        """Compare the groups with the largest and the smallest mean."""
        name = f"{self.metric}@{self.place} gap by {self.by}"
        summary = evaluation.summary
        rows = summary[
            (summary["model"] == OURS)
            & (summary["metric"] == self.metric)
            & (summary["horizon_or_split"] == self.place)
        ]
        groups = rows[rows["segment"].str.startswith(f"{self.by}:") & (rows["n_units"] >= self.min_subjects)]
        overall = find(summary, OURS, self.metric, self.place, "all")
        if overall is None:
            return self.missing(name, evaluation)
        if len(groups) < 2:
            return self.undecided(name, f"fewer than two groups of {self.min_subjects}")
        order = groups.sort_values("mean")
        worst, best = order.iloc[-1], order.iloc[0]
        gap = float(worst["mean"] - best["mean"]) / max(abs(overall), 1e-9)
        reason = (
            f"{worst['segment']} {worst['mean']:.3g} ({worst['low']:.3g}–{worst['high']:.3g}) against "
            f"{best['segment']} {best['mean']:.3g} ({best['low']:.3g}–{best['high']:.3g})"
        )
        return Verdict(name, _status(gap <= self.bound), gap, self.bound, "", reason)


@configuration
class FastEnough:
    """The 95th percentile of the latency of one answer must be within a bound.

    Attributes:
        bound_ms: bound in milliseconds, on the machine of the evaluation.
    """

    bound_ms: float

    def check(self, metrics: Mapping[str, Metric], segmentations: Sequence[str]) -> None:
        """Accept any configuration: every evaluation measures latency."""

    def judge(self, evaluation: Evaluation, metrics: Mapping[str, Metric]) -> Verdict:
        """Compare the measured p95 with the bound; its value is not recorded, because it depends on the machine."""
        name = "p95 latency of one answer"
        latencies = evaluation.timings_ms
        if not latencies:
            return Verdict(name, "failed", None, None, "", "latency was not measured")
        p95 = float(pd.Series(latencies).quantile(0.95))
        comparison = "within" if p95 <= self.bound_ms else f"{p95:.1f} ms, over"
        return Verdict(name, _status(p95 <= self.bound_ms), None, self.bound_ms, "ms", f"{comparison} the bound")


@dataclass(frozen=True)
class NoDrift:
    """The drift of every column from train to test must be within a bound.

    Attributes:
        bound: largest distance of a column; Evidently counts 0.1 as drift.
        may_skip: whether the gate is skipped instead of failed if no column was compared.
    """

    bound: float
    may_skip: bool = field(default=False, kw_only=True)

    def check(self, metrics: Mapping[str, Metric], segmentations: Sequence[str]) -> None:
        """Accept any configuration: every evaluation compares test with train."""

    def judge(self, evaluation: Evaluation, metrics: Mapping[str, Metric]) -> Verdict:
        """Compare the largest drift of a column with the bound."""
        name = f"drift of no column above {self.bound:g}"
        if not evaluation.drift:
            return Verdict(name, "skipped" if self.may_skip else "failed", None, None, "", "no column was compared")
        column, distance = max(evaluation.drift.items(), key=lambda item: item[1])
        reason = f"column {column!r} moved furthest of {len(evaluation.drift)}, by {distance:.3g}"
        return Verdict(name, _status(distance <= self.bound), distance, self.bound, "", reason)


def judge(gates: Sequence[Gate], evaluation: Evaluation, metrics: Mapping[str, Metric]) -> list[Verdict]:
    """Return the verdict of every gate."""
    return [gate.judge(evaluation, metrics) for gate in gates]


def judge_output_change(before: Any, after: Any, most: float) -> Verdict:
    """Compare the outputs of a model before and after its conversion to another form.

    Args:
        before: outputs of the evaluated model, (B, K).
        after: outputs in the other form, (B, K).
        most: bound on the 99th percentile of the absolute change, relative to the standard deviation of the column.
    """
    deviation = np.maximum(before.std(axis=0), 1e-9 + 1e-3 * np.abs(before).mean())
    change = np.abs(after - before) / deviation
    percentile, worst = float(np.quantile(change, 0.99)), float(change.max())
    passed = bool(np.isfinite(after).all()) and percentile <= most and worst <= MAX_CHANGE_FACTOR * most
    reason = (
        f"99% of {before.size:,} numbers change by {percentile:.2%} of their spread or less, {most:.2%} allowed; "
        f"the worst by {worst:.2%}, {MAX_CHANGE_FACTOR * most:.2%} allowed"
    )
    return Verdict("drift of the packaged form", _status(passed), round(percentile, 6), most, "", reason)


def enforce(verdicts: Sequence[Verdict]) -> None:
    """Raise an error if a gate failed.

    Raises:
        GateError: names every failed gate with its value and reason.
    """
    failed = [v for v in verdicts if v.status == "failed"]
    if failed:
        lines = "; ".join(
            f"{v.gate}: {'' if v.figure is None else f'{v.figure:.4g} {v.unit} '.rstrip() + ', '}{v.reason}"
            for v in failed
        )
        raise GateError(f"{len(failed)} of {len(verdicts)} gates failed: {lines} (bounds: evaluate.gates)")
