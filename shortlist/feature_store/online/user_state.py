"""Updates a user's target state and history by one event.

The target state counts the events that models learn from. fold.py uses this module for tail events
(posted events that no refresh has processed yet). `update_user_state` builds the same states as the
SQL in states/build.py; a property test compares them. A full history drops its oldest item. The
item returns with its next event, as in SQL, because a history holds the newest events.
"""

import math
from bisect import bisect_right
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from shortlist.behaviour.counting import TARGET_STATE, counted
from shortlist.behaviour.refusals import refuses
from shortlist.contracts import EVENT_CODE
from shortlist.features.event_groups import GROUP_OF
from shortlist.features.finalize import MAX_HISTORY, RequestRows
from shortlist.features.searches import SEARCH


@dataclass(frozen=True)
class FeatureEvent:
    """An event that changes some state of its user."""

    user_id: str
    item_id: str
    """Empty if the event has no item."""
    timestamp: int
    """Microseconds, UTC."""
    value: float | None = None
    target: bool = True
    """Whether it is a target event, which counts in the target state and the history."""
    group: int | None = None
    """Position of its event group (`event_groups.GROUP_OF`); None without a group."""
    type_code: int = 0
    """EVENT_CODE of its type."""
    query: str | None = None
    """The query of a search; None for other events."""
    refused: bool | None = None
    """True if the event refuses its item, False if it withdraws a refusal, None if neither."""

    @classmethod
    def of(
        cls,
        row: Mapping[str, Any],
        *,
        target_events: Container[str],
        low_rating: float | None = None,
    ) -> "FeatureEvent | None":
        """Convert an event from the inbox; None if it changes no state."""
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
    """Target state and history of one user: USER_STATE and USER_HISTORY without their prefixes."""

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
        """Return the state of the user of request i."""
        return cls(
            **{name: _number(name, rows.user[f"user_{name}"][i]) for name in TARGET_STATE},
            items=list(rows.history_items[i]),
            times=rows.history_times[i].tolist(),
            values=rows.history_values[i].tolist(),
            types=rows.history_types[i].tolist(),
        )

    def columns(self) -> dict[str, Any]:
        """Return the state with the column names of USER_STATE and USER_HISTORY."""
        return {
            f"{'history' if isinstance(value, list) else 'user'}_{name}": value
            for name, value in vars(self).items()
        }


def update_user_state(
    state: UserState, event: FeatureEvent, *, max_history: int = MAX_HISTORY, once: bool = True
) -> UserState:
    """Return the state after one more event, which may be older than others in the state.

    Events with equal times are ordered by arrival, like `event_order` in the lake.
    """
    return remember(count(state, event), event, max_history=max_history, once=once)


def count(state: UserState, event: FeatureEvent) -> UserState:
    """Return the state with the event counted in USER_STATE; USER_HISTORY is unchanged."""
    before = {name: getattr(state, name) for name in TARGET_STATE}
    after = counted(before, event.timestamp, _value(event))
    return replace(state, **{name: _number(name, value) for name, value in after.items()})


def remember(
    state: UserState, event: FeatureEvent, *, max_history: int = MAX_HISTORY, once: bool = True
) -> UserState:
    """Return the state with the event added to USER_HISTORY; USER_STATE is unchanged.

    Events without an item are ignored. With `once`, a history contains an item only once: the event
    replaces the item's entry, or is ignored if that entry is newer. Without it, every event is
    added.
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
    index = bisect_right(times, event.timestamp)
    items.insert(index, event.item_id)
    times.insert(index, event.timestamp)
    values.insert(index, _value(event))
    types.insert(index, event.type_code)
    return replace(
        state,
        items=items[-max_history:],
        times=times[-max_history:],
        values=values[-max_history:],
        types=types[-max_history:],
    )


def _value(event: FeatureEvent) -> float:
    """Return the event's value; NaN if it is missing or not finite."""
    finite = event.value is not None and math.isfinite(event.value)
    return float(event.value) if event.value is not None and finite else float("nan")


def _number(name: str, value: Any) -> Any:
    return int(value) if name.endswith("_time") else float(value)
