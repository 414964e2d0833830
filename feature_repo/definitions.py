"""Feast definitions: entities, feature views over the state snapshots, and feature services.

A state is a stored aggregate of a user, item or context, such as counts, decayed sums or the newest
events. A snapshot is the folder of Parquet files that holds the states of one view.

Only Feast imports this file (`feast -c feature_repo apply`). All definitions are in one file,
because Feast treats definitions imported from a second file as duplicates. Snapshots are read from
SHORTLIST_HOME, or from var/ beside this folder if it is not set.

docs/features.md ("To add a feature") lists the places to edit for a new state; a Field here is one
of them. Tests fail while one of these places is missing.
"""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, RequestSource
from feast.data_format import ParquetFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float64, Int64, String
from feast.value_type import ValueType

from shortlist.features.finalize import CONTEXT_FEATURES, USER_FEATURES
from shortlist.features.state_descriptions import MEANINGS

HOME = Path(os.environ.get("SHORTLIST_HOME") or Path(__file__).resolve().parents[1] / "var")
(HOME / "feast").mkdir(parents=True, exist_ok=True)  # Feast doesn't create its registry's parents

FOREVER = timedelta(0)
"""No TTL: states never expire, because their age is a feature and `finalize` applies the decay."""

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)
context = Entity(
    name="context",
    join_keys=["context_id"],
    value_type=ValueType.STRING,
    description="surface | device | hour of day (UTC)",
)


def snapshot(name: str) -> FileSource:
    """Return the source of a view: the folder of Parquet files that `shortlist refresh` writes for
    it.
    """
    return FileSource(
        name=f"{name}_snapshot",
        path=str(HOME.absolute() / "features" / name),
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
    )


def push_source(name: str) -> PushSource:
    """Return a snapshot source to which programs can also push rows (`FeatureStore.push`).

    The service doesn't push: it keeps posted events in a separate file, the tail.
    """
    return PushSource(name=f"{name}_push", batch_source=snapshot(name))


def with_descriptions(*fields: Field) -> list[Field]:
    """Return the fields with their descriptions from MEANINGS.

    Raises:
        ValueError: MEANINGS lacks a field.
    """
    for field in fields:
        if field.name not in MEANINGS:
            raise ValueError(
                f"field {field.name} is not described; want a line in"
                " MEANINGS of shortlist/features/state_descriptions.py"
            )
        field.description = MEANINGS[field.name]
    return list(fields)


user_stats = FeatureView(
    name="user_stats",
    description="Counts, decayed activity, times and values of a user; one row per change",
    owner="platform",
    entities=[user],
    ttl=FOREVER,
    schema=with_descriptions(
        Field(name="user_id", dtype=String),
        Field(name="user_events", dtype=Float64),
        Field(name="user_decayed", dtype=Float64),
        Field(name="user_last_time", dtype=Int64),
        Field(name="user_first_time", dtype=Int64),
        Field(name="user_value_sum", dtype=Float64),
        Field(name="user_value_count", dtype=Float64),
        Field(name="user_value_decayed", dtype=Float64),
        Field(name="user_value_weight", dtype=Float64),
    ),
    source=push_source("user_stats"),
)

user_history = FeatureView(
    name="user_history",
    description="A user's newest events with times, values and types; optionally one per item",
    owner="platform",
    entities=[user],
    ttl=FOREVER,
    schema=with_descriptions(
        Field(name="user_id", dtype=String),
        Field(name="history_items", dtype=Array(String)),
        Field(name="history_times", dtype=Array(Int64)),
        Field(name="history_values", dtype=Array(Float64)),
        Field(name="history_types", dtype=Array(Int64)),
    ),
    source=push_source("user_history"),
    tags={"rows": "events"},  # rows are single events; the offline store collects them into lists
)


def event_group_fields(prefix: str) -> list[Field]:
    """Return the fields of the state by event group (similar event types, such as click and view).

    Args:
        prefix: "user" or "item".
    """
    return [
        Field(name=f"{prefix}_group_counts", dtype=Array(Float64)),
        Field(name=f"{prefix}_group_decayed", dtype=Array(Float64)),
        Field(name=f"{prefix}_group_last_time", dtype=Int64),
        Field(name=f"{prefix}_group_first_time", dtype=Int64),
    ]


user_event_groups = FeatureView(
    name="user_event_groups",
    description="Counts and decayed sums of a user by event group",
    owner="platform",
    entities=[user],
    ttl=FOREVER,
    schema=with_descriptions(
        Field(name="user_id", dtype=String),
        *event_group_fields("user"),
    ),
    source=push_source("user_event_groups"),
)

user_searches = FeatureView(
    name="user_searches",
    description="A user's newest search queries with times, and the number of all searches",
    owner="platform",
    entities=[user],
    ttl=FOREVER,
    schema=with_descriptions(
        Field(name="user_id", dtype=String),
        Field(name="search_queries", dtype=Array(String)),
        Field(name="search_times", dtype=Array(Int64)),
        Field(name="search_count", dtype=Int64),
    ),
    source=push_source("user_searches"),
)

