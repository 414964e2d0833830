"""Simulates one day of a world, page by page, vectorised over users.

A `Policy` fills the home pages: the logging policy, a recommender or the oracle. The logging policy
always fills search pages. The propensity of a shown item is the probability that the policy puts it
at its position, given the items before it. Item rows and user rows are indices into the world's
arrays.

Shapes: S pages, K positions, C clicks.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from shortlist.columns import MICROSECONDS_PER_DAY, MICROSECONDS_PER_HOUR, midnight
from simulation.behaviour import NO_ITEM, LatentState, trust_after
from simulation.events import Events, NumberAllocator
from simulation.outcome import SECOND, Outcome, draw_outcome
from simulation.policy import LoggingPolicy, Page
from simulation.state import Returns, State
from simulation.world import World


class Policy(Protocol):
    """A policy that fills home pages with items."""

    def slates(
        self, page: Page, *, moment: LatentState, k: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (S, K) item rows, NO_ITEM at empty positions, and (S, K) propensities.

        Only an oracle may read `moment`, because it is latent.
        """
        ...


@dataclass(frozen=True)
class ShownPages:
    """One page of each active session: the request, its slate of items and the user's actions."""

    page: Page
    moment: LatentState
    item: np.ndarray  # (S, K) int64 item rows
    chance: np.ndarray  # (S, K) propensities of the items
    outcome: Outcome
    request: np.ndarray  # (S,) int64 request numbers
    events: Events


Watcher = Callable[[ShownPages], None]


def simulate_day(
    world: World,
    state: State,
    day: int,
    *,
    policy: Policy | None = None,
    watch: Watcher | None = None,
    logging: LoggingPolicy | None = None,
) -> list[Events]:
    """Simulate one day of the users of `state`, and update `state` in place.

    Args:
        policy: fills home pages; None uses the logging policy.
        watch: called after each round of pages (one page per active session), before the users
            request the next page.
        logging: the logging policy of this day; None builds it.

    Returns:
        The events of returned purchases, then those of each round of pages; not sorted by time.
    """
    config = world.config
    chunk = state.first // config.chunk
    rng = world.rng(day, chunk, "day")
    numbers = NumberAllocator(day, chunk)
    logging = logging or LoggingPolicy(world, day)
    parts = [_return_events(state, world, day, numbers)]
    rows = state.draw_visits(world, day, rng)
    session = _Sessions.start(world, state, rows, day, rng)
    for page in range(config.sessions.max_pages):
        if len(session.rows) == 0:
            break
        shown = _one_page(world, state, session, logging, policy, numbers, rng)
        following = session.next(world, shown, rng)
        last = page == config.sessions.max_pages - 1
        ended = np.flatnonzero(last | ~np.isin(session.rows, following.rows))
        shown = _with_unshown_staples(world, state, shown, ended, numbers, rng)
        parts.append(shown.events)
        if watch is not None:
            watch(shown)
        session = following
    return parts


@dataclass
class _Sessions:
    """The sessions that request another page on this day."""

    rows: np.ndarray  # (S,) rows of the state
    at: np.ndarray  # (S,) int64 microseconds of the next page
    mood: np.ndarray  # (S, D) random vector of the session, added to the user's taste
    intent: np.ndarray  # (S,) intent to buy in the session
    phone: np.ndarray  # (S,) bool: the visit is by phone
    number: np.ndarray  # (S,) int64: number of the session's first request, -1 before it
    topic: np.ndarray  # (S,) int64: topic of the query, -1 for the home page

    @classmethod
    def start(
        cls, world: World, state: State, rows: np.ndarray, day: int, rng: np.random.Generator
    ) -> "_Sessions":
        config, user = world.config, state.first + rows
        n, dim = len(rows), world.topics.shape[1]
        length = config.sessions.mood / np.sqrt(dim)
        evening = rng.random(n) < world.users.evening[user]
        hour = np.where(evening, 20.0, 12.5) + rng.normal(size=n) * np.where(evening, 2, 3)
        # Sessions start before 23:00, which leaves time for more pages before midnight.
        offset = (np.clip(hour, 0.2, 22.5) * MICROSECONDS_PER_HOUR).astype(np.int64)
        offset += rng.integers(0, 30 * 60 * SECOND, size=n)
        mood = (length * rng.standard_normal((n, dim), dtype=np.float32)).astype(np.float32)
        topic = np.full(n, -1, dtype=np.int64)
        asks = np.flatnonzero(rng.random(n) < config.sessions.search)
        topic[asks] = _best_topic(world, state.taste[rows[asks]] + mood[asks])
        return cls(
            rows=rows,
            at=world.midnight(day) + offset,
            mood=mood,
            intent=(config.behaviour.cart_intent * rng.normal(size=n)).astype(np.float32),
            phone=rng.random(n) < world.users.phone[user],
            number=np.full(n, -1, dtype=np.int64),
            topic=topic,
        )

    def next(self, world: World, shown: ShownPages, rng: np.random.Generator) -> "_Sessions":
        """Draw which sessions request another page, and when; return these sessions."""
        sessions = world.config.sessions
        odds = sessions.go_on + world.users.patience[shown.page.user]
        odds = odds + sessions.go_on_pleased * shown.outcome.satisfied
        going = rng.random(len(odds)) < 1 / (1 + np.exp(-odds))
        gap = rng.exponential(sessions.page_gap, size=len(odds)) + 1
        at = shown.outcome.end + (gap * SECOND).astype(np.int64)
        day_start = midnight(shown.page.at)
        going &= at < day_start + MICROSECONDS_PER_DAY - SECOND  # sessions end at midnight
        kept = np.flatnonzero(going)
        number = np.where(self.number < 0, shown.request, self.number)
        topic = np.full(len(kept), -1, dtype=np.int64)
        asks = np.flatnonzero(rng.random(len(kept)) < sessions.search)
        topic[asks] = _best_topic(world, shown.moment.taste[kept[asks]])
        return _Sessions(
            rows=self.rows[kept],
            at=at[kept],
            mood=self.mood[kept],
            intent=self.intent[kept],
            phone=self.phone[kept],
            number=number[kept],
            topic=topic,
        )


