"""Random streams of events, some of which arrive late, and a comparison of feature rows."""

from typing import Any

import numpy as np
import pyarrow as pa

from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.columns import MICROSECONDS_PER_HOUR as HOUR
from shortlist.config import Settings
from shortlist.contracts import EVENT_CODE, EVENT_TYPES, INTERACTIONS, ITEMS, TIMESTAMP, USERS
from shortlist.feature_store import FeatureEvent
from shortlist.features.event_groups import EVENT_GROUPS, NUM_GROUPS
from shortlist.features.finalize import RequestRows
from shortlist.lake import Lake

START = 19_000 * DAY
TARGETS = ("rating", "like")
CODES = [EVENT_CODE[name] for name in TARGETS]
USERS_HERE = ["u0", "u1", "u2", "u3"]


def arrivals(n: int, *, seed: int, start: int) -> list[tuple[FeatureEvent, int]]:
    """Return n random pairs (event, time of arrival), in order of arrival.

    About 30% arrive up to six hours late. About 67% are target events; the others are searches or
    belong to an event group.
    """
    rng = np.random.default_rng(seed)
    happened = np.sort(start + rng.integers(1, DAY, size=n))
    arrived = happened + np.where(rng.random(n) < 0.3, rng.integers(1, 6 * HOUR, size=n), 0)
    events = []
    for t, when in zip(happened, arrived, strict=True):
        target = bool(rng.random() < 0.67)
        searched = not target and bool(rng.random() < 0.4)
        event = FeatureEvent(
            str(rng.choice(USERS_HERE)),
            f"i{rng.integers(8)}",
            int(t),
            float(rng.integers(1, 6)) if rng.random() < 0.8 else None,
            target=target,
            group=None if target or searched else int(rng.integers(NUM_GROUPS)),
            type_code=int(rng.choice(CODES)) if target else 0,
            query=f"query {rng.integers(9)}" if searched else None,
        )
        events.append((event, int(when)))
    return sorted(events, key=lambda pair: pair[1])


def event_type(event: FeatureEvent) -> str:
    if event.query is not None:
        return "search"
    if event.group is None:
        return EVENT_TYPES[event.type_code - 1]
    return list(EVENT_GROUPS.values())[event.group][-1]


def as_posted(event: FeatureEvent, when: int, *, event_id: str) -> dict[str, Any]:
    """Return the event as the service stores it, with `when` as its time of arrival."""
    return {
        "event_id": event_id,
        "user_id": event.user_id,
        "item_id": event.item_id,
        "event_type": event_type(event),
        "event_timestamp": event.timestamp,
        "value": event.value,
        "query": event.query,
        "received_at": when,
    }


def publish(settings: Settings, name: str, events: list[tuple[FeatureEvent, int]]) -> None:
    n = len(events)
    columns = {
        "event_id": [f"{name}-{i}" for i in range(n)],
        "user_id": [event.user_id for event, _ in events],
        "item_id": [event.item_id for event, _ in events],
        "event_type": [event_type(event) for event, _ in events],
        "event_timestamp": pa.array([e.timestamp for e, _ in events], pa.int64()).cast(TIMESTAMP),
        "event_order": range(n),
        "ingested_at": pa.array([when for _, when in events], pa.int64()).cast(TIMESTAMP),
        "value": [event.value for event, _ in events],
        "query": [event.query for event, _ in events],
        "surface": ["web"] * n,
        "source": ["service:1.jsonl"] * n,
    }
    table = pa.table(
        [pa.array(columns.get(f.name, [None] * n), f.type) for f in INTERACTIONS],
        schema=INTERACTIONS,
    )
    items = [
        {"item_id": f"i{i}", "title": "", "categories": [], "available": True} for i in range(8)
    ]
    users = [{"user_id": user, "attributes": [("group", user)]} for user in USERS_HERE]
    Lake(settings.lake).publish(
        name,
        table,
        pa.Table.from_pylist(items, schema=ITEMS),
        pa.Table.from_pylist(users, schema=USERS),
    )


def assert_same(a: RequestRows, b: RequestRows) -> None:
    assert a.history_items == b.history_items
    assert a.attributes == b.attributes
    assert a.searches == b.searches
    assert a.refusals == b.refusals
    for mine, yours in zip(
        a.history_times + a.history_values + a.history_types,
        b.history_times + b.history_values + b.history_types,
        strict=True,
    ):
        np.testing.assert_array_equal(mine, yours)
    for name in a.user:
        # The tolerance covers weights below 2^-64 (5e-20), which batch sums leave out.
        np.testing.assert_allclose(a.user[name], b.user[name], rtol=1e-9, atol=1e-18, err_msg=name)
