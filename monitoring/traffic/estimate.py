"""Estimates of ratios with standard errors over users, differences of arms, and CUPED.

A ratio figure is the sum of a numerator over the sum of a denominator. Requests of a user are
correlated, so the unit of variance is the user. The variance is that of the delta method: Var(x -
R y) / (n mean(y)^2) with the sums x and y of each user (Deng, Knoblich & Lu 2018).

Shapes: U users, B rows.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A figure with its standard error; NaN without data."""

    value: float
    error: float = float("nan")
    users: int = 0
    """Number of users in the denominator."""
    total: float = 0.0
    """Sum of the denominator, e.g. the number of requests."""

    @property
    def low(self) -> float:
        """Lower end of the 95% interval for one look at the data."""
        return self.value - 1.96 * self.error

    @property
    def high(self) -> float:
        return self.value + 1.96 * self.error


NOTHING = Estimate(float("nan"))


@dataclass(frozen=True)
class UserSums:
    """Numerator and denominator of each user with a positive denominator: (U,) each."""

    user: np.ndarray  # (U,) sorted user codes
    top: np.ndarray
    bottom: np.ndarray

    @classmethod
    def of(cls, user: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> "UserSums":
        """Sum (B,) rows by user; rows with a NaN numerator or denominator are left out."""
        kept = ~(np.isnan(top) | np.isnan(bottom))
        user, top, bottom = user[kept], top[kept], bottom[kept]
        names, code = np.unique(user, return_inverse=True)
        tops = np.bincount(code, weights=top, minlength=len(names))
        bottoms = np.bincount(code, weights=bottom, minlength=len(names))
        used = bottoms > 0
        return cls(names[used], tops[used], bottoms[used])

    def estimate(self) -> Estimate:
        n, total = len(self.user), float(self.bottom.sum())
        if n == 0:
            return NOTHING
        ratio = float(self.top.sum() / total)
        if n == 1:
            return Estimate(ratio, float("nan"), n, total)
        return Estimate(ratio, math.sqrt(self.influence().var(ddof=1) / n), n, total)

    def influence(self) -> np.ndarray:
        """Return (U,) linearised values, whose mean is the ratio.

        Their variance over n is the variance of the ratio.
        """
        ratio = self.top.sum() / self.bottom.sum()
        return ratio + (self.top - ratio * self.bottom) / self.bottom.mean()


@dataclass(frozen=True)
class Difference:
    """The difference of a figure between two arms: treatment minus control."""

    value: float
    error: float
    treatment: Estimate
    control: Estimate
    reduced: float = 0.0
    """Share of the variance that CUPED removed."""

    @property
    def relative(self) -> float:
        base = self.control.value
        return self.value / base if base else float("nan")


def difference(
    treatment: UserSums, control: UserSums, *, before: dict[int, float] | None = None
) -> Difference:
    """Compare two independent groups of users.

    Args:
        before: user code -> the user's value of the same figure before the experiment. With it, the
            linearised values are adjusted by CUPED (Deng et al. 2013); a user without a value gets
            the mean of the others, which leaves the user unadjusted.
    """
    a, b = treatment.estimate(), control.estimate()
    if min(a.users, b.users) < 2:
        return Difference(a.value - b.value, float("nan"), a, b)
    plain = a.error**2 + b.error**2
    if not before:
        return Difference(a.value - b.value, math.sqrt(plain), a, b)
    xa, xb = (np.array([before.get(int(u), np.nan) for u in s.user]) for s in (treatment, control))
    known = np.concatenate([xa, xb])
    if np.isfinite(known).sum() < 2 or np.nanstd(known) == 0:
        return Difference(a.value - b.value, math.sqrt(plain), a, b)
    centre = np.nanmean(known)
    xa, xb = (np.where(np.isnan(x), centre, x) for x in (xa, xb))
    ya, yb = treatment.influence(), control.influence()
    pooled_x = np.concatenate([xa - xa.mean(), xb - xb.mean()])
    pooled_y = np.concatenate([ya - ya.mean(), yb - yb.mean()])
    theta = float(pooled_x @ pooled_y / max(pooled_x @ pooled_x, 1e-12))
    za, zb = ya - theta * (xa - centre), yb - theta * (xb - centre)
    variance = za.var(ddof=1) / len(za) + zb.var(ddof=1) / len(zb)
    reduced = 1 - variance / plain if plain else 0.0
    return Difference(float(za.mean() - zb.mean()), math.sqrt(variance), a, b, reduced)


def grouped_jackknife(parts: np.ndarray, whole: float) -> float:
    """Return the standard error of a figure from its values with one group of users left out each.

    Args:
        parts: (G,) values; G groups of equal size.
        whole: value over all users.
    """
    parts = parts[np.isfinite(parts)]
    g = len(parts)
    if g < 2 or not math.isfinite(whole):
        return float("nan")
    return math.sqrt((g - 1) / g * float(((parts - parts.mean()) ** 2).sum()))
