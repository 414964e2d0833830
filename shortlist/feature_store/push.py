"""The push handler: one event more in a user's state, so that it changes the next response.

`update_user_state` builds what states.py builds in SQL; a property test proves that they agree. The
one difference: a user with more than MAX_HISTORY items who comes back to one that fell off the list
gets it again as new, since the state no longer knows it.
"""

from bisect import bisect_right
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from shortlist.config import Settings
from shortlist.contracts import EVENT_CODE
from shortlist.event_kinds import KIND_OF
from shortlist.feature_store.kind_push import KindState, update_kind_state
from shortlist.feature_store.readers import OnlineReader
from shortlist.feature_store.store import PUSHED_VIEWS, entity_key
from shortlist.features import HALF_LIFE, MAX_HISTORY, RequestRows
from shortlist.searches import SEARCH, Searches

if TYPE_CHECKING:
    from feast import FeatureView
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

FAR_FUTURE = 2**62


@dataclass(frozen=True)
class FeatureEvent:
    """An event that changes a state. `timestamp` in microseconds UTC.

    `target` if it is of the run's target events: it enters history and counters. `kind` is the
    place of its kind (`event_kinds.KIND_OF`), if it has one, `type_code` its EVENT_CODE. `query` is
    what a search asked for.
    """

    user_id: str
    item_id: str
    timestamp: int
    value: float | None = None
    target: bool = True
    kind: int | None = None
    type_code: int = 0
    query: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any], *, target_events: Container[str]) -> "FeatureEvent | None":
        """An event as the service stores it; None if it changes no state."""
        event_type = row["event_type"]
        target, kind = event_type in target_events, KIND_OF.get(event_type)
        query = (row.get("query") or None) if event_type == SEARCH else None
        if not target and kind is None and query is None:
            return None
        return cls(
            user_id=row["user_id"],
            item_id=row["item_id"],
            timestamp=row["event_timestamp"],
            value=row.get("value"),
            target=target,
            kind=kind,
            type_code=EVENT_CODE.get(event_type, 0),
            query=query,
        )


@dataclass(frozen=True)
class UserState:
    """The pushable state of one user: USER_STATE and USER_HISTORY without their prefixes."""

    events: float = 0.0
    decayed: float = 0.0
    last_time: int = 0
    first_time: int = 0
    value_sum: float = 0.0
    value_count: float = 0.0
    value_decayed: float = 0.0
    value_weight: float = 0.0
    items: list[str] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    types: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, rows: RequestRows, i: int) -> "UserState":
        """Request i's user."""
        user = rows.user
        return cls(
            events=float(user["user_events"][i]),
            decayed=float(user["user_decayed"][i]),
            last_time=int(user["user_last_time"][i]),
            first_time=int(user["user_first_time"][i]),
            value_sum=float(user["user_value_sum"][i]),
            value_count=float(user["user_value_count"][i]),
            value_decayed=float(user["user_value_decayed"][i]),
            value_weight=float(user["user_value_weight"][i]),
            items=list(rows.history_items[i]),
            times=rows.history_times[i].tolist(),
            values=rows.history_values[i].tolist(),
            types=rows.history_types[i].tolist(),
        )

    def columns(self) -> dict[str, Any]:
        """The state under the names of USER_STATE and USER_HISTORY."""
        return {
            f"{'history' if isinstance(value, list) else 'user'}_{name}": value
            for name, value in vars(self).items()
        }

    @property
    def stamp(self) -> int:
        """Grows with each event, those of one microsecond too: Redis drops what is not newer."""
        return self.last_time + int(self.events)


State = UserState | KindState | Searches


def update_user_state(
    state: UserState, event: FeatureEvent, *, max_history: int = MAX_HISTORY
) -> UserState:
    """The state with one event more; late events are fine.

    Events of one time count in the order in which they come, as `event_order` has it in the lake.
    """
    t = event.timestamp
    new = state.events == 0
    last_time = t if new else max(state.last_time, t)
    aged = 2.0 ** ((state.last_time - last_time) / HALF_LIFE)
    weight = 2.0 ** ((t - last_time) / HALF_LIFE)
    has_value = event.value is not None and np.isfinite(event.value)
    value = float(event.value) if event.value is not None and has_value else float("nan")
    counted = value if has_value else 0.0
    items, times, values, types = _remember(state, event, value)
    return UserState(
        events=state.events + 1,
        decayed=state.decayed * aged + weight,
        last_time=last_time,
        first_time=t if new else min(state.first_time, t),
        value_sum=state.value_sum + counted,
        value_count=state.value_count + has_value,
        value_decayed=state.value_decayed * aged + counted * weight,
        value_weight=state.value_weight * aged + has_value * weight,
        items=items[-max_history:],
        times=times[-max_history:],
        values=values[-max_history:],
        types=types[-max_history:],
    )


