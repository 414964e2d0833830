"""Records the home pages of a simulated shop whose lists a simple chain makes, in the closed loop.

The recording keeps what is needed to make the lists again with a fault and to draw what users then
do: the moments of the pages and the items that each user has seen. The chain's estimates of tastes
and items are noisy copies of the truth, so nothing is trained.

Shapes: S pages, K positions, U users, N items, D dim.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from shortlist.columns import MICROSECONDS_PER_DAY
from simulation.behaviour import NO_ITEM, LatentState
from simulation.config import WorldConfig, load_world_config
from simulation.day import ShownPages, simulate_day
from simulation.policy import Page
from simulation.state import State
from simulation.world import World

SOURCES = ("two_tower", "content", "recent_popularity")
EACH, K = 30, 10
"""Candidates of each source, and length of a list."""
USERS, ITEMS = 700, 500
WARM_DAYS, WEEKS = 7, 10
SEEN_DAYS = 28


@dataclass(frozen=True)
class Knowledge:
    """What the chain believes; faults change it."""

    taste: np.ndarray  # (U, D) estimated tastes
    vector: np.ndarray  # (N, D) item vectors of the two-tower's index
    topic_vector: np.ndarray  # (N, D) item vectors by content
    appeal: np.ndarray  # (N,) estimated appeal
    quality: np.ndarray  # (N,) estimated quality
    popularity: np.ndarray  # (N,)
    weights: tuple[float, float, float] = (2.2, 0.4, 0.7)
    """Of liking, appeal and quality in the ranker's score."""

    @classmethod
    def of(cls, world: World, *, seed: int) -> "Knowledge":
        rng = np.random.default_rng([seed, 7])
        items = world.items

        def noisy(values: np.ndarray, spread: float) -> np.ndarray:
            return values + spread * rng.standard_normal(values.shape)

        dim = world.topics.shape[1]
        return cls(
            noisy(world.users.taste, 0.5 / dim**0.5),
            noisy(items.vector, 0.5 / dim**0.5),
            world.topics[items.topic],
            noisy(items.appeal, 0.5),
            noisy(items.quality, 0.7),
            items.weight,
        )


@dataclass(frozen=True)
class Lists:
    """Home pages with their lists; arrays of pages are (S,), of positions (S, K)."""

    page: Page
    moment: LatentState
    seen: np.ndarray  # (S, N) bool: items that the user chose lately
    item: np.ndarray  # item rows, NO_ITEM at empty positions
    source: np.ndarray  # index into SOURCES
    score: np.ndarray
    features: np.ndarray  # (S, K, 5): liking, appeal, quality, log price, age in days
    row: np.ndarray  # (S,) number of the page in the recording, to draw the same pages again

    def __len__(self) -> int:
        return len(self.item)

    def take(self, rows: np.ndarray) -> "Lists":
        changed = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {
            name: value.take(rows) if isinstance(value, (Page, LatentState)) else value[rows]
            for name, value in changed.items()
        }
        return Lists(**moved)

    def placed(self, rows: np.ndarray, other: "Lists") -> "Lists":
        """Return the lists with those of `other` at the pages `rows`."""
        changed = {}
        for name in ("item", "source", "score", "features"):
            values = getattr(self, name).copy()
            values[rows] = getattr(other, name)
            changed[name] = values
        return replace(self, **changed)


