"""Decide which subjects' adapters are fitted again, whether the base model is due, and whether a challenger deploys.

All of it are pure functions of what the records say. A claim that an adapter has become worse is tested, and over the
fleet at most a stated share of such claims is false; what is due by date or by count is a fact and needs no test.

Source: Wang and Ramdas 2022 (e-BH: false discoveries under any dependence).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from hallmark.build import Count, InnerShare, Positive, Share, configuration
from hallmark.watch.canary import clustered_mean

Why = Literal[
    "requested",
    "stopped",
    "worse",
    "new_observations",
    "schedule",
    "nothing_new",
    "insufficient_data",
    "not_due",
    "budget",
    "canary",
]
"""Code of the reason of a decision; the first five fit an adapter again."""
REFIT: tuple[Why, ...] = ("requested", "stopped", "worse", "new_observations", "schedule")
CERTAIN = 0.95  # of a one-sided bound
OLDEST_DAYS = 180  # the loss of older adapters hardly grows any more: python -m benchmarks.operate_retrain


@configuration
class RetrainRule:
    """When adapters are fitted again, and when a challenger may serve.

    Attributes:
        longest_days: answers that are older are not read.
        every_days: an adapter with new observations is due after so many days.
        new_observations: or after so many new observations of its subject.
        holdout_days: the last whole days, on which challenger and champion are compared; no observation of them is
            fitted for the comparison.
        false_discovery_rate: share of false claims among the adapters that are fitted again because they became worse.
        budget_s: CPU seconds of one run; None for no limit.
        seconds_a_subject: that fitting and comparing one adapter takes.
        staleness_a_day: share of its loss that an adapter costs for every day since it was fitted, measured before:
            for the order in which a budget is spent, and as what is expected of a challenger before it is compared.
        margin: share of the champion's loss by which the challenger might be worse at the bound of 95%.
        most_a_day: answers of a subject's day that are compared.
        fewest_pairs: subject-days with outcomes that a comparison needs.
        canary_days: a newly trained version is watched for so long before its adapters are fitted again.
        reference_days: so many first days tell what errors are usual.
        patience_days: adapters have so long to make up for a population that moved, before the base model is due.
        tolerated: share by which the error may be above that of the reference days before the population has moved.
    """

    longest_days: Count
    every_days: Count
    new_observations: Count
    holdout_days: Count
    false_discovery_rate: InnerShare
    budget_s: Positive | None
    seconds_a_subject: Positive
    staleness_a_day: Share
    margin: InnerShare
    most_a_day: Count
    fewest_pairs: Count
    canary_days: Count
    reference_days: Count
    patience_days: Count
    tolerated: InnerShare


@dataclass(frozen=True)
class Standing:
    """What is known about a subject and its adapter.

    Attributes:
        subject_id: whose.
        new: observations since it was fitted.
        before: of them, those of before the days that are held out.
        days_since: days since it was fitted; None if it never was.
        evidence: e-value against "the adapter is as good as the base model and covers enough"; 1 without a ledger.
        excess: loss beyond the base model's, as a share of it; 0 without a ledger.
        stopped: whether the base model serves instead.
        asked: who asked for it, empty if nobody did.
    """

    subject_id: str
    new: int
    before: int
    days_since: int | None
    evidence: float = 1.0
    excess: float = 0.0
    stopped: bool = False
    asked: str = ""


@dataclass(frozen=True)
class Decision:
    """What is done about a subject.

    Attributes:
        subject_id: whose adapter.
        why: code of the reason.
        text: the reason, one sentence.
        gain: expected share of the loss that fitting again takes away.
        stale: of it, the share for the days since the adapter was fitted.
    """

    subject_id: str
    why: Why
    text: str
    gain: float = 0.0
    stale: float = 0.0

    @property
    def refit(self) -> bool:
        """Whether the adapter is fitted again."""
        return self.why in REFIT


def decide(standings: Sequence[Standing], rule: RetrainRule) -> list[Decision]:
    """Decide for every subject, in the order of `standings`."""
    worse = discoveries({s.subject_id: s.evidence for s in standings}, rule.false_discovery_rate)
    decisions = [_decide(standing, standing.subject_id in worse, rule) for standing in standings]
    return _within_budget(decisions, rule)


def _decide(s: Standing, worse: bool, rule: RetrainRule) -> Decision:
    days_since = rule.every_days if s.days_since is None else s.days_since
    stale = rule.staleness_a_day * min(days_since, OLDEST_DAYS)

    def because(why: Why, text: str) -> Decision:
        return Decision(s.subject_id, why, text, max(s.excess, 0.0) + stale, stale)

    fitted = "it was never fitted" if s.days_since is None else f"{s.days_since} days after it was fitted"
    observations = f"{s.new:,} new observations"
    if not s.new:
        return because("nothing_new", f"no new observation, {fitted}")
    if not s.before:
        return because("insufficient_data", f"{observations}, all of the days that are held out for the comparison")
    if s.asked:
        return because("requested", f"asked for by {s.asked}; {observations}")
    if s.stopped:
        return because("stopped", f"the base model serves instead; {observations}")
    if worse:
        rate = f"at most {rule.false_discovery_rate:.0%} of such claims are false"
        return because("worse", f"the adapter became worse (e-value {s.evidence:.3g}; {rate})")
    if s.new >= rule.new_observations:
        return because("new_observations", f"{observations}, at least {rule.new_observations:,}")
    if days_since >= rule.every_days:
        return because("schedule", f"{fitted}; {observations}")
    return because("not_due", f"{observations}, {fitted}")


def _within_budget(decisions: Sequence[Decision], rule: RetrainRule) -> list[Decision]:
    """Skip the adapters from which least is expected, those that were asked for last."""
    if rule.budget_s is None:
        return list(decisions)
    chosen = sorted((d for d in decisions if d.refit), key=lambda d: (d.why != "requested", -d.gain, d.subject_id))
    affordable = {d.subject_id for d in chosen[: int(rule.budget_s / rule.seconds_a_subject)]}
    text = f"{{}}; the budget of {rule.budget_s:g} s is spent on {len(affordable)} others that promise more"
    return [
        replace(d, why="budget", text=text.format(d.text)) if d.refit and d.subject_id not in affordable else d
        for d in decisions
    ]


def discoveries(evidence: Mapping[str, float], rate: float) -> set[str]:
    """Return the names whose hypothesis is rejected, so that at most a share of them is false on average.

    Args:
        evidence: name → e-value against its hypothesis.
        rate: that share.
    """
    ordered = sorted(evidence.items(), key=lambda item: -item[1])
    count = max((k for k, (_, e) in enumerate(ordered, 1) if e >= len(ordered) / (k * rate)), default=0)
    return {name for name, _ in ordered[:count]}


@dataclass(frozen=True)
class Population:
    """What is known about all subjects together since the base model was trained.

    Attributes:
        moved: first day of an alarm about inputs, answers or errors; None if there is none.
        refitted: when adapters were first fitted again since then; None if they were not, or there are none.
        personal: whether there are adapters.
        usual: mean error of the reference days; None if it is not known.
        lately: mean error since the adapters were fitted again, or since the alarm; None if no outcome is known.
    """

    moved: date | None
    refitted: date | None
    personal: bool
    usual: float | None
    lately: float | None


@dataclass(frozen=True)
class BaseDecision:
    """Whether the base model is due.

    Attributes:
        due: whether it should be trained again.
        why: code of the reason.
        text: one sentence.
    """

    due: bool
    why: Literal["not_moved", "adapters_first", "no_loss", "unknown_loss", "population_moved"]
    text: str


def decide_base(population: Population, rule: RetrainRule, today: date) -> BaseDecision:
    """Decide about the base model: adapters first, the base only if the population moved and they do not make up."""
    p = population
    if p.moved is None:
        return BaseDecision(False, "not_moved", "no alarm about inputs, answers or errors since it was trained")
    waited = p.refitted is not None and p.refitted >= p.moved
    enough = p.refitted is not None and today - p.refitted >= timedelta(days=rule.patience_days)
    if p.personal and not (waited and enough):
        text = f"an alarm began on {p.moved}: the adapters come first, and have {rule.patience_days} days"
        return BaseDecision(False, "adapters_first", text)
    if p.usual is None or p.lately is None:
        text = f"an alarm began on {p.moved}, but no outcomes tell whether errors grew: decide by hand"
        return BaseDecision(False, "unknown_loss", text)
    change = p.lately / p.usual - 1 if p.usual > 0 else 0.0
    if change <= rule.tolerated:
        text = f"an alarm began on {p.moved}, but errors are {change:+.1%} against the reference days"
        return BaseDecision(False, "no_loss", text)
    text = f"an alarm began on {p.moved}, and errors are {change:+.1%} against the reference days"
    return BaseDecision(True, "population_moved", text)


@dataclass(frozen=True)
class Challenged:
    """What the comparison of challenger and champion says.

    Attributes:
        deploys: whether the challenger may serve.
        why: code of the reason.
        text: one sentence.
        difference: expected loss of the challenger beyond the champion's where it would serve, 0 elsewhere, as a share
            of the champion's; None if it is not known.
        bound: upper bound of it, 95%; None if it is not known.
        pairs: subject-days that were compared.
        subjects: of which they are.
        taken_back: subjects whose adapter stays as it was, because the challenger's is worse for them.
    """

    deploys: bool
    why: Literal["improved", "no_improvement", "insufficient_data"]
    text: str
    difference: float | None = None
    bound: float | None = None
    pairs: int = 0
    subjects: int = 0
    taken_back: Sequence[str] = ()


def judge_challenger(
    losses: pd.DataFrame, chosen: Iterable[str], rule: RetrainRule, expected_gain: float = 0.0
) -> Challenged:
    """Judge a challenger on the days that were held out.

    A few days say little about one subject. What is expected of each is therefore its own mean difference, drawn to
    the mean of all the more, the fewer its days and the more alike the subjects are; somebody without an outcome is
    expected to be like all. Whoever the challenger is expected to be worse for keeps the adapter of before. What this
    choice is worth is not measured on the days that made it: each day counts as all other days chose. The challenger
    deploys if the mean of that is a gain, and the 95% bound of it no larger loss than the margin.

    A fit on newer observations is known to be better by a little: less than a few days can show, so that without this
    knowledge noise would decide. It counts as so many days of the expected gain as leave half of the margin as its
    error. The longer ago the champion was fitted, the more must speak against the challenger; many days still do. Where
    the held-out days contradict it, what is known of other fits is no knowledge of this one, and they decide alone.

    Args:
        losses: one row per subject and day: `subject_id`, `champion`, `challenger`, mean losses over the same requests.
        chosen: subjects whose adapter was fitted again.
        rule: margin, and how many pairs are needed.
        expected_gain: share of the loss that the challenger is expected to take away, before it is compared; 0 for a
            challenger of which nothing is known.

    Source of the expectation: James and Stein 1961; Efron and Morris 1973 (empirical Bayes). Source of the check of it:
    Box 1980 (prior predictive).
    """
    paired = _paired(losses, rule)
    if isinstance(paired, Challenged):
        return paired
    difference, subject, clusters, quantile = paired
    pairs, subjects = len(difference), subject.nunique()
    prior, prior_error = -expected_gain, rule.margin / 2
    measured, its_error = clustered_mean(difference, clusters)
    contradicted = prior < 0 and measured - prior > quantile * float(np.hypot(its_error, prior_error))
    expected = _Expected(difference, subject, 0.0 if contradicted else prior, prior_error)
    worth = difference.where(expected.without_each() < 0, 0.0)
    mean, error = expected.with_prior(*clustered_mean(worth, clusters))
    bound = mean + quantile * error
    told = f"; {prior:+.2%} was expected of newer observations" if prior else ""
    figures = (
        f"{_against(measured, pairs, subjects)}{told}"
        f"{', which these days contradict' if contradicted else ''}; {mean:+.2%} where it would serve, at most "
        f"{bound:+.2%} (95%)"
    )
    worse = tuple(sorted(subject for subject in set(chosen) if expected.of(subject) >= 0))
    if not (mean < 0 and bound <= rule.margin and len(worse) < len(set(chosen))):
        return Challenged(False, "no_improvement", f"{figures}: not deployed", mean, bound, pairs, subjects)
    return Challenged(True, "improved", figures, mean, bound, pairs, subjects, worse)


def judge_base(losses: pd.DataFrame, rule: RetrainRule) -> Challenged:
    """Judge a base model that was trained again, on the days that were held out, as a whole.

    It deploys if its mean loss is smaller than the champion's, and the 95% bound of the difference no larger loss than
    the margin.

    Args:
        losses: one row per subject and day: `subject_id`, `champion`, `challenger`, mean losses over the same requests.
        rule: margin, and how many pairs are needed.
    """
    paired = _paired(losses, rule)
    if isinstance(paired, Challenged):
        return paired
    pairs, subjects = len(paired.difference), paired.subject.nunique()
    mean, error = clustered_mean(paired.difference, paired.clusters)
    bound = mean + paired.quantile * error
    figures = f"{_against(mean, pairs, subjects)}, at most {bound:+.2%} (95%)"
    if not (mean < 0 and bound <= rule.margin):
        return Challenged(False, "no_improvement", f"{figures}: not deployed", mean, bound, pairs, subjects)
    return Challenged(True, "improved", figures, mean, bound, pairs, subjects)


class _Paired(NamedTuple):
    """Differences of two versions' losses on subject-days that can be judged.

    Attributes:
        difference: (P,) challenger minus champion, as a share of the champion's mean.
        subject: (P,) whose day.
        clusters: (P,) what is independent of each other.
        quantile: of Student's t, for the bound.
    """

    difference: "pd.Series[float]"
    subject: "pd.Series[str]"
    clusters: "pd.Series[Any]"
    quantile: float


def _paired(losses: pd.DataFrame, rule: RetrainRule) -> _Paired | Challenged:
    """Return the differences, or the verdict where there is nothing to judge by."""
    from scipy.stats import t

    every = losses.astype({"champion": float, "challenger": float})  # a table without a row has no types
    paired = every[np.isfinite(every["champion"])]
    pairs, subjects = len(paired), int(paired["subject_id"].nunique())
    usual = float(paired["champion"].mean()) if pairs else 0.0
    if pairs < max(rule.fewest_pairs, 2):
        text = f"{pairs} subject-days with outcomes were held out, {rule.fewest_pairs} are needed"
        return Challenged(False, "insufficient_data", text, pairs=pairs, subjects=subjects)
    if not usual > 0:
        return Challenged(False, "no_improvement", "the champion makes no errors", pairs=pairs, subjects=subjects)
    if broken := int((~np.isfinite(paired["challenger"])).sum()):
        text = f"its loss is no number on {broken} of {pairs} held-out days: not deployed"
        return Challenged(False, "no_improvement", text, pairs=pairs, subjects=subjects)
    difference = (paired["challenger"] - paired["champion"]) / usual
    # The days of one subject are not independent; of very few subjects, only the days can tell how sure it is.
    clusters = paired["subject_id"] if subjects >= FEWEST_CLUSTERS else pd.Series(np.arange(pairs), paired.index)
    return _Paired(difference, paired["subject_id"], clusters, float(t.ppf(CERTAIN, clusters.nunique() - 1)))


def _against(measured: float, pairs: int, subjects: int) -> str:
    return f"its loss is {measured:+.2%} against the champion's on {pairs} held-out days of {subjects} subjects"


class _Expected:
    """What is expected of each subject, from all differences.

    Args:
        difference: (P,) of subject-days.
        subject: (P,) whose they are.
        prior: difference that was expected before; 0 if nothing was.
        prior_error: standard error of it.
    """

    def __init__(
        self, difference: "pd.Series[float]", subject: "pd.Series[str]", prior: float, prior_error: float
    ) -> None:
        self.difference, self.subject = difference, subject
        grouped = difference.groupby(subject)
        self.days, self.sums = grouped.size(), grouped.sum()
        freedom = len(difference) - len(self.days)
        within = difference - subject.map(self.sums / self.days)
        total = float(((difference - difference.mean()) ** 2).sum()) / max(len(difference) - 1, 1)
        self.noise = float((within**2).sum()) / freedom if freedom > 0 else total  # variance of one day
        means = self.sums / self.days
        spread = float(means.var(ddof=1)) if len(means) > 1 else 0.0
        self.apart = max(0.0, spread - self.noise * float((1 / self.days).mean()))  # variance between subjects
        self.prior, self.prior_days = prior, total / prior_error**2 if prior else 0.0

    def of(self, name: str) -> float:
        """Return the expected difference of a subject, who may have no day."""
        days = int(self.days.get(name, 0))
        return self._drawn(days, float(self.sums.get(name, 0.0)), self._of_all(float(self.difference.sum())))

    def without_each(self) -> "pd.Series[float]":
        """Return what would be expected of a day's subject without this day, (P,)."""
        total = float(self.difference.sum())
        found = [
            self._drawn(int(self.days[name]) - 1, float(self.sums[name] - value), self._of_all(total - value, 1))
            for name, value in zip(self.subject, self.difference, strict=True)
        ]
        return pd.Series(found, self.difference.index)

    def with_prior(self, mean: float, error: float) -> tuple[float, float]:
        """Return a mean of all days and its standard error with the days of the prior added."""
        count = len(self.difference)
        every = count + self.prior_days
        return (count * mean + self.prior_days * self.prior) / every, error * (count / every) ** 0.5

    def _of_all(self, total: float, left_out: int = 0) -> float:
        every = len(self.difference) - left_out + self.prior_days
        return (total + self.prior_days * self.prior) / max(every, 1)

    def _drawn(self, days: int, total: float, of_all: float) -> float:
        if days == 0 or self.apart == 0:
            return of_all
        trust = self.apart / (self.apart + self.noise / days)
        return of_all + trust * (total / days - of_all)


FEWEST_CLUSTERS = 5
