"""The probability of each shown item at each position, computed from logged propensities.

The log has the propensity of an item given the items at the positions before it. The estimators
need the probability that the item is at position i whatever is shown around it. Both exploration
types of models/recommend/exploring/exploration.py are told apart by the log itself: epsilon-greedy
gives all items of the list the same propensity.

- Epsilon-greedy: an item of the list is at its own position or not shown. A random item is at each
  position with probability share / (allowed items outside the list).
- Softmax (Plackett-Luce): an item with the share u of the total weight arrives after a time that is
  exponential with rate u, and the list is the order of arrival. Given the times of the other items,
  an item is at position i with probability exp(-u t[i-1]) - exp(-u t[i]), where t are their sorted
  times. Given the order, the pauses between arrivals are exponential with the weight that is left
  as rate, so the times are drawn from the log alone. Such weights are unbiased for every set of
  other items (Cohen & Kaplan 2007, "rank conditioning" of bottom-k samples).

Shapes: R requests, K positions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

DRAWS = 8
"""Number of draws of the arrival times. More draws reduce noise; one is already unbiased."""
NONE_LEFT = 1e-9
"""Share of the weight below which nothing is left to draw from."""


@dataclass(frozen=True)
class LoggedLists:
    """Explored lists with their outcomes; all arrays are (R, K) except `user`."""

    user: np.ndarray
    """(R,) number of the user, the unit of all standard errors."""
    item_idx: np.ndarray
    """0: unknown item."""
    reward: np.ndarray
    """Outcome of each shown item."""
    propensity: np.ndarray
    """Probability of each item at its position, given the items before it."""
    is_random: np.ndarray
    """True for items that epsilon-greedy drew at random."""

    def __len__(self) -> int:
        return len(self.item_idx)

    def take(self, rows: np.ndarray) -> "LoggedLists":
        return LoggedLists(**{name: values[rows] for name, values in vars(self).items()})

    @property
    def is_epsilon(self) -> np.ndarray:
        """(R,) True for epsilon-greedy, False for softmax."""
        highest = np.where(self.is_random, -np.inf, self.propensity).max(axis=1)
        lowest = np.where(self.is_random, np.inf, self.propensity).min(axis=1)
        return self.is_random.any(axis=1) | (highest - lowest < 1e-12)

    @property
    def is_usable(self) -> np.ndarray:
        """(R,) whether every item had a random position, so that all weights are known."""
        return self.is_epsilon & (self.propensity < 1).any(axis=1) | (
            ~self.is_epsilon & (self._left()[:, :-1] > NONE_LEFT).all(axis=1)
        )

    def position_chances(self, *, seed: int) -> Iterator[np.ndarray]:
        """Yield DRAWS arrays (R, K, K): the probability of shown item j at position i is [:, j, i].

        All lists must be usable. The mean over the draws of a function of the array is unbiased if
        the function is for one draw.
        """
        rng = np.random.default_rng(seed)
        epsilon = self.is_epsilon
        fixed = self._epsilon_chances(np.flatnonzero(epsilon))
        rest = np.flatnonzero(~epsilon)
        left = self._left()[rest]
        weight = self.propensity[rest] * left[:, :-1]
        for _ in range(DRAWS):
            chances = np.empty((*self.item_idx.shape, self.item_idx.shape[1]))
            chances[epsilon] = fixed
            chances[rest] = _softmax_chances(weight, left, rng=rng)
            yield chances

    def randomised(self) -> np.ndarray:
        """Return (R, K) weights whose weighted mean outcome at a position has the same items at
        all positions, so that it differs between positions by attention alone.

        Epsilon-greedy: 1 for random items. Softmax: u exp(-u t) / propensity, over the probability
        that the item isn't placed before, given the times of the others. The factor exp(-u t), with
        t the typical time of the last position, leaves out items that are almost always near the
        top: their rare places further down would have huge weights.
        """
        left = self._left()
        weight = self.propensity * left[:, :-1]
        above = np.empty_like(weight)
        for place in range(weight.shape[1]):
            own = weight[:, place]
            before = left[:, :place]
            with np.errstate(divide="ignore", invalid="ignore"):
                above[:, place] = (before / (before - own[:, None])).prod(axis=1)
        with np.errstate(divide="ignore"):
            last = np.median((1 / left[:, :-1]).sum(axis=1)) if len(left) else 0.0
        softmax = left[:, :-1] * above * np.exp(-weight * last)
        return np.where(self.is_epsilon[:, None], self.is_random.astype(float), softmax)

    def _left(self) -> np.ndarray:
        """Return (R, K + 1) share of the softmax weight that is left before each position."""
        return np.concatenate(
            [np.ones((len(self), 1)), np.cumprod(1 - self.propensity, axis=1)], axis=1
        )

    def _epsilon_chances(self, rows: np.ndarray) -> np.ndarray:
        propensity, is_random = self.propensity[rows], self.is_random[rows]
        share = (1 - np.where(is_random, 1.0, propensity)).max(axis=1, initial=0.0)
        known = share > 0
        share[~known] = np.median(share[known]) if known.any() else 1.0  # all items are random
        before = np.cumsum(is_random, axis=1) - is_random
        free = share[:, None] / np.maximum(propensity, 1e-300) + before
        chances = np.zeros((len(rows), *propensity.shape[1:], propensity.shape[1]))
        places = np.arange(propensity.shape[1])
        chances[:, places, places] = propensity
        anywhere = np.broadcast_to((share[:, None] / free)[:, :, None], chances.shape)
        chances[is_random] = anywhere[is_random]
        return chances


def _softmax_chances(
    weight: np.ndarray, left: np.ndarray, *, rng: np.random.Generator
) -> np.ndarray:
    """Return (R, K, K) chances of each shown item, for one draw of the arrival times.

    Args:
        weight: (R, K) share of each shown item in the total weight.
        left: (R, K + 1) share that is left before each position and after the last one.
    """
    positions = weight.shape[1]
    with np.errstate(divide="ignore"):
        pauses = rng.exponential(size=left.shape) / np.where(left > NONE_LEFT, left, 0.0)
    times = np.cumsum(pauses, axis=1)
    place = np.arange(positions)
    # Times of the other items: without the item's own arrival, later ones move up by one place.
    end = times[:, np.where(place[None, :] < place[:, None], place[None, :], place[None, :] + 1)]
    start = np.concatenate([np.zeros((*end.shape[:2], 1)), end[:, :, :-1]], axis=2)
    return np.exp(-weight[:, :, None] * start) - np.exp(-weight[:, :, None] * end)