def _remember(
    state: UserState, event: FeatureEvent, value: float
) -> tuple[list[str], list[int], list[float], list[int]]:
    """The lists with the item at its first event; untouched if an earlier one is there."""
    items, times = list(state.items), list(state.times)
    values, types = list(state.values), list(state.types)
    if event.item_id in items:
        known = items.index(event.item_id)
        if times[known] <= event.timestamp:
            return items, times, values, types
        for column in (items, times, values, types):
            del column[known]
    place = bisect_right(times, event.timestamp)
    items.insert(place, event.item_id)
    times.insert(place, event.timestamp)
    values.insert(place, value)
    types.insert(place, event.type_code)
    return items, times, values, types


class OnlineWriter:
    """Adds events to the users' online states. Make one a process and keep it: opening takes 50 ms.

    One writer a user at a time: read, add, write is not a transaction. An event pushed twice counts
    twice; the caller keeps event ids.
    """

    def __init__(self, settings: Settings):
        """Raises FeatureStoreError if nothing was featurized yet."""
        from feast.infra.provider import get_provider

        self.reader = OnlineReader(settings)
        self.config = self.reader.store.config
        self.provider = get_provider(self.config)
        self.views = {name: self.reader.store.get_feature_view(name) for name in PUSHED_VIEWS}
        self._writing = Lock()

    def push(self, events: Iterable[FeatureEvent]) -> int:
        """Add events, in order of their times, and write the states back through Feast.

        The rows are those of Feast's push sources, `user_stats_push` and the like;
        `FeatureStore.push` itself parses the registry anew for each call (70 ms
        instead of 5).

        Returns:
            Number of users whose state changed.
        """
        ordered = sorted(events, key=lambda event: (event.user_id, event.timestamp))
        by_user = {user: list(own) for user, own in groupby(ordered, key=lambda e: e.user_id)}
        if not by_user:
            return 0
        users = list(by_user)
        with self._writing:
            rows = self.reader.read(users, [""] * len(users), np.full(len(users), FAR_FUTURE))
            states: dict[str, UserState] = {}
            kinds: dict[str, KindState] = {}
            searches: dict[str, Searches] = {}
            for i, user in enumerate(users):
                state, of_kinds = UserState.of(rows, i), KindState.of(rows, i)
                asked = rows.searches[i]
                for event in by_user[user]:
                    if event.target:
                        states[user] = state = update_user_state(state, event)
                    if event.kind is not None:
                        of_kinds = update_kind_state(
                            of_kinds, event.kind, timestamp=event.timestamp
                        )
                        kinds[user] = of_kinds
                    if event.query is not None:
                        asked = asked.with_search(event.query, timestamp=event.timestamp)
                        searches[user] = asked
            apart = {"user_kinds": kinds, "user_searches": searches}
            for name in PUSHED_VIEWS:
                self._write(name, apart.get(name, states))
        return len(states.keys() | kinds.keys() | searches.keys())

    def _write(self, view_name: str, states: Mapping[str, State]) -> None:
        if not states:
            return
        view = self.views[view_name]
        rows: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]] = [
            (entity_key("user_id", user_id), _values(view, state), _moment(state.stamp), None)
            for user_id, state in states.items()
        ]
        self.provider.online_write_batch(self.config, view, rows, progress=None)


def push_events(settings: Settings, events: Iterable[FeatureEvent]) -> int:
    """Push once. Who pushes often keeps an OnlineWriter.

    Raises:
        FeatureStoreError: nothing was featurized yet.
    """
    return OnlineWriter(settings).push(events)


def _values(view: "FeatureView", state: State) -> "dict[str, Value]":
    """The state's part of a view, as Feast's protobuf values."""
    from feast.type_map import python_values_to_proto_values

    columns = state.columns()
    return {
        field.name: python_values_to_proto_values(
            [columns[field.name]], field.dtype.to_value_type()
        )[0]
        for field in view.features
    }


def _moment(microseconds: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds)
