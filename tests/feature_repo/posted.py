"""Random posted events, and the batch states built from them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from shortlist.behaviour.refusals import USER_REFUSALS
from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.columns import MICROSECONDS_PER_HOUR as HOUR
from shortlist.contracts import EVENT_TYPES, INTERACTIONS, ITEMS, TIMESTAMP, USERS
from shortlist.feature_store.request_rows import request_rows
from shortlist.features.event_groups import USER_GROUP_STATE
from shortlist.features.finalize import (
    CONTEXT_ON_DEMAND,
    CONTEXT_STATE,
    USER_HISTORY,
    USER_STATE,
    RequestRows,
)
from shortlist.features.searches import USER_SEARCHES
from tests.shortlist.states import asof

START = 10_000 * DAY
END = START + 60 * DAY
USERS_HERE = ("u", "v")
COLUMNS = {
    "user_stats": USER_STATE,
    "user_history": USER_HISTORY,
    "user_event_groups": USER_GROUP_STATE,
    "user_searches": USER_SEARCHES,
    "user_refusals": USER_REFUSALS,
}
posted_events = st.lists(
    st.builds(
        lambda user, item, event_type, day, offset, lag, age, value, again: {
            "user_id": user,
            "item_id": None if event_type == "search" and item == "i003" else item,
            "event_type": event_type,
            "event_timestamp": START + (day - age) * DAY + offset,
            "received_at": START + day * DAY + offset + lag,
            "value": value,
            "query": f"about {item}" if event_type == "search" else None,
            "again": again,
        },
        user=st.sampled_from(USERS_HERE),
        item=st.sampled_from(["i001", "i002", "i003", "gone"]),
        event_type=st.sampled_from(EVENT_TYPES + ("click", "purchase") * 5),
        day=st.sampled_from([0, 1, 1, 2, 12]),
        offset=st.sampled_from([0, 1, 2, 40 * 60_000_000, 5 * HOUR]),
        # From a client's clock that is an hour ahead, to a post that arrives twenty days late.
        lag=st.sampled_from([-HOUR, 0, 0, 0, 1, HOUR, 2 * DAY, 7 * DAY + 1, 20 * DAY]),
        # Days by which a client's clock is behind.
        age=st.sampled_from([*[0] * 7, 900, 9_900]),
        value=st.sampled_from([None, float("nan"), 0.0, 1.0, 4.5]),
        again=st.booleans(),
    ),
    min_size=1,
    max_size=14,
)
targets_here = st.sampled_from(
    [("click", "purchase"), ("rating",), ("search", "watch"), EVENT_TYPES]
)


def table_of(events: list[dict[str, Any]]) -> pa.Table:
    """Return posted events as ingest of the inbox writes them to the lake."""
    n = len(events)
    columns = {name: [event[name] for event in events] for name in events[0] if name != "again"}
    columns["ingested_at"] = pa.array(columns.pop("received_at"), pa.int64()).cast(TIMESTAMP)
    columns["event_timestamp"] = pa.array(columns["event_timestamp"], pa.int64()).cast(TIMESTAMP)
    columns |= {"event_order": range(n), "surface": ["web"] * n, "source": ["service:1.jsonl"] * n}
    return pa.table(
        [pa.array(columns.get(f.name, [None] * n), f.type) for f in INTERACTIONS],
        schema=INTERACTIONS,
    )


def batch_rows(features: Path, moments: list[tuple[str, int]]) -> RequestRows:
    """Return the batch states as of each (user, moment)."""
    columns: dict[str, list[Any]] = {}
    for view, names in COLUMNS.items():
        rows = asof(features, view, "user_id", moments)
        columns |= {name: [row[name] for row in rows] for name in names}
    users, at = [user for user, _ in moments], np.array([at for _, at in moments])
    unread = dict.fromkeys(
        ("attributes_json", *CONTEXT_STATE, *CONTEXT_ON_DEMAND), [None] * len(at)
    )
    return request_rows(users, [""] * len(users), at, columns | unread)


ITEMS_HERE = pa.Table.from_pylist(
    [
        {"item_id": f"i00{i}", "title": "", "categories": [], "available": True}
        for i in range(1, 10)
    ],
    schema=ITEMS,
)
PEOPLE = pa.Table.from_pylist([{"user_id": u, "attributes": []} for u in USERS_HERE], schema=USERS)
