"""Off-policy estimates of the outcomes per list, by IPS, SNIPS and DR, with errors over users.

Assumption: the position-based model. An outcome of an item at position i has probability
attention[i] * a, where a depends on user, moment and item, but not on the other items shown. Then
an item that was shown at any position tells what it gets at another one (Li, Abbasi-Yadkori, Kveton
et al. 2018, "Offline evaluation of ranking policies with click models"). `attention` is estimated
from randomly placed items of the same log, and its error is part of all standard errors.

With D = sum of attention[i] * P(item at i), the weight of a shown item is 1 / D, and
- IPS adds attention[wanted position] * reward / D over the shown items that are on the wanted list,
- SNIPS divides by the sum of weights instead of the number of lists (Swaminathan & Joachims 2015),
- DR predicts every item's outcome by its rate among other users, and corrects the prediction by
  weighted residuals (Dudik, Langford & Li 2011).

Shapes: R requests, K positions, M shown items on the wanted lists, V variants of the attention for
its derivative, N items.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from monitoring.off_policy.chances import LoggedLists
from monitoring.traffic.estimate import Estimate

METHODS = ("ips", "snips", "dr")
STEP = 1e-3
"""Relative step of the numerical derivative by the attention."""
PRIOR = 20.0
"""Examined items that the mean rate counts as, in each item's predicted rate."""


@dataclass(frozen=True)
class Value:
    """Estimated outcomes per list of one policy."""

    estimates: dict[str, Estimate]
    """By method."""
    influence: dict[str, np.ndarray]
    """By method: (R,) influence of each request on the estimate, with mean 0."""
    support: Estimate
    """Share of the wanted lists' attention that goes to items that could have been shown."""
    effective: float
    """Effective number of lists: (sum of weights)^2 / sum of squared weights, over K."""
    matched: int
    """Number of shown items that are on the wanted lists."""


