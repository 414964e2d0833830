"""Tests that stay valid when a figure is judged again and again.

`always_valid` is the mixture sequential probability ratio test (Robbins 1970; Johari, Pekelis &
Walsh 2017): under the null hypothesis the probability that its p-value ever falls below alpha is at
most alpha, however often one looks. It needs only an estimate and its standard error.
"""

import math

from scipy.stats import norm


def one_look(estimate: float, error: float, *, limit: float, bad: str) -> float:
    """Return the one-sided p-value of "the figure is beyond the limit", for a single look.

    Args:
        limit: the null hypothesis is that the figure is not worse than this.
        bad: "low" if smaller values are worse, "high" if larger ones are.
    """
    if not (math.isfinite(estimate) and math.isfinite(error)):
        return 1.0
    worse = limit - estimate if bad == "low" else estimate - limit
    if error == 0:
        return 0.0 if worse > 0 else 1.0
    return float(norm.sf(worse / error))


def always_valid(estimate: float, error: float, *, limit: float, bad: str, spread: float) -> float:
    """Return the one-sided p-value of "the figure is beyond the limit", for any number of looks.

    It is half the reciprocal of the likelihood ratio with a normal mixture, so both directions
    share the error; values on the good side of the limit give 1.

    Args:
        spread: standard deviation of the mixture, in the figure's unit: the size of a difference
            that matters. It changes the power, not the validity.
    """
    if not (math.isfinite(estimate) and math.isfinite(error)) or spread <= 0:
        return 1.0
    worse = limit - estimate if bad == "low" else estimate - limit
    if worse <= 0:
        return 1.0
    if error == 0:
        return 0.0
    v, t = error**2, spread**2
    log_ratio = 0.5 * math.log(v / (v + t)) + t * worse**2 / (2 * v * (v + t))
    return min(1.0, 0.5 * math.exp(-log_ratio))


def interval(value: float, error: float, *, alpha: float, spread: float) -> tuple[float, float]:
    """Return the confidence sequence of an estimate: it holds at all looks with 1 - alpha."""
    if not (math.isfinite(value) and math.isfinite(error)):
        return float("nan"), float("nan")
    v, t = error**2, spread**2
    half = math.sqrt(2 * v * (v + t) / t * math.log(math.sqrt((v + t) / max(v, 1e-300)) / alpha))
    return value - half, value + half


def sample_ratio(counts: dict[str, int], shares: dict[str, float]) -> float:
    """Return the p-value that users were assigned to arms with these shares (chi-squared test)."""
    from scipy.stats import chisquare

    total = sum(counts.get(name, 0) for name in shares)
    if total == 0:
        return 1.0
    expected = [total * share / sum(shares.values()) for share in shares.values()]
    return float(chisquare([counts.get(name, 0) for name in shares], expected).pvalue)


def holm(p_values: dict[str, float], *, alpha: float) -> set[str]:
    """Return the hypotheses rejected by Holm's step-down method (family-wise error alpha)."""
    rejected: set[str] = set()
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        if p > alpha / (len(p_values) - rank):
            break
        rejected.add(name)
    return rejected
