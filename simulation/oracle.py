"""The oracle: the expected result of a slate for a user at a moment, and the best slate.

A slate is the list of items on one page. The expectations are exact, without sampling: the expected
sum over positions is the sum of the positions' expectations. `retention` computes the probability
of a return visit, for which it uses that positions are independent. Item rows are indices into the
world's arrays of items.

Shapes: S pages, K positions, M candidate items, N items.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from simulation.behaviour import (
    NO_ITEM,
    ActionProbabilities,
    LatentState,
    chances,
    examination,
)
from simulation.policy import Page
from simulation.retention import return_chance
from simulation.world import World

Objective = Literal["clicks", "conversion", "watch_seconds", "satisfaction", "revenue", "retention"]
OBJECTIVES: tuple[Objective, ...] = (
    "clicks",
    "conversion",
    "watch_seconds",
    "satisfaction",
    "revenue",
    "retention",
)
CELLS = 2_000_000
"""Maximum number of (page, item) pairs evaluated at once, to bound memory."""


@dataclass(frozen=True)
class Expected:
    """Expected results of S slates; every array is (S,)."""

    clicks: np.ndarray
    conversion: np.ndarray  # number of purchases
    watch_seconds: np.ndarray
    satisfaction: np.ndarray  # signed, summed over clicks
    revenue: np.ndarray  # price of the items bought and not returned
    retention: np.ndarray  # probability of a visit on the next day, if it is a weekday


class Oracle:
    """Expected results of slates, computed from the latent state of a world.

    Models must not use it: they may only read what `tables` publishes.
    """

    def __init__(self, world: World):
        self.world = world

    def expect(self, moment: LatentState, slate: np.ndarray) -> Expected:
        """Return the expected results of (S, K) item rows; NO_ITEM marks an empty position."""
        params, items = self.world.config.behaviour, self.world.items
        c = chances(params, items, moment, slate)
        p = examination(params, slate.shape[1]) * c.attraction
        bought = params.view * c.cart * c.purchase
        watched = params.view * items.seconds[slate] * c.watch_share
        return Expected(
            clicks=p.sum(1),
            conversion=(p * bought).sum(1),
            watch_seconds=(p * watched).sum(1),
            satisfaction=(p * c.satisfaction).sum(1),
            revenue=(p * bought * (1 - c.returned) * items.price[slate]).sum(1),
            retention=return_chance(
                self.world.config,
                activity=moment.activity,
                trust=moment.trust,
                clicked=p,
                satisfaction=c.satisfaction,
            ),
        )

    def satisfaction(self, moment: LatentState, slate: np.ndarray) -> np.ndarray:
        """Return (S,) expected satisfaction of (S, K) item rows; cheaper than `expect`."""
        params = self.world.config.behaviour
        c = chances(params, self.world.items, moment, slate)
        return (examination(params, slate.shape[1]) * c.attraction * c.satisfaction).sum(1)

    def item_values(
        self, moment: LatentState, item: np.ndarray, objective: Objective
    ) -> np.ndarray:
        """Return the expected contribution of each item to the objective if it is examined.

        (S, M) item rows -> (S, M). For "retention" this is the expected satisfaction. Retention
        depends on the slate only through satisfaction, so the oracle ranks items for both alike.
        """
        c = chances(self.world.config.behaviour, self.world.items, moment, item)
        return c.attraction * self._after_click(c, item, objective)

    def best_slates(
        self,
        moment: LatentState,
        *,
        day: int,
        objective: Objective,
        k: int,
        allowed: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return, for each page, the slate that maximises the objective: (S, k) item rows.

        The slate has the k items with the largest `item_values`, in descending order. The
        probability of examination falls with the position, so this order is optimal (rearrangement
        inequality). Items with a value of 0 or less are replaced by NO_ITEM.

        Args:
            day: day of the pages; items that arrive later are not used.
            allowed: (S, N) bool, True for items that may be shown; N is at least the number of
                items on that day. None allows all items.
        """
        n = self.world.items_on(day)
        item = np.arange(n)
        out = np.full((len(moment.user), k), NO_ITEM)
        step = max(1, CELLS // n)
        for start in range(0, len(out), step):
            rows = np.arange(start, min(start + step, len(out)))
            here = np.broadcast_to(item, (len(rows), n))
            values = self.item_values(moment.take(rows), here, objective)
            if allowed is not None:
                values = np.where(allowed[rows, :n], values, -np.inf)
            depth = min(k, n)
            part = np.argpartition(-values, depth - 1, axis=1)[:, :depth]
            value = np.take_along_axis(values, part, axis=1)
            order = np.argsort(-value, axis=1, kind="stable")
            best = np.take_along_axis(part, order, axis=1)
            useful = np.take_along_axis(value, order, axis=1) > 0
            out[rows, :depth] = np.where(useful, best, NO_ITEM)
        return out

    def _after_click(
        self, c: ActionProbabilities, item: np.ndarray, objective: Objective
    ) -> np.ndarray:
        params, items = self.world.config.behaviour, self.world.items
        if objective == "clicks":
            return np.ones(item.shape)
        if objective in ("satisfaction", "retention"):
            return c.satisfaction
        if objective == "watch_seconds":
            return params.view * items.seconds[item] * c.watch_share
        bought = params.view * c.cart * c.purchase
        if objective == "conversion":
            return bought
        return bought * (1 - c.returned) * items.price[item]


class OraclePolicy:
    """Policy that fills each page with the oracle's best slate.

    No recommender has a higher expected objective on a single page. The policy doesn't plan ahead
    for later pages.

    Args:
        allowed: (U, N) bool: items that may be shown to each user; None allows all.
    """

    def __init__(
        self,
        world: World,
        day: int,
        objective: Objective = "satisfaction",
        *,
        allowed: np.ndarray | None = None,
    ):
        self.oracle = Oracle(world)
        self.day = day
        self.allowed = allowed
        self.objective: Objective = objective

    def slates(
        self, page: Page, *, moment: LatentState, k: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        allowed = None if self.allowed is None else self.allowed[page.user]
        item = self.oracle.best_slates(
            moment, day=self.day, objective=self.objective, k=k, allowed=allowed
        )
        return item, np.ones(item.shape)
