"""Requests of a window, and the states of users and items as of each request.

A request is the first event of a user in the window, and then the first event at least a day after
the last request. Its relevant items are those that the user chose within a day and had not before.

Shapes: R requests.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.cold.log import Log
from flows.closed_loop.memory import MemoryStore, Targets
from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.feature_store import FeatureReader
from shortlist.feature_store.online.user_state import UserState
from shortlist.features.finalize import MAX_HISTORY, RequestRows
from shortlist.features.pack import FeaturePack

EVERY = MICROSECONDS_PER_DAY
PER_USER = 5
"""Maximum number of requests of a user in a window."""


@dataclass(frozen=True)
class Request:
    """One request of the benchmark. Items are rows of `Log.items`."""

    user: int
    at: int
    relevant: np.ndarray
    consumed: np.ndarray
    """Items that the user chose before; no method may show them."""


def requests_of(
    log: Log, window: tuple[int, int], *, rng: np.random.Generator, most: int
) -> list[Request]:
    """Return the requests of a window in order of time: all of them, or those of some users.

    Args:
        window: start and end in microseconds.
        most: maximum number of users, drawn with `rng`.
    """
    events = log.events
    users = np.unique(events.user[(events.time >= window[0]) & (events.time < window[1])])
    if len(users) > most:
        users = np.sort(rng.choice(users, size=most, replace=False))
    order = np.argsort(events.user, kind="stable")
    starts = np.searchsorted(events.user[order], np.arange(len(log.user_ids) + 1))
    requests: list[Request] = []
    for user in users.tolist():
        rows = order[starts[user] : starts[user + 1]]
        time, item = events.time[rows], events.item[rows]
        at, count = window[0], 0
        while count < PER_USER:
            later = np.flatnonzero((time >= at) & (time < window[1]))
            if len(later) == 0:
                break
            now = int(time[later[0]])
            consumed = np.unique(item[time < now])
            day = (time >= now) & (time < min(now + EVERY, window[1]))
            relevant = np.setdiff1d(item[day], consumed)
            if len(relevant):
                requests.append(Request(user, now, relevant, consumed))
            at, count = now + EVERY, count + 1
    return sorted(requests, key=lambda request: (request.at, request.user))


@dataclass
class StoreTimeline:
    """Moves a store through time: item features each midnight, and events before each request."""

    store: MemoryStore
    events: Targets  # sorted by time, those that the store gets
    done: int = 0

    @classmethod
    def start(cls, log: Log, events: Targets, *, at: int) -> "StoreTimeline":
        """Return a walk whose store has all events before `at`."""
        store = MemoryStore(log.user_ids, log.item_ids, log.attributes)
        done = int(np.searchsorted(events.time, at))
        before = events.take(np.arange(done))
        store.parts.append(before)
        store.users = states_at(store, before)
        return cls(store, events, done)

    def run(
        self,
        requests: list[Request],
        *,
        on_day: Callable[[FeaturePack], None],
        on_request: Callable[[Request], None],
    ) -> None:
        """Call `on_day` with the item features of each midnight, and `on_request` in between."""
        day = None
        for request in requests:
            midnight = request.at - request.at % MICROSECONDS_PER_DAY
            if midnight != day:
                self._until(midnight)
                on_day(self.store.tick(midnight if self._rolls else request.at))
                day = midnight
            self._until(request.at)
            on_request(request)

    @property
    def _rolls(self) -> bool:
        """False if all events are within a day, as in data without times."""
        span = self.events.time[-1] - self.events.time[0]
        return bool(span > 30 * MICROSECONDS_PER_DAY)

    def _until(self, end: int) -> None:
        end_row = int(np.searchsorted(self.events.time, end))
        if end_row > self.done:
            self.store.push(self.events.take(np.arange(self.done, end_row)))
            self.done = end_row


def states_at(store: MemoryStore, events: Targets) -> dict[str, UserState]:
    """Return the states of all users after `events`, as if they had been pushed one by one."""
    from flows.closed_loop.memory import states_of
    from shortlist.behaviour.counting import TARGET_STATE

    summed = states_of(events.user, events, size=len(store.user_ids))
    order = np.argsort(events.user, kind="stable")
    starts = np.searchsorted(events.user[order], np.arange(len(store.user_ids) + 1))
    states = {}
    for user, user_id in enumerate(store.user_ids):
        rows = order[starts[user] : starts[user + 1]]
        if len(rows) == 0:
            continue
        item = events.item[rows]
        _, newest = np.unique(item[::-1], return_index=True)
        rows = rows[np.sort(len(item) - 1 - newest)][-MAX_HISTORY:]
        numbers: dict[str, Any] = {
            name: int(summed[name][user]) if name.endswith("_time") else float(summed[name][user])
            for name in TARGET_STATE
        }
        states[user_id] = UserState(
            **numbers,
            items=[store.item_ids[i] for i in events.item[rows]],
            times=events.time[rows].tolist(),
            values=events.value[rows].tolist(),
            types=events.type_code[rows].tolist(),
        )
    return states


@dataclass
class CutReader(FeatureReader):
    """A reader that knows only the last `events` events of each user; None: all of them."""

    store: MemoryStore
    events: int | None = None

    def read(self, user_ids: list[str], context_ids: list[str], at: np.ndarray) -> RequestRows:
        """Return the states; counts and histories have only the newest `events` events."""
        if self.events is None:
            return self.store.read(user_ids, context_ids, at)
        from shortlist.feature_store.online.user_state import FeatureEvent, update_user_state

        cut = MemoryStore(self.store.user_ids, self.store.item_ids, self.store.attributes)
        cut.contexts = self.store.contexts
        for user_id in user_ids:
            whole = self.store.users.get(user_id, UserState())
            state = UserState()
            for index in range(max(len(whole.items) - self.events, 0), len(whole.items)):
                event = FeatureEvent(
                    user_id=user_id,
                    item_id=whole.items[index],
                    timestamp=whole.times[index],
                    value=whole.values[index],
                    type_code=whole.types[index],
                )
                state = update_user_state(state, event)
            cut.users[user_id] = state
        return cut.read(user_ids, context_ids, at)
