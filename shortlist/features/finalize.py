"""Computes features from stored states: `finalize(state, at)`.

A *state* is a mergeable aggregate: a decayed sum with its last time, day buckets, a last-N list.
Batch SQL builds states from the stored events, and Feast stores them. Events posted since then are
added to a user's state at each request. A *feature* is what a model reads. `finalize` stands for
the vectorised numpy functions of this module, shared by training, evaluation and service. The store
holds states rather than features because features change without new events: a count over the last
7 days falls as time passes.

Shapes: B requests, N items, C candidates. `at` is int64 microseconds UTC.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from shortlist.behaviour.counting import HALF_LIFE, HISTORY_KEEPS, TARGET_STATE
from shortlist.behaviour.refusals import (
    MAX_REFUSED,
    RATED,
    REFUSING,
    TAKING_BACK,
    USER_REFUSALS,
    Refusals,
)
from shortlist.columns import MICROSECONDS_PER_DAY, MICROSECONDS_PER_HOUR
from shortlist.contracts import EVENT_TYPES
from shortlist.features.event_groups import (
    EVENT_GROUPS,
    ITEM_GROUP_FEATURES,
    ITEM_GROUP_STATE,
    RATES,
    USER_GROUP_FEATURES,
    USER_GROUP_STATE,
    group_features,
)
from shortlist.features.rhythm import SESSION_GAP, USUAL_GAPS, rhythm
from shortlist.features.searches import (
    MAX_QUERY,
    MAX_SEARCHES,
    USER_SEARCH_FEATURES,
    USER_SEARCHES,
    Searches,
    user_search_features,
)

DAY_BUCKETS = 30
"""Length of an item's list of daily counts, newest day last."""
MAX_HISTORY = 1000
"""Maximum length of a user's history, and of the history a model may read.

It is long, because filters exclude the items in it that the user has already chosen.
"""

