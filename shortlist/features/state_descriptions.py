"""Every stored state in words, as Feast's UI and registry show it. What models read, the features
made of these, is described in descriptions.py.

A field of feature_repo/definitions.py without a line here is refused.
"""

from shortlist.features.event_groups import HALF_LIVES, KINDS
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
_IN_ORDER = f"in the order {', '.join(KINDS)}"
_KINDS = {
    "kind_counts": f"number of events of each kind, {_IN_ORDER}",
    "kind_decayed": (
        f"events of each kind, {_IN_ORDER}; a list for each half-life, {', '.join(HALF_LIVES)}, one"
        " after the other"
    ),
    "kind_last_time": "time of the newest event of any kind, microseconds UTC",
    "kind_first_time": "time of the first event of any kind, microseconds UTC",
}
_NEWEST = f"of the user's newest {MAX_HISTORY} items, oldest first"

MEANINGS = {
    "user_id": "the user's id, a string",
    "item_id": "the item's id, a string",
    "context_id": "surface | device | hour of day (UTC)",
    **{
        f"{prefix}_{name}": f"{meaning}; of the {prefix}"
        for prefix in ("user", "item")
        for name, meaning in (_TARGET | _KINDS).items()
    },
    **{
        name: f"{_TARGET[name.removeprefix('context_')]}; of the surface, device and hour"
        for name in CONTEXT_STATE
    },
    "item_day_counts": (
        f"target events of each of the {DAY_BUCKETS} days before item_tick_time, newest last"
    ),
    "item_tick_time": "the tick this row is of, microseconds",
    "history_items": f"ids {_NEWEST}, each once, or every event where repeats are allowed",
    "history_times": f"times of their newest events {_NEWEST}, microseconds UTC",
    "history_values": f"values of their newest events {_NEWEST}, NaN where there was none",
    "history_types": (
        f"types of their newest events {_NEWEST}: places in contracts.EVENT_TYPES from 1, 0 unknown"
    ),
    "search_queries": f"the user's newest {MAX_SEARCHES} search queries, oldest first",
    "search_times": "times of search_queries, microseconds UTC",
    "search_count": "number of searches ever",
    "refused_items": "items that the user refused and didn't take back, oldest first",
    "refused_times": "times of the refusals, microseconds UTC",
    "attributes_json": "the user's attributes as a JSON object of strings",
    "request_at": "the request's time, microseconds UTC",
}
"""Field of a feature view -> what it holds."""