user_refusals = FeatureView(
    name="user_refusals",
    description="Items that a user refused, with times (shortlist/behaviour/refusals.py)",
    owner="platform",
    entities=[user],
    ttl=FOREVER,
    schema=with_descriptions(
        Field(name="user_id", dtype=String),
        Field(name="refused_items", dtype=Array(String)),
        Field(name="refused_times", dtype=Array(Int64)),
    ),
    source=snapshot("user_refusals"),
    tags={"rows": "events"},
)

user_profile = FeatureView(
    name="user_profile",
    description="Attributes of a user as JSON",
    owner="platform",
    entities=[user],
    ttl=FOREVER,
    schema=with_descriptions(
        Field(name="user_id", dtype=String),
        Field(name="attributes_json", dtype=String),
    ),
    source=snapshot("user_profile"),
)

item_state = FeatureView(
    name="item_state",
    description="Counts, decayed popularity, times, values and day counts of an item per tick",
    owner="platform",
    entities=[item],
    ttl=FOREVER,
    schema=with_descriptions(
        Field(name="item_id", dtype=String),
        Field(name="item_events", dtype=Float64),
        Field(name="item_decayed", dtype=Float64),
        Field(name="item_last_time", dtype=Int64),
        Field(name="item_first_time", dtype=Int64),
        Field(name="item_value_sum", dtype=Float64),
        Field(name="item_value_count", dtype=Float64),
        Field(name="item_value_decayed", dtype=Float64),
        Field(name="item_value_weight", dtype=Float64),
        Field(name="item_day_counts", dtype=Array(Int64)),
        Field(name="item_tick_time", dtype=Int64),
    ),
    source=snapshot("item_state"),
    online=False,  # the service reads items from the feature pack
)

item_event_groups = FeatureView(
    name="item_event_groups",
    description="Counts and decayed sums of an item by event group; one row per tick",
    owner="platform",
    entities=[item],
    ttl=FOREVER,
    schema=with_descriptions(
        Field(name="item_id", dtype=String),
        *event_group_fields("item"),
    ),
    source=snapshot("item_event_groups"),
    online=False,
)

context_trend = FeatureView(
    name="context_trend",
    description="Activity of a surface, device and hour of day; one row per tick",
    owner="platform",
    entities=[context],
    ttl=FOREVER,
    schema=with_descriptions(
        Field(name="context_id", dtype=String),
        Field(name="context_events", dtype=Float64),
        Field(name="context_decayed", dtype=Float64),
        Field(name="context_last_time", dtype=Int64),
    ),
    source=snapshot("context_trend"),
)

request = RequestSource(
    name="request", schema=with_descriptions(Field(name="request_at", dtype=Int64))
)


# Feast stores the function in the registry with dill and runs it without this file, so it must
# import and define everything it needs.
@on_demand_feature_view(
    sources=[request],
    schema=[  # Feast doesn't accept fields with a description here (feast#3617)
        Field(name="hour_sin", dtype=Float64),
        Field(name="hour_cos", dtype=Float64),
        Field(name="weekday_sin", dtype=Float64),
        Field(name="weekday_cos", dtype=Float64),
        Field(name="is_weekend", dtype=Float64),
    ],
    mode="python",
    description="Hour and weekday of the request (UTC) as sine and cosine; weekend flag",
    owner="platform",
)
def request_time(inputs: dict[str, Any]) -> dict[str, Any]:
    """Compute the features of `time_features` in shortlist/features/finalize.py; a test compares
    both.
    """
    import math

    day = 86_400_000_000
    hours = [2 * math.pi * (at % day) / day for at in inputs["request_at"]]
    weekdays = [(at // day + 3) % 7 for at in inputs["request_at"]]
    return {
        "hour_sin": [math.sin(angle) for angle in hours],
        "hour_cos": [math.cos(angle) for angle in hours],
        "weekday_sin": [math.sin(2 * math.pi * weekday / 7) for weekday in weekdays],
        "weekday_cos": [math.cos(2 * math.pi * weekday / 7) for weekday in weekdays],
        "is_weekend": [float(weekday >= 5) for weekday in weekdays],
    }


@on_demand_feature_view(
    sources=[request, user_stats, user_event_groups, user_searches, user_history, context_trend],
    schema=[Field(name=name, dtype=Float64) for name in (*USER_FEATURES, *CONTEXT_FEATURES)],
    mode="python",
    description="Features of user and context as models read them, computed from the states",
    owner="platform",
)
def request_features(inputs: dict[str, Any]) -> dict[str, Any]:
    """Compute the user and context features with the function that training and service use."""
    from shortlist.feature_store.request_rows import request_features

    return request_features(inputs)


request_v7 = FeatureService(
    name="request_v7",
    features=[
        user_stats,
        user_event_groups,
        user_searches,
        user_refusals,
        user_history,
        user_profile,
        context_trend,
        request_time,
    ],
    owner="platform",
    description="States of the user and context of a request, read once per request",
)

item_pack_v5 = FeatureService(
    name="item_pack_v5",
    features=[item_state, item_event_groups],
    owner="platform",
    description="States of all items, read once after each featurize to build the feature pack",
)

request_features_v1 = FeatureService(
    name="request_features_v1",
    features=[request_features],
    owner="platform",
    description="Finished features of user and context, for inspection and for other consumers;"
    " events posted since the last refresh are not in them",
)
