"""A user's state with one event more: what fold.py applies to the tail of posted events.

`update_user_state` builds what states/build.py builds in SQL; a property test compares them. An
item that fell off a full list comes back with its next event, in SQL too: histories hold newest
events.
"""

import math
from bisect import bisect_right
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from shortlist.contracts import EVENT_CODE
from shortlist.counting import TARGET_STATE, counted
from shortlist.features.event_groups import GROUP_OF
from shortlist.features.finalize import MAX_HISTORY, RequestRows
from shortlist.features.searches import SEARCH
from shortlist.refusals import refuses


@dataclass(frozen=True)
class FeatureEvent:
    """An event that changes a state. `timestamp` in microseconds UTC.

    `target` if it is of the run's target events: it enters history and counters. `group` is the
    place of its event group (`event_groups.GROUP_OF`), None without one. `type_code` is its
    EVENT_CODE. `query` is what a search asked for. `refused` says whether the event refuses its
    item (False: takes a refusal back, None: neither).
    """

    user_id: str
    item_id: str
    timestamp: int
    value: float | None = None
    target: bool = True
    group: int | None = None
    type_code: int = 0
    query: str | None = None
    refused: bool | None = None

    @classmethod
    def of(
        cls,
        row: Mapping[str, Any],
        *,
        target_events: Container[str],
        low_rating: float | None = None,
    ) -> "FeatureEvent | None":
        """An event as the service stores it; None if it changes no state."""
        event_type = row["event_type"]
        target, group = event_type in target_events, GROUP_OF.get(event_type)
        query = (row.get("query") or None) if event_type == SEARCH else None
        refused = refuses(event_type, row.get("value"), low_rating=low_rating)
        if not target and group is None and query is None and refused is None:
            return None
        return cls(
            user_id=row["user_id"],
            item_id=row.get("item_id") or "",
            timestamp=row["event_timestamp"],
            value=row.get("value"),
            target=target,
            group=group,
            type_code=EVENT_CODE.get(event_type, 0),
            query=query,
            refused=refused if row.get("item_id") else None,
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
        return cls(
            **{name: _number(name, rows.user[f"user_{name}"][i]) for name in TARGET_STATE},
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


def update_user_state(
    state: UserState, event: FeatureEvent, *, max_history: int = MAX_HISTORY, once: bool = True
) -> UserState:
    """The state with one event more; late events are fine.

    Events of one time count in the order in which they come, as `event_order` has it in the lake.
    """
    return remember(count(state, event), event, max_history=max_history, once=once)


def count(state: UserState, event: FeatureEvent) -> UserState:
    """USER_STATE with one event more, by `counting.counted`; the history stays."""
    before = {name: getattr(state, name) for name in TARGET_STATE}
    after = counted(before, event.timestamp, _value(event))
    return replace(state, **{name: _number(name, value) for name, value in after.items()})


def remember(
    state: UserState, event: FeatureEvent, *, max_history: int = MAX_HISTORY, once: bool = True
) -> UserState:
    """USER_HISTORY with one event more; with `once` only at the item's newest event: untouched if a
    newer one is there.
    """
    if not event.item_id:
        return state
    items, times = list(state.items), list(state.times)
    values, types = list(state.values), list(state.types)
    if once and event.item_id in items:
        known = items.index(event.item_id)
        if times[known] > event.timestamp:
            return state
        for column in (items, times, values, types):
            del column[known]
    place = bisect_right(times, event.timestamp)
    items.insert(place, event.item_id)
    times.insert(place, event.timestamp)
    values.insert(place, _value(event))
    types.insert(place, event.type_code)
    return replace(
        state,
        items=items[-max_history:],
        times=times[-max_history:],
        values=values[-max_history:],
        types=types[-max_history:],
    )


def _value(event: FeatureEvent) -> float:
    """The event's value, NaN where it has none that counts."""
    finite = event.value is not None and math.isfinite(event.value)
    return float(event.value) if event.value is not None and finite else float("nan")


def _number(name: str, value: Any) -> Any:
    return int(value) if name.endswith("_time") else float(value)