USER_STATE = tuple(f"user_{name}" for name in TARGET_STATE)
USER_HISTORY = ("history_items", "history_times", "history_values", "history_types")
USER_PROFILE = ("attributes_json",)
ITEM_STATE = (*(f"item_{name}" for name in TARGET_STATE), "item_day_counts")
PACK_STATE = (*ITEM_STATE, *ITEM_GROUP_STATE)
"""All state columns of an item, as stored in a feature pack."""
ITEM_TICK = "item_tick_time"
"""Column with the tick (time at which item features change) of a stored item row.

A reader at a later tick shifts the row's day counts.
"""
CONTEXT_STATE = ("context_events", "context_decayed", "context_last_time")
CONTEXT_ON_DEMAND = ("hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "is_weekend")

USER_TARGET_FEATURES = (
    "user_events_log",
    "user_recent_activity",
    "user_hours_since_last_log",
    "user_days_since_first_log",
    "user_mean_value",
    "user_value_trend",
    "user_session_depth_log",
    "user_usual_gap_log",
)
USER_FEATURES = (*USER_TARGET_FEATURES, *USER_GROUP_FEATURES, *USER_SEARCH_FEATURES)
ITEM_FEATURES = (
    "item_events_log",
    "item_count_1d_log",
    "item_count_7d_log",
    "item_count_14d_log",
    "item_count_30d_log",
    "item_trend",
    "item_mean_value",
    "item_value_trend",
    "item_days_since_first_log",
    "item_days_since_last_log",
    "item_published_years_ago",
    *ITEM_GROUP_FEATURES,
)
CONTEXT_FEATURES = (*CONTEXT_ON_DEMAND, "context_activity_log")

REQUEST_SERVICE = "request_v7"
"""Feast feature service read once per request: user state, history, profile, context."""
ITEM_SERVICE = "item_pack_v5"
"""Feast feature service read for the whole catalogue after each featurize, to build the feature
pack (the file of item features).
"""
ITEMS_AS_OF = "tick"
"""Time as of which item features are computed; part of the schema hash."""


def schema_hash() -> str:
    """Return a short hash of all feature definitions that training and serving must share."""
    schema = [
        [*USER_STATE, *USER_GROUP_STATE],
        [*USER_HISTORY, EVENT_TYPES, HISTORY_KEEPS],
        [*USER_SEARCHES, MAX_SEARCHES, MAX_QUERY],
        [*USER_REFUSALS, MAX_REFUSED, REFUSING, TAKING_BACK, RATED],
        USER_PROFILE,
        [*PACK_STATE, ITEM_TICK],
        [EVENT_GROUPS, [asdict(rate) for rate in RATES]],
        CONTEXT_STATE,
        USER_FEATURES,
        ITEM_FEATURES,
        CONTEXT_FEATURES,
        [HALF_LIFE, DAY_BUCKETS, MAX_HISTORY, SESSION_GAP, USUAL_GAPS],
        [REQUEST_SERVICE, ITEM_SERVICE],
        ITEMS_AS_OF,
    ]
    return hashlib.sha256(json.dumps(schema).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class RequestRows:
    """States of B requests as of each request's time, as returned by a feature reader.

    Unknown users have a state of zeros, an empty history and no attributes.
    """

    user_ids: list[str]
    context_ids: list[str]
    at: np.ndarray  # (B,) int64 microseconds
    user: dict[
        str, np.ndarray
    ]  # USER_STATE, USER_GROUP_STATE: (B,) float64, times int64, lists 2-D
    history_items: list[list[str]]  # oldest first, at most MAX_HISTORY, strictly before `at`
    history_times: list[np.ndarray]  # int64, aligned with history_items
    history_values: list[np.ndarray]  # float64, NaN where the event had no value
    history_types: list[np.ndarray]  # int64 EVENT_CODE, 0 where unknown
    attributes: list[dict[str, str]]
    context: dict[str, np.ndarray]  # CONTEXT_STATE and CONTEXT_ON_DEMAND: (B,)
    searches: list[Searches]  # strictly before `at`
    refusals: list[Refusals]  # strictly before `at`
    stamps: dict[str, np.ndarray] = field(default_factory=dict)
    """Feature view -> (B,) int64 microseconds: stamp of the row read from the online store.

    It is the time up to which the row contains all events; newer posted events are added after the
    read. 0 if there is no row. The dict is empty if the states were not read online.
    """

    def __len__(self) -> int:
        return len(self.user_ids)

    def take(self, rows: np.ndarray) -> "RequestRows":
        """Return the requests at these positions, in this order."""
        return RequestRows(
            user_ids=[self.user_ids[i] for i in rows],
            context_ids=[self.context_ids[i] for i in rows],
            at=self.at[rows],
            user={name: values[rows] for name, values in self.user.items()},
            history_items=[self.history_items[i] for i in rows],
            history_times=[self.history_times[i] for i in rows],
            history_values=[self.history_values[i] for i in rows],
            history_types=[self.history_types[i] for i in rows],
            attributes=[self.attributes[i] for i in rows],
            context={name: values[rows] for name, values in self.context.items()},
            searches=[self.searches[i] for i in rows],
            refusals=[self.refusals[i] for i in rows],
            stamps={view: stamps[rows] for view, stamps in self.stamps.items()},
        )

    @property
    def as_of(self) -> dict[str, np.ndarray]:
        """Feature view -> (B,) int64 time of the newest event in its state, 0 without events."""
        return {
            "user_stats": self.user["user_last_time"].astype(np.int64),
            "user_event_groups": self.user["user_group_last_time"].astype(np.int64),
            "user_searches": np.array([held.last_time for held in self.searches], dtype=np.int64),
            "context_trend": self.context["context_last_time"].astype(np.int64),
        }

    @property
    def user_as_of(self) -> np.ndarray:
        """(B,) int64 time of the newest event in any user state, 0 for an unknown user."""
        return np.maximum.reduce([t for view, t in self.as_of.items() if view != "context_trend"])


def decay(amount: np.ndarray, elapsed: np.ndarray) -> np.ndarray:
    """Decay a sum by `elapsed` microseconds with HALF_LIFE; a negative `elapsed` counts as 0."""
    return amount * np.exp2(-np.maximum(elapsed, 0) / HALF_LIFE)


def context_id(*, surface: str | None, device: str | None, at: int) -> str:
    """Return the Feast entity key of a context: `surface|device|hour of day` (UTC)."""
    hour = at // MICROSECONDS_PER_HOUR % 24
    return f"{surface or 'unknown'}|{device or 'unknown'}|{hour:02d}"


def time_features(at: np.ndarray) -> dict[str, np.ndarray]:
    """Return CONTEXT_ON_DEMAND features from request times of any shape.

    Time of day and day of the week are each encoded as sine and cosine; `is_weekend` is 1 on
    Saturday and Sunday (UTC).
    """
    angle = 2 * np.pi * (at % MICROSECONDS_PER_DAY) / MICROSECONDS_PER_DAY
    weekday = (at // MICROSECONDS_PER_DAY + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    return {
        "hour_sin": np.sin(angle),
        "hour_cos": np.cos(angle),
        "weekday_sin": np.sin(2 * np.pi * weekday / 7),
        "weekday_cos": np.cos(2 * np.pi * weekday / 7),
        "is_weekend": (weekday >= 5).astype(np.float64),
    }


def finalize_user(rows: RequestRows) -> np.ndarray:
    """Return the user features of B requests: (B, len(USER_FEATURES)) float32."""
    state, at = rows.user, rows.at
    known = state["user_events"] > 0
    since_last = np.where(known, at - state["user_last_time"], 0) / MICROSECONDS_PER_HOUR
    since_first = np.where(known, at - state["user_first_time"], 0) / MICROSECONDS_PER_DAY
    depth, gap = rhythm(rows.history_times, at)
    return _columns(
        [
            np.log1p(state["user_events"]),
            np.log1p(decay(state["user_decayed"], at - state["user_last_time"])),
            np.log1p(np.maximum(since_last, 0)),
            np.log1p(np.maximum(since_first, 0)),
            _mean(state["user_value_sum"], state["user_value_count"]),
            value_trend("user", state, at),
            np.log1p(depth),
            np.log1p(gap / MICROSECONDS_PER_HOUR),
            *_group_features("user", state, at),
            *user_search_features(rows.searches, at),
        ]
    )


def finalize_context(rows: RequestRows) -> np.ndarray:
    """Return the context features of B requests: (B, len(CONTEXT_FEATURES)) float32."""
    state = rows.context
    activity = decay(state["context_decayed"], rows.at - state["context_last_time"])
    return _columns([state[name] for name in CONTEXT_ON_DEMAND] + [np.log1p(activity)])


def _columns(values: list[np.ndarray]) -> np.ndarray:
    """Return F arrays (B,) as columns, (B, F) float32; quick for small B."""
    columns = np.concatenate(values).reshape(len(values), -1)
    return np.ascontiguousarray(columns.T, dtype=np.float32)


def finalize_items(
    state: Mapping[str, np.ndarray], *, as_of: int, published_at: np.ndarray
) -> np.ndarray:
    """Return the item features from item states: (..., len(ITEM_FEATURES)) float32.

    They are as of the tick of the feature pack, not of a request, so a service computes them once
    per pack.

    Args:
        state: PACK_STATE columns of shape (...); `item_day_counts` is (..., DAY_BUCKETS), the
            event-group lists have the shapes given in `event_groups`.
        as_of: the pack's tick, microseconds. The day buckets end there.
        published_at: (...) int64 microseconds, 0 where unknown.
    """
    days = state["item_day_counts"]
    known = state["item_events"] > 0
    count_7d = days[..., -7:].sum(-1)
    before = days[..., :-7].sum(-1) * (7 / (DAY_BUCKETS - 7))
    at = np.array(as_of, dtype=np.int64)
    since_first = np.where(known, at - state["item_first_time"], 0) / MICROSECONDS_PER_DAY
    since_last = np.where(known, at - state["item_last_time"], 0) / MICROSECONDS_PER_DAY
    years = np.where(published_at != 0, (at - published_at) / (365.25 * MICROSECONDS_PER_DAY), 0)
    return np.stack(
        [
            np.log1p(state["item_events"]),
            np.log1p(days[..., -1]),
            np.log1p(count_7d),
            np.log1p(days[..., -14:].sum(-1)),
            np.log1p(days.sum(-1)),
            np.log1p(count_7d) - np.log1p(before),
            _mean(state["item_value_sum"], state["item_value_count"]),
            value_trend("item", state, at),
            np.log1p(np.maximum(since_first, 0)),
            np.log1p(np.maximum(since_last, 0)),
            years,
            *_group_features("item", state, at),
        ],
        axis=-1,
    ).astype(np.float32)


def _group_features(
    prefix: str, state: Mapping[str, np.ndarray], at: np.ndarray
) -> list[np.ndarray]:
    counts, decayed = state[f"{prefix}_group_counts"], state[f"{prefix}_group_decayed"]
    return group_features(counts, decayed, at - state[f"{prefix}_group_last_time"])


def value_trend(prefix: str, state: Mapping[str, np.ndarray], at: np.ndarray) -> np.ndarray:
    """Return the mean of recent values (decayed by HALF_LIFE) minus the mean of all values.

    The recent mean is smoothed with one event at the overall mean, so the trend fades to 0 when
    there are no recent events.
    """
    elapsed = at - state[f"{prefix}_last_time"]
    total = decay(state[f"{prefix}_value_decayed"], elapsed)
    weight = decay(state[f"{prefix}_value_weight"], elapsed)
    mean = _mean(state[f"{prefix}_value_sum"], state[f"{prefix}_value_count"])
    return (total - mean * weight) / (weight + 1)


def _mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return `total / count`, 0 where `count` is 0."""
    return np.divide(total, count, out=np.zeros(np.shape(total)), where=count > 0)
