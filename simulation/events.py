"""Events of a simulated day as numeric columns. `tables` converts them to INTERACTIONS tables.

Item rows and user rows are indices into the world's arrays.

Shapes: E events, S pages, K positions, C purchases.
"""

from dataclasses import dataclass, fields

import numpy as np

from shortlist.contracts import EVENT_TYPES
from simulation.behaviour import NO_ITEM
from simulation.outcome import SECOND, Outcome
from simulation.policy import Page
from simulation.state import Returns
from simulation.world import World

CODE = {name: code for code, name in enumerate(EVENT_TYPES)}
HOME, SEARCH = 0, 1
SURFACES = ("home", "search")
DEVICES = ("desktop", "phone")
NO_REQUEST = -1


class NumberAllocator:
    """Allocator of request and event numbers that are unique in a world.

    A number consists of the day (bits 51 and up), the chunk of users (bits 31 to 50) and a counter
    (bits 0 to 30). Chunks are groups of users that are simulated together.
    """

    def __init__(self, day: int, chunk: int):
        self.base = (day << 51) | (chunk << 31)
        self.used = 0

    def take(self, n: int) -> np.ndarray:
        """Return (n,) int64 numbers that were not returned before."""
        assert self.used + n < 1 << 31, "too many events in one day of a chunk; use smaller chunks"
        taken = self.base + np.arange(self.used, self.used + n, dtype=np.int64)
        self.used += n
        return taken


@dataclass(frozen=True)
class Events:
    """E events; every column is (E,)."""

    number: np.ndarray  # int64, unique in the world
    user: np.ndarray  # int64 user rows
    item: np.ndarray  # int64 item rows
    event_type: np.ndarray  # int8, index into EVENT_TYPES
    time: np.ndarray  # int64 microseconds
    value: np.ndarray  # float64: propensity, price, seconds or stars, by type; NaN if it has none
    request: np.ndarray  # int64 request number, NO_REQUEST if no page led to the event
    session: np.ndarray  # int64 number of the session's first request, or NO_REQUEST
    position: np.ndarray  # int32 from 1, 0 if no page led to the event
    surface: np.ndarray  # int8, index into SURFACES
    phone: np.ndarray  # bool
    topic: np.ndarray  # int16 topic of the query, -1 without one

    def __len__(self) -> int:
        return len(self.number)

    def take(self, rows: np.ndarray) -> "Events":
        return Events(**{name: values[rows] for name, values in vars(self).items()})

    @classmethod
    def concat(cls, parts: list["Events"]) -> "Events":
        return cls(
            **{
                f.name: np.concatenate([getattr(part, f.name) for part in parts])
                for f in fields(cls)
            }
        )

    @classmethod
    def of_page(
        cls,
        world: World,
        page: Page,
        item: np.ndarray,
        chance: np.ndarray,
        outcome: Outcome,
        request: np.ndarray,
        session: np.ndarray,
        numbers: NumberAllocator,
    ) -> "Events":
        """Build all events of S pages with (S, K) items: impressions, then the user's actions."""
        row, position = np.nonzero(item != NO_ITEM)
        kinds = ["impression"]
        rows, places, times = [row], [position], [page.at[row]]
        values = [chance[row, position]]

        def add(
            event_type: str, chosen: np.ndarray, time: np.ndarray, value: np.ndarray | None
        ) -> None:
            at = np.flatnonzero(chosen)
            kinds.append(event_type)
            rows.append(outcome.row[at])
            places.append(outcome.place[at])
            times.append(time[at])
            values.append(np.full(len(at), np.nan) if value is None else value[at])

        searches = np.flatnonzero((page.topic >= 0) & (item[:, 0] != NO_ITEM))
        kinds.append("search")  # a search event has its first result as item
        rows.append(searches)
        places.append(np.zeros(len(searches), dtype=np.int64))
        times.append(page.at[searches] - SECOND)
        values.append(np.full(len(searches), np.nan))
        at, done = outcome.at, outcome.done
        add("click", np.ones(len(at), dtype=bool), at, None)
        add("view", outcome.view, at + SECOND // 2, None)
        add("add_to_cart", outcome.cart, done - SECOND // 2, None)
        add("purchase", outcome.bought, done - SECOND // 4, outcome.price)
        add("watch", outcome.watched > 0, done, outcome.watched)
        add("like", outcome.liked, done + 1_000, None)
        add("dislike", outcome.disliked, done + 1_000, None)
        add("rating", outcome.stars > 0, done + 2_000, outcome.stars)
        add("review", outcome.reviewed, done + 3_000, outcome.stars)
        add("survey", outcome.surveyed > 0, done + 4_000, outcome.surveyed)
        kinds.append("hide")
        hidden, where = outcome.hidden
        rows.append(hidden)
        places.append(where)
        times.append(page.at[hidden] + SECOND * (where + 1))
        values.append(np.full(len(hidden), np.nan))
        row, position = np.concatenate(rows), np.concatenate(places)
        codes = np.array([CODE[event_type] for event_type in kinds], dtype=np.int8)
        return cls(
            number=numbers.take(len(row)),
            user=page.user[row],
            item=item[row, position],
            event_type=np.repeat(codes, [len(part) for part in rows]),
            time=np.concatenate(times),
            value=np.concatenate(values),
            request=request[row],
            session=session[row],
            position=(position + 1).astype(np.int32),
            surface=np.where(page.topic >= 0, SEARCH, HOME).astype(np.int8)[row],
            phone=page.phone[row],
            topic=page.topic.astype(np.int16)[row],
        )

    @classmethod
    def of_unshown_staples(
        cls, world: World, page: Page, item: np.ndarray, time: np.ndarray, numbers: NumberAllocator
    ) -> "Events":
        """Build a click and a purchase for each of (C,) staples that no page showed.

        The events have no request, session or position.

        Args:
            page: C rows, from which only user and device are read.
            time: (C,) times of the clicks in microseconds.
        """
        n = len(item)
        return cls(
            number=numbers.take(2 * n),
            user=np.tile(page.user, 2),
            item=np.tile(item, 2),
            event_type=np.repeat(np.array([CODE["click"], CODE["purchase"]], dtype=np.int8), n),
            time=np.concatenate([time, time + SECOND // 2]),
            value=np.concatenate([np.full(n, np.nan), world.items.price[item]]),
            request=np.full(2 * n, NO_REQUEST, dtype=np.int64),
            session=np.full(2 * n, NO_REQUEST, dtype=np.int64),
            position=np.zeros(2 * n, dtype=np.int32),
            surface=np.zeros(2 * n, dtype=np.int8),
            phone=np.tile(page.phone, 2),
            topic=np.full(2 * n, -1, dtype=np.int16),
        )

    @classmethod
    def of_returns(cls, due: Returns, numbers: NumberAllocator) -> "Events":
        """Build an event of type `return` for each row of `due`."""
        n = len(due.due)
        return cls(
            number=numbers.take(n),
            user=due.user,
            item=due.item,
            event_type=np.full(n, CODE["return"], dtype=np.int8),
            time=due.due,
            value=due.price,
            request=np.full(n, NO_REQUEST, dtype=np.int64),
            session=np.full(n, NO_REQUEST, dtype=np.int64),
            position=np.zeros(n, dtype=np.int32),
            surface=np.zeros(n, dtype=np.int8),
            phone=np.zeros(n, dtype=bool),
            topic=np.full(n, -1, dtype=np.int16),
        )
