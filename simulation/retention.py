"""The chance that users come back after a page, exact although trust is cut at 0 and 1.

Trust after a page is a constant plus a sum over places, each 0 or, after a click, a normal number:
its characteristic function is a product. A function that is flat outside 0..1 is a cosine series
with known coefficients, so that its mean is a sum over frequencies (the COS method: Fang and
Oosterlee 2008). Without the cut two moments would do; at a trust of .9 they are off by .001 in .4.

Shapes: S pages, K places, F frequencies.
"""

import numpy as np

from simulation.behaviour import trust_after, visit_chance
from simulation.config import WorldConfig
from simulation.parameters import Behaviour

CELLS = 1_000_000
"""Pages x places x frequencies held at once: bounds memory."""
PER_UNIT = 256
"""Frequencies for each unit of trust: the error of the chance to come back stays below 1e-6, below
1e-4 in a world whose satisfaction has no noise."""


def return_chance(
    config: WorldConfig,
    *,
    activity: np.ndarray,
    trust: np.ndarray,
    clicked: np.ndarray,
    satisfaction: np.ndarray,
) -> np.ndarray:
    """(S,) mean chance of a visit on the next day, a weekday, over what a page may bring.

    Args:
        activity, trust: (S,) before the page.
        clicked: (S, K) chance of a click at each place, independent of the others.
        satisfaction: (S, K) its mean after that click; its noise is normal.
    """
    about, churn = config.behaviour, config.population.churn
    unmoved = trust_after(about, trust.astype(np.float64), np.zeros(len(trust)))
    out = np.empty(len(trust))
    reach = _reach(about, satisfaction)
    step = max(1, CELLS // int(satisfaction.shape[1] * PER_UNIT * (1 + 2 * reach)))
    for start in range(0, len(out), step):
        rows = slice(start, start + step)
        out[rows] = _mean(about, churn, unmoved[rows], clicked[rows], satisfaction[rows], reach)
    return activity * out


def _reach(about: Behaviour, satisfaction: np.ndarray) -> float:
    """How far beyond 0..1 the series must hold. Mirrored at its ends, a flat function stays itself
    for as long again.
    """
    noise = 6 * about.satisfaction_noise * np.sqrt(satisfaction.shape[1])
    most = np.abs(satisfaction).sum(1).max(initial=0) + noise
    return max(0.5, about.trust_rate * about.trust_gain * float(most) / 2)


def _mean(
    about: Behaviour,
    churn: float,
    unmoved: np.ndarray,
    clicked: np.ndarray,
    satisfaction: np.ndarray,
    reach: float,
) -> np.ndarray:
    """(S,) mean of stay x visit of an activity of 1."""
    width = 1 + 2 * reach
    u = np.pi / width * np.arange(1, int(PER_UNIT * width) + 1)  # (F,)
    weight, constant = _series(about, churn, u, reach)
    scale = about.trust_rate * about.trust_gain
    blur = np.exp(-0.5 * (u * scale * about.satisfaction_noise) ** 2)
    turn = np.exp(1j * scale * satisfaction[:, :, None] * u)  # (S, K, F)
    moved = (1 - clicked[:, :, None] * (1 - turn * blur)).prod(1)
    # Nobody clicks on a good part of pages: that point is taken out of the series and added as is.
    nothing = (1 - clicked).prod(1)
    moved = (moved - nothing[:, None]) * np.exp(1j * u * (unmoved[:, None] + reach))
    rest = (moved.real @ weight) + constant * (1 - nothing)
    return nothing * _comes(about, churn, np.clip(unmoved, 0, 1)) + rest


def _series(
    about: Behaviour, churn: float, u: np.ndarray, reach: float
) -> tuple[np.ndarray, float]:
    """Cosine coefficients on -reach .. 1 + reach of what trust makes of a user; by parts, since its
    slope is a line within 0..1 and 0 outside.
    """
    floor = about.visit_floor
    first = (1 - floor) * (1 - churn) + churn * floor  # slope at 0
    second = 2 * churn * (1 - floor)  # what it rises by until 1
    at0, at1 = u * reach, u * (1 + reach)
    sines = (first * np.cos(at0) - (first + second) * np.cos(at1)) / u
    sines += second * (np.sin(at1) - np.sin(at0)) / u**2
    low, high = _comes(about, churn, np.array([0.0, 1.0]))
    inside = low + first / 2 + second / 6
    width = 1 + 2 * reach
    return -2 / width * sines / u, float(reach * low + inside + reach * high) / width


def _comes(about: Behaviour, churn: float, trust: np.ndarray) -> np.ndarray:
    """Chance to stay times chance to visit, of an activity of 1."""
    return (1 - churn * (1 - trust)) * visit_chance(about, np.ones(len(trust)), trust)
