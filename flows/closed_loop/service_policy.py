"""A policy that requests pages from a running service, and a callback that posts the events.

Shapes: S pages, K positions.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from flows.closed_loop.setting import Setting
from shortlist import columns as c
from shortlist.contracts import microseconds
from shortlist.http.api import MAX_EVENTS, Context, Event, RecommendRequest
from shortlist.http.client import ShortlistClient
from simulation.behaviour import NO_ITEM, LatentState
from simulation.day import ShownPages
from simulation.events import DEVICES, Events
from simulation.policy import Page

PLAIN = (c.EVENT_ID, c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.VALUE, c.TEXT, c.QUERY, c.SESSION_ID)


@dataclass
class ServicePolicy:
    """Requests home pages over HTTP with a few parallel connections.

    A response doesn't depend on other requests of the same round, so requests may run in any order.
    """

    setting: Setting
    client: ShortlistClient
    connections: int = 4
    request_ids: list[str] = field(default_factory=list)
    """The service's request_id of each home page of the last round, in the order of pages."""

    def slates(
        self, page: Page, *, moment: LatentState, k: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Request pages, see `Policy.slates`. Raises ServiceError.

        All propensities are 1, because the service is not configured to explore.
        """
        row_of = self.setting.item_rows
        item = np.full((len(page.user), k), NO_ITEM)
        self.request_ids = []

        def ask(row: int):
            return self.client.recommend(
                RecommendRequest(
                    user_id=self.setting.user_ids[page.user[row]],
                    k=k,
                    at=int(page.at[row]),
                    explain=False,
                    context=Context(surface="home", device=DEVICES[int(page.phone[row])]),
                )
            )

        with ThreadPoolExecutor(self.connections) as pool:
            for row, answer in enumerate(pool.map(ask, range(len(page.user)))):
                self.request_ids.append(answer.request_id)
                for position, shown in enumerate(answer.items):
                    item[row, position] = row_of[shown.item_id]
        return item, np.ones(item.shape)


@dataclass
class EventPoster:
    """Callback for `simulate_day` that posts the events of each round of pages.

    Events about items that are not in the release are kept for the nightly ingestion.
    """

    setting: Setting
    policy: ServicePolicy
    known_items: int
    """Number of items in the release; they are the first rows of the world's items."""
    kept: list[pa.Table] = field(default_factory=list)

    def __call__(self, shown: ShownPages) -> None:
        self._post(shown.events, self.table(shown))

    def post(self, events: Events) -> None:
        """Post events that no page of this day caused, such as product returns."""
        self._post(events, self.setting.publisher.interactions(events, ingested_at=0))

    def _post(self, events: Events, table: pa.Table) -> None:
        known = events.item < self.known_items
        self.kept.append(table.filter(pa.array(~known)))
        for posts in event_batches(table.filter(pa.array(known))):
            self.policy.client.events(posts)

    def table(self, shown: ShownPages) -> pa.Table:
        """Return the round's events as a table of the INTERACTIONS contract.

        Events of home pages get the request_id that the service returned.
        """
        publisher = self.setting.publisher
        table = publisher.interactions(shown.events, ingested_at=0)
        home = np.flatnonzero(shown.page.topic < 0)
        request_ids = publisher.request_ids(shown.request[home])
        of_service = dict(zip(request_ids, self.policy.request_ids, strict=True))
        ids = [of_service.get(name, name) for name in table.column(c.REQUEST_ID).to_pylist()]
        at = table.schema.get_field_index(c.REQUEST_ID)
        return table.set_column(at, c.REQUEST_ID, pa.array(ids, pa.string()))


def event_batches(table: pa.Table) -> Iterator[list[Event]]:
    """Yield the events in order of time, in lists of at most MAX_EVENTS."""
    table = table.sort_by([(c.EVENT_TIMESTAMP, "ascending"), (c.EVENT_ORDER, "ascending")])
    times = microseconds(table.column(c.EVENT_TIMESTAMP)).to_pylist()
    events = [
        Event(
            **{name: row[name] for name in PLAIN},
            event_timestamp=at,
            request_id=row[c.REQUEST_ID],
            position=row[c.POSITION],
            surface=row[c.SURFACE],
            device=row[c.DEVICE],
        )
        for row, at in zip(table.to_pylist(), times, strict=True)
    ]
    for start in range(0, len(events), MAX_EVENTS):
        yield events[start : start + MAX_EVENTS]


def call_each(*watchers: Callable[[ShownPages], None]) -> Callable[[ShownPages], None]:
    """Combine callbacks into one that calls each in order."""

    def watch(shown: ShownPages) -> None:
        for watcher in watchers:
            watcher(shown)

    return watch
