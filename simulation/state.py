"""Latent state of users over time: taste, boredom, trust, churn, staples and pending returns.

Latent means that no published table has it. Staples are items that a user needs repeatedly. Taste
and boredom of a user are updated only at a visit, for all days since the last update.

Shapes: U users of the chunk, S visiting users, D latent dim, T topics, P staples, C clicks,
R pending returns.
"""

from dataclasses import dataclass, fields

import numpy as np

from shortlist.columns import MICROSECONDS_PER_DAY
from simulation.behaviour import NO_ITEM, LatentState, visit_chance
from simulation.world import World


@dataclass
class Returns:
    """Purchases that will be returned, with the time of the return."""

    due: np.ndarray  # (R,) int64 microseconds
    user: np.ndarray  # (R,) int64 user rows
    item: np.ndarray  # (R,) int64 item rows
    price: np.ndarray  # (R,) float64: price paid


@dataclass
class State:
    """State of the users `first` .. `first + U - 1` of a world; row r is user row `first + r`."""

    first: int
    taste: np.ndarray  # (U, D) float32: users like items with a large inner product
    boredom: np.ndarray  # (U, T) float32: boredom with each topic, 0 to 1
    trust: np.ndarray  # (U,) float32, 0 to 1
    left: np.ndarray  # (U,) bool: the user has left (churned)
    touched: np.ndarray  # (U,) int64: day of the last update of taste and boredom
    stocked: np.ndarray  # (U, P) float64: day on which each staple was last bought
    returns: Returns  # pending returns

    @classmethod
    def fresh(cls, world: World, first: int, end: int) -> "State":
        """Return the initial state of the user rows first .. end - 1."""
        n = end - first
        return cls(
            first=first,
            taste=world.users.taste[first:end].copy(),
            boredom=np.zeros((n, world.config.catalogue.topics), dtype=np.float32),
            trust=np.full(n, world.config.behaviour.trust, dtype=np.float32),
            left=np.zeros(n, dtype=bool),
            touched=world.users.joined[first:end].copy(),
            stocked=world.users.stocked[first:end].copy(),
            returns=Returns(
                np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
            ),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all fields as named arrays for a checkpoint; `from_arrays` is the inverse."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "returns"}
        arrays["first"] = np.array(self.first)
        return arrays | {f"returns_{name}": values for name, values in vars(self.returns).items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "State":
        """Rebuild a state from the result of `arrays`."""
        values = {f.name: arrays[f.name] for f in fields(cls) if f.name not in ("returns", "first")}
        returns = Returns(**{f.name: arrays[f"returns_{f.name}"] for f in fields(Returns)})
        return cls(first=int(arrays["first"]), returns=returns, **values)

    def copy(self) -> "State":
        return State.from_arrays({name: values.copy() for name, values in self.arrays().items()})

    def draw_visits(self, world: World, day: int, rng: np.random.Generator) -> np.ndarray:
        """Draw who leaves, comes back and visits on a day; return the rows of the visiting users.

        Updates `left`, and the taste and boredom of the visiting users.
        """
        params, population = world.config.behaviour, world.config.population
        here = max(0, min(world.users_on(day) - self.first, len(self.trust)))
        trust, left = self.trust[:here], self.left[:here]
        chance, visit = rng.random((2, here))
        leave = ~left & (chance < population.churn * (1 - trust))
        back = left & (chance < population.comeback * trust)
        left[leave] = True
        left[back] = False
        activity = world.users.activity[self.first : self.first + here]
        weekday = (world.config.start.weekday() + day) % 7
        visits = visit_chance(params, activity, trust) * world.visits_by_weekday[weekday]
        rows = np.flatnonzero(~left & (visit < visits))
        self._pass_days(world, rows, day, rng)
        return rows

    def _pass_days(
        self, world: World, rows: np.ndarray, day: int, rng: np.random.Generator
    ) -> None:
        config = world.config
        gap = (day - self.touched[rows]).astype(np.float32)[:, None]
        dim = self.taste.shape[1]
        step = rng.standard_normal((len(rows), dim), dtype=np.float32)
        drift = np.float32(config.population.taste_drift / np.sqrt(dim))
        taste = self.taste[rows] + drift * np.sqrt(gap) * step
        self.taste[rows] = taste / np.linalg.norm(taste, axis=1, keepdims=True)
        self.boredom[rows] *= np.float32(config.behaviour.boredom_decay) ** gap
        self.touched[rows] = day

    def moment(
        self,
        world: World,
        rows: np.ndarray,
        *,
        mood: np.ndarray,
        intent: np.ndarray,
        at: np.ndarray,
    ) -> LatentState:
        """Return the latent state of S users right before a page.

        Args:
            rows: (S,) rows of this state.
            mood: (S, D) mood vector of each session.
            intent: (S,) intent to buy of each session.
            at: (S,) time of the page in microseconds.
        """
        user = self.first + rows
        return LatentState(
            user=user,
            taste=self.taste[rows] + mood,
            boredom=self.boredom[rows],
            trust=self.trust[rows],
            intent=intent,
            price_sense=world.users.price_sense[user],
            activity=world.users.activity[user],
            due=np.where(self.due(world, rows, at), world.users.staples[user], NO_ITEM),
        )

    def due(self, world: World, rows: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Return whether each staple is needed: (S, P) bool.

        Args:
            rows: (S,) rows of this state.
            at: (S,) times in microseconds.
        """
        days = (at - world.midnight(0)) / MICROSECONDS_PER_DAY
        return days[:, None] - self.stocked[rows] >= world.users.staple_days[self.first + rows]

    def stock(self, world: World, rows: np.ndarray, item: np.ndarray, at: np.ndarray) -> None:
        """Record when staples were bought. Purchases of items that are no staples are ignored.

        Args:
            rows, item: (C,) rows of the buyers and item rows.
            at: (C,) times of the purchases in microseconds.
        """
        days = (at - world.midnight(0)) / MICROSECONDS_PER_DAY
        for column in range(self.stocked.shape[1]):
            bought = world.users.staples[self.first + rows, column] == item
            self.stocked[rows[bought], column] = days[bought]

    def consume(
        self, world: World, rows: np.ndarray, item: np.ndarray, row_of_click: np.ndarray
    ) -> None:
        """Update boredom and taste after C clicks.

        Args:
            rows: (S,) rows of this state, one per page.
            item: (C,) item rows.
            row_of_click: (C,) page of each click, an index into `rows`.
        """
        user = rows[row_of_click]
        topic = world.items.topic[item]
        rise = np.float32(world.config.behaviour.boredom_rise)
        np.add.at(self.boredom, (user, topic), rise)
        self.boredom[user, topic] = np.minimum(self.boredom[user, topic], 1)
        pull = np.float32(world.config.population.taste_pull)
        if pull:
            np.add.at(self.taste, user, pull * (world.items.vector[item] - self.taste[user]))

    def due_returns(self, until: int) -> Returns:
        """Return the pending returns due before `until` (microseconds), and remove them."""
        now = self.returns.due < until
        taken = Returns(**{name: values[now] for name, values in vars(self.returns).items()})
        self.returns = Returns(
            **{name: values[~now] for name, values in vars(self.returns).items()}
        )
        return taken

    def add_returns(self, more: Returns) -> None:
        self.returns = Returns(
            **{
                name: np.concatenate([values, getattr(more, name)])
                for name, values in vars(self.returns).items()
            }
        )
