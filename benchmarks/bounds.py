"""Exact bounds of what a simulation counted, 95% confidence each, so that two of them are a 90% interval."""

from bentos.witness import upper_95


def lower_95(hits: int, tries: int) -> float:
    """Return the lower bound of a share; `upper_95` of what was not hit."""
    return 1 - upper_95(tries - hits, tries)


def interval(hits: int, tries: int) -> str:
    """Write a share with its interval."""
    return f"{hits / tries:.1%} ({lower_95(hits, tries):.1%}–{upper_95(hits, tries):.1%})"


def poisson_interval(count: int) -> tuple[float, float]:
    """Return the interval of a Poisson mean (Garwood 1936)."""
    from scipy.stats import chi2

    return (float(chi2.ppf(0.05, 2 * count) / 2) if count else 0.0), float(chi2.ppf(0.95, 2 * count + 2) / 2)
