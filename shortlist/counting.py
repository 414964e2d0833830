"""What an event counts: one rule for the batch states, the tail of posted events and training.

1. An event counts once: its event_id tells a repeated post apart, in the tail as in the lake.
2. It counts from the moment at which it became known (`known_at`), so a late event changes no
   earlier state, and an event of a clock ahead waits until its time has passed.
3. Each of the run's target events counts in its user's state (`counted`), a repeat of an item like
   a new one, with or without an item, whether or not the catalogue knows the item.
4. A value counts if it is finite. Zero is a value; a missing one, NaN and infinity are not.
5. A history holds each item once, at the newest of its target events that are known, with that
   event's time, value and type. Where people may be recommended what they know (`[data] repeats`),
   it holds every one of these events. Events without an item aren't part of it.
6. Besides, every event whose type has a kind (`event_groups.GROUP_OF`) counts in the state of that
   kind, every search with a query among the last searches, and every refusal of an item
   (shortlist/refusals.py) among the refused items, whatever the target events are.

Three places implement the rule: `feature_store/states/target_sql.py` with `offline/event_lists.py`
(batch, in SQL), `feature_store/online/user_state.py` with `fold.py` (tail, event by event), and
`models/user_log.py` (training, all users at once). A property test compares them:
`tests/feature_repo/test_what_an_event_counts.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.contracts import BACKFILL_LAG

HALF_LIFE = 7 * MICROSECONDS_PER_DAY
"""Half-life of the decayed sums of target events, in microseconds."""
HISTORY_KEEPS = "newest"
"""Which of several events of an item a history holds; part of the feature schema."""
INBOX = "service:"
"""How the `source` of posted events begins; the inbox file's name follows."""
SHOWN = "serving_log"
"""The `source` of impressions."""
POSTED = (INBOX, SHOWN)
"""How the `source` of what a running service took or showed begins: known when it arrived, however
late.
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
"""State of a user or an item by the run's target events. `value_decayed` is the decayed sum of
values, `value_weight` the decayed count of events that have one; decayed is as of `last_time`.
"""


@dataclass(frozen=True)
class ListRules:
    """What a home's lists of a user's events hold: the same in the states and in the tail."""

    once: bool = True
    """A history holds each item once, not every event."""
    low_rating: float | None = None
    """A rating up to this value says that the user doesn't want the item; None: no rating does."""


def known_at(time: np.ndarray, arrived: np.ndarray, *, posted: np.ndarray) -> np.ndarray:
    """(E,) microseconds from which each event counts.

    Args:
        time: (E,) when it happened.
        arrived: (E,) when it reached the platform.
        posted: (E,) bool, whether its source begins with one of POSTED.
    """
    imported = ~posted & (arrived - time > BACKFILL_LAG)
    return np.where(imported, time + 1, np.maximum(time + 1, arrived))


def counted(state: Mapping[str, Any], time: Any, value: Any) -> dict[str, Any]:
    """TARGET_STATE with one event more. Numbers, or arrays with an entry a user.

    Args:
        state: TARGET_STATE, zeros before the first event.
        time: microseconds, in any order: late events are fine.
        value: NaN where the event has none.
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