def rank(
    world: World,
    known: Knowledge,
    page: Page,
    moment: LatentState,
    seen: np.ndarray,
    *,
    allowed: np.ndarray | None = None,
    without: tuple[str, ...] = (),
) -> Lists:
    """Make the lists of S pages.

    Args:
        allowed: (N,) or (S, N) bool; None: all items that have arrived.
        without: names of sources that return nothing.
    """
    day = (page.at - world.start) // MICROSECONDS_PER_DAY
    there = world.items.born[None] <= day[:, None]
    there = there & ~seen if allowed is None else there & ~seen & allowed
    taste = known.taste[page.user]
    liking = (taste @ known.vector.T).astype(np.float32)
    by_source = {
        "two_tower": liking,
        "content": (taste @ known.topic_vector.T).astype(np.float32),
        "recent_popularity": np.broadcast_to(known.popularity, liking.shape),
    }
    found = np.full(liking.shape, -1, dtype=np.int64)
    for number, name in reversed(list(enumerate(SOURCES))):
        if name in without:
            continue
        values = np.where(there, by_source[name], -np.inf)
        best = np.argpartition(-values, EACH, axis=1)[:, :EACH]
        np.put_along_axis(found, best, number, axis=1)
    found[~there] = -1
    like, appeal, quality = known.weights
    score = like * liking + appeal * known.appeal + quality * known.quality
    score = np.where(found >= 0, score, -np.inf)
    item = np.argpartition(-score, K, axis=1)[:, :K]
    of = np.take_along_axis(score, item, axis=1)
    order = np.argsort(-of, axis=1, kind="stable")
    item, of = np.take_along_axis(item, order, axis=1), np.take_along_axis(of, order, axis=1)
    empty = np.isinf(of)
    age = day[:, None] - world.items.born[item]
    features = np.stack(
        [
            np.take_along_axis(liking, item, axis=1),
            known.appeal[item],
            known.quality[item],
            world.items.log_price[item],
            age,
        ],
        axis=2,
    )
    return Lists(
        page,
        moment,
        seen,
        np.where(empty, NO_ITEM, item),
        np.take_along_axis(found, item, axis=1),
        np.where(empty, 0.0, of),
        features,
        np.arange(len(item)),
    )


@dataclass
class Recorder:
    """The policy of the loop, and the watcher that keeps its pages."""

    world: World
    known: Knowledge

    def __post_init__(self) -> None:
        self.chosen_at = np.full((self.world.num_users, self.world.num_items), -1e9)
        self.chosen = np.zeros(self.world.num_items)
        self.day = 0
        self.kept: list[Lists] = []
        self.start = self.chosen_at

    def slates(
        self, page: Page, *, moment: LatentState, k: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        del k, rng
        seen = self.day - self.chosen_at[page.user] < SEEN_DAYS
        lists = rank(self.world, self.known, page, moment, seen)
        if self.day >= WARM_DAYS:
            if not self.kept:
                self.start = self.chosen_at.copy()
            self.kept.append(lists)
        return lists.item, np.ones(lists.item.shape)

    def watch(self, shown: ShownPages) -> None:
        clicked = shown.outcome
        if self.day < WARM_DAYS:
            np.add.at(self.chosen, clicked.item, 1)
        self.chosen_at[shown.page.user[clicked.row], clicked.item] = self.day


@dataclass(frozen=True)
class Recording:
    """What the closed loop of one seed leaves."""

    world: World
    known: Knowledge
    lists: Lists
    """The pages after the warm-up days, sorted by time, with their lists."""
    chosen: np.ndarray
    """(N,) number of times that each item was chosen in the warm-up days."""
    chosen_at: np.ndarray
    """(U, N) day on which the user last chose the item, at the end of the warm-up."""


def record(seed: int) -> Recording:
    """Run the closed loop of one seed."""
    days = WARM_DAYS + 7 * WEEKS
    config = load_world_config("shop").model_dump()
    config |= {"days": days, "seed": seed}
    config["population"] |= {"users": USERS, "users_per_day": 4}
    config["catalogue"] |= {"items": ITEMS, "items_per_day": 3}
    config["sessions"] |= {"search": 0.0, "max_pages": 4}
    world = World(WorldConfig.model_validate(config))
    recorder = Recorder(world, Knowledge.of(world, seed=seed))
    state = State.fresh(world, 0, world.num_users)
    for day in range(days):
        recorder.day = day
        simulate_day(world, state, day, policy=recorder, watch=recorder.watch)
    lists = concatenated(recorder.kept)
    lists = lists.take(np.argsort(lists.page.at, kind="stable"))
    lists = replace(lists, row=np.arange(len(lists)))
    return Recording(world, recorder.known, lists, recorder.chosen, recorder.start)


def concatenated(parts: list[Lists]) -> Lists:
    """Concatenate lists in their order."""
    changed = {}
    for one in fields(Lists):
        values = [getattr(part, one.name) for part in parts]
        if isinstance(values[0], np.ndarray):
            changed[one.name] = np.concatenate(values)
            continue
        names = vars(values[0])
        changed[one.name] = type(values[0])(
            **{name: np.concatenate([getattr(value, name) for value in values]) for name in names}
        )
    return Lists(**changed)
