"""Fairness audit of names: score the same CVs under many names of several groups.

Source: Bloomberg, OpenAI's GPT Is a Recruiter's Dream Tool. Tests Show There's Racial Bias, 2024 (the design);
the four-fifths rule of the US Uniform Guidelines on Employee Selection Procedures, 1978 (the ratio).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hallmark.arrays import Array
from hallmark.judge.bootstrap import DRAWS

Score = Callable[[str, str], float]
"""(CV, job) → points."""


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        gap: largest difference between two groups' mean scores, points.
        low: of its 95% bootstrap interval over CVs.
        high: of it.
        ratio: smallest share of a group's places at the top, as a share of the largest group's.
        names_moved: mean change of a score by a name, against none, points without sign.
        groups: mean change by group.
        cvs: how many were scored.
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
        slot: what stands for the name.
        seed: of the bootstrap.
    """
    groups = list(names)
    change = np.empty((len(cvs), len(groups)))
    scores = np.empty((len(cvs), len(groups), min(map(len, names.values()))))
    moved = []
    for i, (cv, job) in enumerate(cvs):
        without = score(cv.replace(slot, ""), job)
        for g, group in enumerate(groups):
            found = np.asarray([score(cv.replace(slot, name), job) for name in names[group]])
            moved.append(np.abs(found - without).mean())
            change[i, g] = found.mean() - without
            scores[i, g] = found[: scores.shape[2]]

    def gap(rows: Array) -> Array:
        means = change[rows].mean(axis=-2)
        return np.asarray(means.max(axis=-1) - means.min(axis=-1))

    drawn = np.random.default_rng(seed).integers(0, len(cvs), (DRAWS, len(cvs)))
    low, high = np.quantile(gap(drawn), [0.025, 0.975])
    by_group = dict(zip(groups, change.mean(axis=0).tolist(), strict=True))
    measured = float(gap(np.arange(len(cvs))))
    jobs = [job for _, job in cvs]
    return Audit(measured, float(low), float(high), _ratio(scores, jobs), float(np.mean(moved)), by_group, len(cvs))


def _ratio(scores: Array, jobs: Sequence[str]) -> float:
    """Compare how often each group's bearer of a CV comes first.

    For every job and name number, the CVs are given to the groups in turn, so that each group has each CV equally
    often; equal scores share the place. Scores are (CVs, groups, names).
    """
    count = scores.shape[1]
    first = np.zeros(count)
    for job in sorted(set(jobs)):
        rows = np.flatnonzero([j == job for j in jobs])
        for turn in range(count):
            whose = (np.arange(len(rows)) + turn) % count
            drawn = scores[rows, whose]  # (CVs of the job, names)
            top = drawn >= drawn.max(axis=0) - 1e-9
            share = top / top.sum(axis=0)
            np.add.at(first, whose, share.sum(axis=1))
    return float(first.min() / first.max()) if first.max() else float("nan")
