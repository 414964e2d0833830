"""One day of a world: who comes, what they are shown, what they do. Page after page, all users at
once.

Whoever fills the pages is a `Policy`: the logging policy, a recommender, the oracle. Pages asked
for by a query are always filled by the shop's own search, the logging policy's.

Shapes: S pages, K places, C clicks.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from shortlist.columns import MICROSECONDS_PER_DAY, MICROSECONDS_PER_HOUR, midnight
from simulation.behaviour import NOBODY, Moment, trust_after
from simulation.events import Events
from simulation.outcome import Outcome, act
from simulation.policy import LoggingPolicy, Page
from simulation.state import Returns, State
from simulation.world import World

SECOND = 1_000_000


class Policy(Protocol):
    """Fills home pages."""

    def slates(
        self, page: Page, *, moment: Moment, k: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """(S, K) item rows, NOBODY where a place stays empty, and the chance (S, K) with which
        each stands there. Only an oracle may look at `moment`.
        """
        ...


@dataclass(frozen=True)
class Shown:
    """One round of pages: what was asked, shown and done."""

    page: Page
    moment: Moment
    item: np.ndarray  # (S, K)
    chance: np.ndarray  # (S, K)
    outcome: Outcome
    request: np.ndarray  # (S,) int64
    events: Events


Watcher = Callable[[Shown], None]


def live_day(
    world: World,
    state: State,
    day: int,
    *,
    policy: Policy | None = None,
    watch: Watcher | None = None,
    logging: LoggingPolicy | None = None,
) -> list[Events]:
    """Live one day of the users of `state`, which is changed.

    Args:
        policy: fills home pages; None: the logging policy does.
        watch: called after each round of pages, before anybody asks for another.
        logging: of this day, if it is there already.

    Returns:
        events in the order in which they were caused; sort them by time if that matters.
    """
    config = world.config
    chunk = state.first // config.chunk
    rng = world.rng(day, chunk, "day")
    numbers = Numbers(day, chunk)
    logging = logging or LoggingPolicy(world, day)
    parts = [_returned(state, world, day, numbers)]
    rows = state.come(world, day, rng)
    session = _Sessions.start(world, state, rows, day, rng)
    for page in range(config.sessions.max_pages):
        if len(session.rows) == 0:
            break
        shown = _one_page(world, state, session, logging, policy, numbers, rng)
        following = session.next(world, shown, rng)
        last = page == config.sessions.max_pages - 1
        ended = np.flatnonzero(last | ~np.isin(session.rows, following.rows))
        shown = _with_own_list(world, state, shown, ended, numbers, rng)
        parts.append(shown.events)
        if watch is not None:
            watch(shown)
        session = following
    return parts


class Numbers:
    """Numbers for requests and events, each used once in a world: day, chunk, count."""

    def __init__(self, day: int, chunk: int):
        self.base = (day << 51) | (chunk << 31)
        self.used = 0

    def take(self, n: int) -> np.ndarray:
        """(n,) int64 that nobody else has."""
        assert self.used + n < 1 << 31, "a chunk's day has too many events; make chunks smaller"
        taken = self.base + np.arange(self.used, self.used + n, dtype=np.int64)
        self.used += n
        return taken


@dataclass
class _Sessions:
    """Those who still look at pages today."""

    rows: np.ndarray  # (S,) of the state
    at: np.ndarray  # (S,) int64 microseconds of the next page
    mood: np.ndarray  # (S, D)
    intent: np.ndarray  # (S,)
    phone: np.ndarray  # (S,) bool
    number: np.ndarray  # (S,) int64: first request's, -1 before it
    topic: np.ndarray  # (S,) int64: of a query, -1 for the home page

    @classmethod
    def start(
        cls, world: World, state: State, rows: np.ndarray, day: int, rng: np.random.Generator
    ) -> "_Sessions":
        config, user = world.config, state.first + rows
        n, dim = len(rows), world.topics.shape[1]
        length = config.sessions.mood / np.sqrt(dim)
        evening = rng.random(n) < world.users.evening[user]
        hour = np.where(evening, 20.0, 12.5) + rng.normal(size=n) * np.where(evening, 2, 3)
        # An hour is kept free before midnight, so that a day's pages belong to the day.
        offset = (np.clip(hour, 0.2, 22.5) * MICROSECONDS_PER_HOUR).astype(np.int64)
        offset += rng.integers(0, 30 * 60 * SECOND, size=n)
        mood = (length * rng.standard_normal((n, dim), dtype=np.float32)).astype(np.float32)
        topic = np.full(n, -1, dtype=np.int64)
        asks = np.flatnonzero(rng.random(n) < config.sessions.search)
        topic[asks] = _wanted(world, state.taste[rows[asks]] + mood[asks])
        return cls(
            rows=rows,
            at=world.midnight(day) + offset,
            mood=mood,
            intent=(config.behaviour.cart_intent * rng.normal(size=n)).astype(np.float32),
            phone=rng.random(n) < world.users.phone[user],
            number=np.full(n, -1, dtype=np.int64),
            topic=topic,
        )

    def next(self, world: World, shown: Shown, rng: np.random.Generator) -> "_Sessions":
        """Who goes on, and when."""
        sessions = world.config.sessions
        odds = sessions.go_on + world.users.patience[shown.page.user]
        odds = odds + sessions.go_on_pleased * shown.outcome.satisfied
        going = rng.random(len(odds)) < 1 / (1 + np.exp(-odds))
        gap = rng.exponential(sessions.page_gap, size=len(odds)) + 1
        at = shown.outcome.end + (gap * SECOND).astype(np.int64)
        day_start = midnight(shown.page.at)
        going &= at < day_start + MICROSECONDS_PER_DAY - SECOND  # people sleep
        kept = np.flatnonzero(going)
        number = np.where(self.number < 0, shown.request, self.number)
        topic = np.full(len(kept), -1, dtype=np.int64)
        asks = np.flatnonzero(rng.random(len(kept)) < sessions.search)
        topic[asks] = _wanted(world, shown.moment.taste[kept[asks]])
        return _Sessions(
            rows=self.rows[kept],
            at=at[kept],
            mood=self.mood[kept],
            intent=self.intent[kept],
            phone=self.phone[kept],
            number=number[kept],
            topic=topic,
        )


def _wanted(world: World, taste: np.ndarray) -> np.ndarray:
    """(S, D) tastes with their moods -> (S,) the topic that suits them best."""
    return (taste @ world.topics.T).argmax(1)


def _one_page(
    world: World,
    state: State,
    session: _Sessions,
    logging: LoggingPolicy,
    policy: Policy | None,
    numbers: Numbers,
    rng: np.random.Generator,
) -> Shown:
    config, rows = world.config, session.rows
    k = config.sessions.slate
    moment = state.moment(world, rows, mood=session.mood, intent=session.intent, at=session.at)
    page = Page(moment.user, session.at, session.phone, session.topic)
    if policy is None:
        item, chance = logging.slates(page, k=k, rng=rng)
    else:
        item, chance = np.full((len(rows), k), NOBODY), np.ones((len(rows), k))
        searched = np.flatnonzero(page.topic >= 0)
        item[searched], chance[searched] = logging.slates(page.take(searched), k=k, rng=rng)
        home = np.flatnonzero(page.topic < 0)
        item[home], chance[home] = policy.slates(
            page.take(home), moment=moment.take(home), k=k, rng=rng
        )
    outcome = act(world, moment, page, item, rng)
    request = numbers.take(len(rows))
    number = np.where(session.number < 0, request, session.number)
    events = Events.of_page(world, page, item, chance, outcome, request, number, numbers)
    about = config.behaviour
    state.trust[rows] = np.clip(trust_after(about, moment.trust, outcome.satisfied), 0, 1)
    state.consume(world, rows, outcome.item, outcome.row)
    bought = np.flatnonzero(outcome.bought)
    state.stock(world, rows[outcome.row[bought]], outcome.item[bought], outcome.done[bought])
    state.add_returns(outcome.returns(page))
    return Shown(page, moment, item, chance, outcome, request, events)


def _with_own_list(
    world: World,
    state: State,
    shown: Shown,
    ended: np.ndarray,
    numbers: Numbers,
    rng: np.random.Generator,
) -> Shown:
    """Staples that visits end with, although no page showed them; `ended` are rows of `shown`."""
    if not world.config.population.staples:
        return shown
    user = shown.page.user[ended]
    rows, at = user - state.first, shown.outcome.end[ended]
    due = state.due(world, rows, at)
    row, place = np.nonzero(due & (rng.random(due.shape) < world.config.behaviour.staple_alone))
    item, time = world.users.staples[user[row], place], at[row] + SECOND * (place + 1)
    state.stock(world, rows[row], item, time)
    alone = Events.of_own_list(world, shown.page.take(ended[row]), item, time, numbers)
    return replace(shown, events=Events.concat([shown.events, alone]))


def _returned(state: State, world: World, day: int, numbers: Numbers) -> Events:
    """Purchases of earlier days that come back today."""
    due: Returns = state.due_returns(world.midnight(day + 1))
    return Events.of_returns(due, numbers)
