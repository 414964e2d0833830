"""Updates a user's event-group state by one event; the SQL counterpart is event_group_sql.py.

The state has a count and a decayed sum for each group of event types, such as clicks.
"""

from dataclasses import dataclass
from typing import Any

from shortlist.behaviour.counting import HALF_LIFE
from shortlist.features.event_groups import NUM_GROUPS
from shortlist.features.finalize import RequestRows


@dataclass(frozen=True)
class EventGroupState:
    """Event-group state of one user: the fields of USER_GROUP_STATE without the prefix."""

    counts: tuple[float, ...] = (0.0,) * NUM_GROUPS
    decayed: tuple[float, ...] = (0.0,) * NUM_GROUPS
    last_time: int = 0
    first_time: int = 0

    @classmethod
    def of(cls, rows: RequestRows, i: int) -> "EventGroupState":
        """Return the state of the user of request i."""
        user = rows.user
        return cls(
            counts=tuple(user["user_group_counts"][i].tolist()),
            decayed=tuple(user["user_group_decayed"][i].tolist()),
            last_time=int(user["user_group_last_time"][i]),
            first_time=int(user["user_group_first_time"][i]),
        )

    def columns(self) -> dict[str, Any]:
        """Return the state with the column names of USER_GROUP_STATE."""
        return {
            f"user_group_{name}": list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
        }


def update_event_group_state(
    state: EventGroupState, group: int, *, timestamp: int
) -> EventGroupState:
    """Return the state after one more event of event group `group` (position in EVENT_GROUPS).

    The event may be older than others in the state.
    """
    new = not any(state.counts)
    last_time = timestamp if new else max(state.last_time, timestamp)
    aged = 2.0 ** ((state.last_time - last_time) / HALF_LIFE)
    decayed = [amount * aged for amount in state.decayed]
    decayed[group] += 2.0 ** ((timestamp - last_time) / HALF_LIFE)
    counts = list(state.counts)
    counts[group] += 1
    return EventGroupState(
        counts=tuple(counts),
        decayed=tuple(decayed),
        last_time=last_time,
        first_time=timestamp if new else min(state.first_time, timestamp),
    )
