"""Descriptions of all stored state fields, as shown by Feast's registry and UI.

The features that models read are described in descriptions.py. feature_repo/definitions.py raises
an error for a field that has no description here.
"""

from shortlist.features.event_groups import EVENT_GROUPS
from shortlist.features.finalize import CONTEXT_STATE, DAY_BUCKETS, MAX_HISTORY
from shortlist.features.searches import MAX_SEARCHES

_TARGET = {
    "events": "number of target events",
    "decayed": "target events, each halved every 7 days, as of the last one",
    "last_time": "time of the newest target event, microseconds UTC, 0 if none",
    "first_time": "time of the first target event, microseconds UTC, 0 if none",
    "value_sum": "sum of the values (rating, price paid, seconds watched) of target events",
    "value_count": "number of target events that have a value",
    "value_decayed": "sum of values, each halved every 7 days, as of the last event",
    "value_weight": "target events with a value, each halved every 7 days, as of the last event",
}
_IN_ORDER = f"in the order {', '.join(EVENT_GROUPS)}"
_GROUPS = {
    "group_counts": f"number of events of each event group, {_IN_ORDER}",
    "group_decayed": (
        f"events of each event group, {_IN_ORDER}, each halved every 7 days, as of the newest event"
    ),
    "group_last_time": "time of the newest event of any event group, microseconds UTC",
    "group_first_time": "time of the first event of any event group, microseconds UTC",
}
_NEWEST = f"of the user's newest {MAX_HISTORY} items, oldest first"

MEANINGS = {
    "user_id": "the user's id, a string",
    "item_id": "the item's id, a string",
    "context_id": "surface | device | hour of day (UTC)",
    **{
        f"{prefix}_{name}": f"{meaning}; of the {prefix}"
        for prefix in ("user", "item")
        for name, meaning in (_TARGET | _GROUPS).items()
    },
    **{
        name: f"{_TARGET[name.removeprefix('context_')]}; of the surface, device and hour"
        for name in CONTEXT_STATE
    },
    "item_day_counts": (
        f"target events of each of the {DAY_BUCKETS} days before item_tick_time, newest last"
    ),
    "item_tick_time": "the tick of this row, microseconds UTC",
    "history_items": f"ids {_NEWEST}; each item once, or every event if repeats are allowed",
    "history_times": f"times of the events {_NEWEST}, microseconds UTC",
    "history_values": f"values of the events {_NEWEST}; NaN if the event has none",
    "history_types": (
        f"event types {_NEWEST}, as positions in contracts.EVENT_TYPES counted from 1; 0 if unknown"
    ),
    "search_queries": f"the user's newest {MAX_SEARCHES} search queries, oldest first",
    "search_times": "times of search_queries, microseconds UTC",
    "search_count": "number of searches of all time",
    "refused_items": "items with negative feedback that was not withdrawn, oldest first",
    "refused_times": "times of the refusals, microseconds UTC",
    "attributes_json": "the user's attributes as a JSON object of strings",
    "request_at": "the request's time, microseconds UTC",
}
"""Field of a feature view -> description."""
