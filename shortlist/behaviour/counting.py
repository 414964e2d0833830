"""How events are counted: the rules shared by batch states, the tail and training.

A state is a stored aggregate of a user, item or context, such as counts, decayed sums or the newest
events. A refresh computes the states from the lake (the validated events). The tail holds the
posted events that no refresh has processed yet; each request adds its user's to the stored state.
Target events are those of the types that models learn to predict.

1. An event counts once, identified by its event_id, in the tail and in the lake.
2. An event counts from the time at which it became known: when it has happened and arrived
   (`known_at` has the exception for imported history). A late event therefore changes no earlier
   state, and an event with a time in the future waits until that time.
3. Every target event counts in the state of its user (`counted`): repeats of an item, events
   without an item, and events about items that the catalogue does not have.
4. A value (rating, price, seconds watched) counts if it is finite. Zero is a value; a missing
   value, NaN and infinity are not.
5. A history holds each item once, at its newest known target event, with that event's time, value
   and type. If repeats are allowed (`[data] repeats`), it holds every target event instead. Events
   without an item are not part of it.
6. Independent of the target events: an event whose type has an event group
   (`event_groups.GROUP_OF`) counts in the state of that group. A search with a query is added to
   the last searches. A refusal of an item (shortlist/behaviour/refusals.py) is added to the
   refused items.
7. A rating of `[data] like_threshold` or more also counts as a `like` right after it (`with_like`).
   Events that match `[data] exclude` count nowhere. Staging applies both rules to all events before
   they enter the lake. The tail applies them to posted events (datasets/posted.py evaluates
   `exclude`).

Three implementations follow these rules: `feature_store/states/target_sql.py` with
`offline/event_lists.py` (batch, in SQL), `feature_store/online/user_state.py` with `fold.py` (tail,
one event at a time), and `models/user_log.py` (training, all users at once). A property test
compares them: `tests/feature_repo/test_what_an_event_counts.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.contracts import BACKFILL_LAG

HALF_LIFE = 7 * MICROSECONDS_PER_DAY
"""Half-life of the decayed sums of target events, in microseconds."""
HISTORY_KEEPS = "newest"
"""Which event of an item a history keeps; part of the feature schema."""
INBOX = "service:"
"""Prefix of the `source` of posted events; the inbox file's name follows."""
SHOWN = "serving_log"
"""The `source` of impressions from the serving log."""
POSTED = (INBOX, SHOWN)
"""Prefixes of the `source` of events from a running service. Such events count as known when they
arrived, however late, and never as imported history.
"""

TARGET_STATE = (
    "events",
    "decayed",
    "last_time",
    "first_time",
    "value_sum",
    "value_count",
    "value_decayed",
    "value_weight",
)
"""State of a user or an item over the target events: counts, times and sums.

`value_decayed` is the decayed sum of values, `value_weight` the decayed count of events with a
value. Decayed sums are as of `last_time`, the time of the newest event.
"""


@dataclass(frozen=True)
class ListRules:
    """Rules for counting events and building lists of events (history, refusals).

    They apply to stored states, which a refresh computes, and to events posted since the last
    refresh (the tail).
    """

    once: bool = True
    """True: a history holds each item once. False: it holds every event."""
    low_rating: float | None = None
    """A rating up to this value counts as a refusal of the item; None: no rating does."""
    like_threshold: float | None = None
    """A rating of at least this value also counts as a `like`; None: no rating does.

    The lake stores these likes as separate events.
    """
    exclude: tuple[str, ...] = ()
    """SQL conditions of events that don't count. The lake does not store such events."""


LIKE_ID = "-like"
"""Suffix of the event_id of a `like` derived from a rating; the rating's event_id precedes it."""


def with_like(event: dict[str, Any], threshold: float | None) -> Iterator[dict[str, Any]]:
    """Yield a posted event and, if it is a rating of at least `threshold`, the derived `like`."""
    yield event
    value = event.get("value")
    if threshold is None or event["event_type"] != "rating" or value is None:
        return
    if value >= threshold:
        given = event.get("event_id")
        yield event | {"event_type": "like", "event_id": given and given + LIKE_ID}


def known_at(time: np.ndarray, arrived: np.ndarray, *, posted: np.ndarray) -> np.ndarray:
    """Return (E,) time in microseconds from which each event counts.

    Args:
        time: (E,) time of the event.
        arrived: (E,) time at which it reached the platform.
        posted: (E,) bool, whether its source starts with one of POSTED.
    """
    imported = ~posted & (arrived - time > BACKFILL_LAG)
    return np.where(imported, time + 1, np.maximum(time + 1, arrived))


def counted(state: Mapping[str, Any], time: Any, value: Any) -> dict[str, Any]:
    """Return TARGET_STATE after one more event, for a single user (numbers) or many users (arrays).

    Args:
        state: TARGET_STATE; zeros before the first event.
        time: microseconds; events may come in any order.
        value: NaN if the event has no value.
    """
    new = state["events"] == 0
    last = np.where(new, time, np.maximum(state["last_time"], time))
    aged = 2.0 ** ((state["last_time"] - last) / HALF_LIFE)
    weight = 2.0 ** ((time - last) / HALF_LIFE)
    valued = np.isfinite(value)
    amount = np.where(valued, value, 0.0)
    return {
        "events": state["events"] + 1,
        "decayed": state["decayed"] * aged + weight,
        "last_time": last,
        "first_time": np.where(new, time, np.minimum(state["first_time"], time)),
        "value_sum": state["value_sum"] + amount,
        "value_count": state["value_count"] + valued,
        "value_decayed": state["value_decayed"] * aged + amount * weight,
        "value_weight": state["value_weight"] * aged + valued * weight,
    }