def _best_topic(world: World, taste: np.ndarray) -> np.ndarray:
    """Return the topic with the largest inner product with each (S, D) taste plus mood: (S,)."""
    return (taste @ world.topics.T).argmax(1)


def _one_page(
    world: World,
    state: State,
    session: _Sessions,
    logging: LoggingPolicy,
    policy: Policy | None,
    numbers: NumberAllocator,
    rng: np.random.Generator,
) -> ShownPages:
    config, rows = world.config, session.rows
    k = config.sessions.slate
    moment = state.moment(world, rows, mood=session.mood, intent=session.intent, at=session.at)
    page = Page(moment.user, session.at, session.phone, session.topic)
    if policy is None:
        item, chance = logging.slates(page, k=k, rng=rng)
    else:
        item, chance = np.full((len(rows), k), NO_ITEM), np.ones((len(rows), k))
        searched = np.flatnonzero(page.topic >= 0)
        item[searched], chance[searched] = logging.slates(page.take(searched), k=k, rng=rng)
        home = np.flatnonzero(page.topic < 0)
        item[home], chance[home] = policy.slates(
            page.take(home), moment=moment.take(home), k=k, rng=rng
        )
    outcome = draw_outcome(world, moment, page, item, rng)
    request = numbers.take(len(rows))
    number = np.where(session.number < 0, request, session.number)
    events = Events.of_page(world, page, item, chance, outcome, request, number, numbers)
    params = config.behaviour
    state.trust[rows] = np.clip(trust_after(params, moment.trust, outcome.satisfied), 0, 1)
    state.consume(world, rows, outcome.item, outcome.row)
    bought = np.flatnonzero(outcome.bought)
    state.stock(world, rows[outcome.row[bought]], outcome.item[bought], outcome.done[bought])
    state.add_returns(outcome.returns(page))
    return ShownPages(page, moment, item, chance, outcome, request, events)


def _with_unshown_staples(
    world: World,
    state: State,
    shown: ShownPages,
    ended: np.ndarray,
    numbers: NumberAllocator,
    rng: np.random.Generator,
) -> ShownPages:
    """Add purchases of staples that users still need at the end of their visit.

    Staples are items that a user needs repeatedly. Each is bought with probability `staple_alone`.
    The events of these purchases belong to no page.

    Args:
        ended: rows of `shown` whose visit ends with this page.
    """
    if not world.config.population.staples:
        return shown
    user = shown.page.user[ended]
    rows, at = user - state.first, shown.outcome.end[ended]
    due = state.due(world, rows, at)
    row, column = np.nonzero(due & (rng.random(due.shape) < world.config.behaviour.staple_alone))
    item, time = world.users.staples[user[row], column], at[row] + SECOND * (column + 1)
    state.stock(world, rows[row], item, time)
    alone = Events.of_unshown_staples(world, shown.page.take(ended[row]), item, time, numbers)
    return replace(shown, events=Events.concat([shown.events, alone]))


def _return_events(state: State, world: World, day: int, numbers: NumberAllocator) -> Events:
    """Build the day's events of type `return`, which send back purchases of earlier days."""
    due: Returns = state.due_returns(world.midnight(day + 1))
    return Events.of_returns(due, numbers)