class OffPolicy:
    """Estimators over one log of explored lists."""

    def __init__(self, logged: LoggedLists, *, num_items: int, seed: int = 0):
        """
        Args:
            logged: lists whose `is_usable` is True everywhere.
            num_items: largest item_idx.
            seed: of the draws of arrival times.
        """
        self.logged = logged
        self.num_items = num_items
        self._placed = logged.reward * logged.randomised()
        self.attention = self._placed.mean(axis=0)
        self._weights = self._inverse(seed=seed)

    @cached_property
    def placed_outcomes(self) -> np.ndarray:
        """(K,) effective number of outcomes of randomly placed items at each position."""
        squared = (self._placed**2).sum(axis=0)
        return self._placed.sum(axis=0) ** 2 / np.maximum(squared, 1e-300)

    def judge(self, wanted: np.ndarray) -> Value:
        """Estimate a policy that shows the (R, K) item_idx `wanted`; 0 marks an empty position."""
        matches = self._matches(wanted)
        fold = self.logged.user % 2
        predicted = np.where(wanted > 0, self._rates[fold[:, None], wanted], 0.0)
        totals, base = self._totals(matches, predicted)
        estimates, influence = {}, {}
        centred = self._placed - self.attention
        for method in METHODS:
            value, *means = totals[method]
            up, down = np.array(means).reshape(-1, 2).T
            slope = (up - down) / (2 * STEP * self.attention)
            influence[method] = base[method] - value + centred @ slope
            estimates[method] = self._estimate(float(value), influence[method])
        weight = matches.inverse[0] * self.attention[matches.place]
        share = self._by_request(
            matches, weight * self.attention[matches.wanted] / self.attention.sum()
        )
        squared = (weight**2).sum()
        return Value(
            estimates,
            influence,
            self._estimate(float(share.mean()), share - share.mean()),
            effective=float(weight.sum() ** 2 / squared / wanted.shape[1]) if squared else 0.0,
            matched=len(weight),
        )

    def difference(self, a: Value, b: Value, *, method: str) -> Estimate:
        """Return the estimate of `a` minus that of `b`, on the same requests."""
        value = a.estimates[method].value - b.estimates[method].value
        return self._estimate(value, a.influence[method] - b.influence[method])

    @property
    def shown(self) -> Estimate:
        """Outcomes of the lists that were shown, exploration included."""
        return self.as_shown.estimates["dr"]

    @cached_property
    def as_shown(self) -> Value:
        """The value of the lists that were shown; all methods have the plain mean."""
        total = self.logged.reward.sum(axis=1)
        centred = total - total.mean()
        value, lists = self._estimate(float(total.mean()), centred), len(self.logged)
        return Value(
            dict.fromkeys(METHODS, value),
            dict.fromkeys(METHODS, centred),
            Estimate(1.0, 0.0, value.users, lists),
            float(lists),
            self.logged.item_idx.size,
        )

    def _matches(self, wanted: np.ndarray) -> "_Matches":
        """Find the shown items that are on the wanted lists."""
        shown = self.logged.item_idx
        equal = (wanted[:, :, None] == shown[:, None, :]) & (wanted[:, :, None] > 0)
        row, position, place = np.nonzero(equal)
        rates = self._rates[self.logged.user[row] % 2, shown[row, place]]
        return _Matches(
            row,
            position,
            place,
            self.logged.reward[row, place],
            rates,
            self._weights[:, row, place],
        )

    def _totals(
        self, found: "_Matches", predicted: np.ndarray
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return by method the (V,) estimates under each attention, and the (R,) values of the
        requests under the estimated one; those of SNIPS are linearised, so their mean is the
        estimate.

        Args:
            predicted: (R, K) predicted outcome of each wanted item if it is examined.
        """
        requests, positions = predicted.shape
        attention = self._variants
        there, scaled = attention[:, found.place], attention[:, found.wanted] * found.inverse
        residual = scaled * (found.reward - there * found.rate)
        by_position = np.zeros((2, len(attention), positions))
        for number, weighted in enumerate((found.inverse * found.reward, found.inverse * there)):
            for variant, values in enumerate(weighted):
                by_position[number, variant] = np.bincount(
                    found.wanted, weights=values, minlength=positions
                )
        outcome, weight = by_position / requests
        mean = np.divide(outcome, weight, out=np.zeros_like(outcome), where=weight > 0)
        totals = {
            "ips": (scaled * found.reward).sum(axis=1) / requests,
            "snips": (mean * attention).sum(axis=1),
            "dr": attention @ predicted.mean(axis=0) + residual.sum(axis=1) / requests,
        }
        # Linearised: attention * (outcome - weight * mean) / mean weight, plus the estimate.
        own = found.reward - there[0] * mean[0, found.wanted]
        linear = scaled[0] * own / np.maximum(weight[0, found.wanted], 1e-300)
        base = {
            "ips": self._by_request(found, scaled[0] * found.reward),
            "snips": self._by_request(found, linear) + totals["snips"][0],
            "dr": predicted @ attention[0] + self._by_request(found, residual[0]),
        }
        return totals, base

    def _by_request(self, found: "_Matches", values: np.ndarray) -> np.ndarray:
        return np.bincount(found.row, weights=values, minlength=len(self.logged))

    @cached_property
    def _variants(self) -> np.ndarray:
        """(V, K) the attention, then each position's changed up and down by STEP."""
        out = [self.attention]
        for position in range(len(self.attention)):
            for sign in (1, -1):
                changed = self.attention.copy()
                changed[position] *= 1 + sign * STEP
                out.append(changed)
        return np.array(out)

    def _inverse(self, *, seed: int) -> np.ndarray:
        """Return (V, R, K) the weight 1 / D of each shown item."""
        total, draws = np.zeros((len(self._variants), *self.logged.item_idx.shape)), 0
        for chances in self.logged.position_chances(seed=seed):
            total += 1 / np.maximum(np.moveaxis(chances @ self._variants.T, 2, 0), 1e-300)
            draws += 1
        return total / draws

    @cached_property
    def _rates(self) -> np.ndarray:
        """(2, N + 1) outcomes per examined item; row f is fitted on users of the other fold."""
        logged, fold = self.logged, self.logged.user % 2
        rates = np.zeros((2, self.num_items + 1))
        for number in (0, 1):
            rows = fold != number
            items = logged.item_idx[rows].ravel()
            size = self.num_items + 1
            tops = np.bincount(items, weights=logged.reward[rows].ravel(), minlength=size)
            seen = np.broadcast_to(self.attention, logged.item_idx[rows].shape).ravel()
            bottoms = np.bincount(items, weights=seen, minlength=size)
            scale = self.attention.max()
            mean = tops.sum() / max(bottoms.sum(), 1e-300)
            rates[number] = (tops + mean * PRIOR * scale) / (bottoms + PRIOR * scale)
        return rates

    def _estimate(self, value: float, influence: np.ndarray) -> Estimate:
        """Return an estimate with the standard error of a mean, with users as units."""
        by_user = np.bincount(self.logged.user, weights=influence)
        users = len(np.unique(self.logged.user))
        if users < 2:
            return Estimate(value, float("nan"), users, len(influence))
        spread = math.sqrt(float((by_user**2).sum()) * users / (users - 1)) / len(influence)
        return Estimate(value, spread, users, len(influence))


@dataclass(frozen=True)
class _Matches:
    """Shown items that are on the wanted lists: (M,) each, `inverse` (V, M)."""

    row: np.ndarray  # request
    wanted: np.ndarray  # position on the wanted list
    place: np.ndarray  # position at which it was shown
    reward: np.ndarray
    rate: np.ndarray  # predicted outcome if it is examined
    inverse: np.ndarray  # weight 1 / D under each attention
