"""Audit the fairness of scores: score the same CVs under many names of several groups.

Source: Bloomberg, OpenAI's GPT Is a Recruiter's Dream Tool. Tests Show There's Racial Bias, 2024 (the design);
the four-fifths rule of the US Uniform Guidelines on Employee Selection Procedures, 1978 (the ratio).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hallmark.arrays import Array
from hallmark.judge.bootstrap import N_RESAMPLES

Score = Callable[[str, str], float]
"""(CV, job) → points."""


@dataclass(frozen=True)
class Audit:
    """Result of a fairness audit.

    Attributes:
        gap: largest difference between two groups' mean scores, points.
        low: lower end of its 95% bootstrap interval over CVs.
        high: upper end of that interval.
        ratio: impact ratio: smallest number of first places of a group, divided by the largest.
        names_moved: mean absolute change of a score when a name is added, points.
        groups: mean change of a score when a name of the group is added, points.
        cvs: number of scored CVs.
    """

    gap: float
    low: float
    high: float
    ratio: float
    names_moved: float
    groups: Mapping[str, float]
    cvs: int


def swap_names(
    score: Score, cvs: Sequence[tuple[str, str]], names: Mapping[str, Sequence[str]], slot: str, seed: int
) -> Audit:
    """Score every CV under every name.

    Args:
        score: scores one pair.
        cvs: (CV with a slot for the name, job).
        names: group → names.
        slot: placeholder of the name in a CV.
        seed: seed of the bootstrap.
    """
    groups = list(names)
    change = np.empty((len(cvs), len(groups)))
    scores = np.empty((len(cvs), len(groups), min(map(len, names.values()))))
    absolute_changes = []
    for i, (cv, job) in enumerate(cvs):
        score_without_name = score(cv.replace(slot, ""), job)
        for g, group in enumerate(groups):
            group_scores = np.asarray([score(cv.replace(slot, name), job) for name in names[group]])
            absolute_changes.append(np.abs(group_scores - score_without_name).mean())
            change[i, g] = group_scores.mean() - score_without_name
            scores[i, g] = group_scores[: scores.shape[2]]

    def gap(rows: Array) -> Array:
        means = change[rows].mean(axis=-2)
        return np.asarray(means.max(axis=-1) - means.min(axis=-1))

    resampled = np.random.default_rng(seed).integers(0, len(cvs), (N_RESAMPLES, len(cvs)))
    low, high = np.quantile(gap(resampled), [0.025, 0.975])
    by_group = dict(zip(groups, change.mean(axis=0).tolist(), strict=True))
    measured = float(gap(np.arange(len(cvs))))
    jobs = [job for _, job in cvs]
    return Audit(
        measured, float(low), float(high), _ratio(scores, jobs), float(np.mean(absolute_changes)), by_group, len(cvs)
    )


def _ratio(scores: Array, jobs: Sequence[str]) -> float:
    """Return the smallest number of first places of a group, divided by the largest; NaN without a first place.

    For every job and index of a name, the CVs are assigned to the groups in rotation, so that each group has each CV
    equally often; CVs with equal scores share the first place. Scores are (CVs, groups, names).
    """
    count = scores.shape[1]
    first_places = np.zeros(count)
    for job in sorted(set(jobs)):
        rows = np.flatnonzero([j == job for j in jobs])
        for rotation in range(count):
            assigned_groups = (np.arange(len(rows)) + rotation) % count
            assigned_scores = scores[rows, assigned_groups]  # (CVs of the job, names)
            top = assigned_scores >= assigned_scores.max(axis=0) - 1e-9
            share = top / top.sum(axis=0)
            np.add.at(first_places, assigned_groups, share.sum(axis=1))
    return float(first_places.min() / first_places.max()) if first_places.max() else float("nan")
