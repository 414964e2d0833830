"""The oracle: what a slate would bring, for any user at any moment, and the best slate there is.

Exact, not simulated: a place is looked at and an item clicked independently of the others, so sums
over places are linear in chances; for the chance to come back see `retention`.

Shapes: S pages, K places, N items.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from simulation.behaviour import (
    NOBODY,
    Chances,
    Moment,
    chances,
    look,
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
"""Pages x items judged at once: bounds memory."""


@dataclass(frozen=True)
class Expected:
    """Means of what S slates bring, each (S,)."""

    clicks: np.ndarray
    conversion: np.ndarray  # purchases
    watch_seconds: np.ndarray
    satisfaction: np.ndarray  # signed, summed over clicks
    revenue: np.ndarray  # paid and kept
    retention: np.ndarray  # chance of a visit on the next day, a weekday


class Oracle:
    """Knows a world. Not for models: they see what `tables` publishes."""

    def __init__(self, world: World):
        self.world = world

    def expect(self, moment: Moment, slate: np.ndarray) -> Expected:
        """What (S, K) item rows bring, NOBODY for an empty place."""
        about, items = self.world.config.behaviour, self.world.items
        c = chances(about, items, moment, slate)
        p = look(about, slate.shape[1]) * c.attraction
        bought = about.view * c.cart * c.purchase
        watched = about.view * items.seconds[slate] * c.watch_share
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

    def satisfaction(self, moment: Moment, slate: np.ndarray) -> np.ndarray:
        """(S, K) item rows -> (S,): as in `expect`, without the cost of the rest."""
        about = self.world.config.behaviour
        c = chances(about, self.world.items, moment, slate)
        return (look(about, slate.shape[1]) * c.attraction * c.satisfaction).sum(1)

    def worth(self, moment: Moment, item: np.ndarray, objective: Objective) -> np.ndarray:
        """(S, M) item rows -> (S, M): what each adds per look at its place. Retention grows with
        satisfaction alone, so its order is taken to be satisfaction's.
        """
        c = chances(self.world.config.behaviour, self.world.items, moment, item)
        return c.attraction * self._after_click(c, item, objective)

    def best_slates(
        self,
        moment: Moment,
        *,
        day: int,
        objective: Objective,
        k: int,
        allowed: np.ndarray | None = None,
    ) -> np.ndarray:
        """(S, k) item rows, the best slate of each page: the items of the largest worth, the better
        the earlier (rearrangement inequality: looks fall from place to place). An item that would
        do harm leaves its place empty.

        Args:
            allowed: (S, N) bool, N at least the items of that day; None allows all.
        """
        n = self.world.items_on(day)
        item = np.arange(n)
        out = np.full((len(moment.user), k), NOBODY)
        step = max(1, CELLS // n)
        for start in range(0, len(out), step):
            rows = np.arange(start, min(start + step, len(out)))
            here = np.broadcast_to(item, (len(rows), n))
            worth = self.worth(moment.take(rows), here, objective)
            if allowed is not None:
                worth = np.where(allowed[rows, :n], worth, -np.inf)
            depth = min(k, n)
            part = np.argpartition(-worth, depth - 1, axis=1)[:, :depth]
            value = np.take_along_axis(worth, part, axis=1)
            order = np.argsort(-value, axis=1, kind="stable")
            best = np.take_along_axis(part, order, axis=1)
            useful = np.take_along_axis(value, order, axis=1) > 0
            out[rows, :depth] = np.where(useful, best, NOBODY)
        return out

    def _after_click(self, c: Chances, item: np.ndarray, objective: Objective) -> np.ndarray:
        about, items = self.world.config.behaviour, self.world.items
        if objective == "clicks":
            return np.ones(item.shape)
        if objective in ("satisfaction", "retention"):
            return c.satisfaction
        if objective == "watch_seconds":
            return about.view * items.seconds[item] * c.watch_share
        bought = about.view * c.cart * c.purchase
        if objective == "conversion":
            return bought
        return bought * (1 - c.returned) * items.price[item]


class OraclePolicy:
    """Fills pages with the best slate: the arm that no recommender can beat on its objective, page
    by page.

    Args:
        allowed: (U, N) bool, what each user may be shown; None is everything.
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
        self, page: Page, *, moment: Moment, k: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        allowed = None if self.allowed is None else self.allowed[page.user]
        item = self.oracle.best_slates(
            moment, day=self.day, objective=self.objective, k=k, allowed=allowed
        )
        return item, np.ones(item.shape)
