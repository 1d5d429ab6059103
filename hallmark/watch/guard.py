"""Guard: is a version that has just begun to serve so broken that it must be rolled back at once?

Only what needs no outcome is looked at: rows that could not be computed or that the network failed on, rows whose
subject's own model could not be used, and answers whose weights were not those of their subject.

Source of the bounds of shares: Clopper and Pearson 1934.
"""

from dataclasses import dataclass

from hallmark.build import Count, InnerShare, configuration


@configuration
class GuardRule:
    """When a version is rolled back at once.

    Attributes:
        fewest_rows: below which nothing is decided about shares.
        failed_share: share of rows that may fail, or that of the version before if it is higher.
        more_fallbacks: by how much the share of fallbacks may be above that of the version before.
        error_rate: how often each bound of a share is wrong, at one look.
    """

    fewest_rows: Count
    failed_share: InnerShare
    more_fallbacks: InnerShare
    error_rate: InnerShare


@dataclass(frozen=True)
class Seen:
    """What a version has answered since it began to serve.

    Attributes:
        rows: that were asked.
        failed: of them, rows that could not be computed or that a baseline answered because the network failed.
        fallbacks: of them, rows whose subject's own model could not be used.
        wrong: answers that the witness has found to be wrong.
    """

    rows: int = 0
    failed: int = 0
    fallbacks: int = 0
    wrong: int = 0

    def __add__(self, other: "Seen") -> "Seen":
        """Add counts."""
        wrong = self.wrong + other.wrong
        return Seen(self.rows + other.rows, self.failed + other.failed, self.fallbacks + other.fallbacks, wrong)


def judge(seen: Seen, before: Seen, rule: GuardRule) -> str:
    """Return why a version must be rolled back, one sentence; empty if it may go on.

    Args:
        seen: of the version that serves.
        before: of the version before; without rows, fallbacks are not judged.
        rule: what may be.
    """
    if seen.wrong:
        return f"the witness found {seen.wrong} of its answers to be wrong"
    if seen.rows < rule.fewest_rows:
        return ""
    may_fail = max(rule.failed_share, _at_most(before.failed, before.rows, rule.error_rate))
    if _at_least(seen.failed, seen.rows, rule.error_rate) > may_fail:
        return f"{seen.failed} of its {seen.rows} rows failed, which is surely more than {may_fail:.0%}"
    if before.rows:
        usual = _at_most(before.fallbacks, before.rows, rule.error_rate)
        if _at_least(seen.fallbacks, seen.rows, rule.error_rate) > usual + rule.more_fallbacks:
            return (
                f"the subject's own model could not be used for {seen.fallbacks} of its {seen.rows} rows, for "
                f"{before.fallbacks} of {before.rows} before"
            )
    return ""


def _at_most(count: int, rows: int, error_rate: float) -> float:
    """Return the upper bound of a share; 0 without rows."""
    return 1 - _at_least(rows - count, rows, error_rate) if rows else 0.0


def _at_least(count: int, rows: int, error_rate: float) -> float:
    """Return the lower bound of a share."""
    if count == 0:
        return 0.0
    from scipy.stats import beta

    return float(beta.ppf(error_rate, count, rows - count + 1))
