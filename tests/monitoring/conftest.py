"""Builders of small serving logs and interactions, and synthetic windows for the reports."""

import numpy as np
import pyarrow as pa
import pytest

from monitoring.windows import SharedData, Window
from shortlist.contracts import INTERACTIONS, ITEMS, SERVING_LOG, USERS
from shortlist.items.catalogue import Catalogue

HOUR = 3_600_000_000
START = 1_700_006_400_000_000  # midnight UTC


def as_table(rows: list[dict], schema: pa.Schema) -> pa.Table:
    columns = {}
    for field in schema:
        values = [row.get(field.name) for row in rows]
        plain = pa.int64() if pa.types.is_timestamp(field.type) else field.type
        columns[field.name] = pa.array(values, plain).cast(field.type)
    return pa.table(columns, schema=schema)


def log_table(slates: list[dict]) -> pa.Table:
    """Build a serving log from slates.

    Args:
        slates: dicts with request_id, user_id, at and items. The keys sources, scores, features,
            known and skipped are optional.
    """
    rows = []
    for slate in slates:
        for place, item_id in enumerate(slate["items"]):
            rows.append(
                {
                    "request_id": slate["request_id"],
                    "release_id": "r",
                    "arm": "main",
                    "user_id": slate["user_id"],
                    "context_id": f"web|unknown|{slate['at'] // HOUR % 24:02d}",
                    "event_timestamp": slate["at"],
                    "user_as_of": slate["at"] - 1 if slate.get("known", True) else None,
                    "delta_epoch": 0,
                    "rules_version": "1",
                    "skipped_stages": slate.get("skipped", []),
                    "item_id": item_id,
                    "position": place + 1,
                    "source": slate.get("sources", ["ease"] * 99)[place],
                    "score": float(slate.get("scores", range(99, 0, -1))[place]),
                    "propensity": 1.0,
                    "features": list(slate.get("features", [[0.0]] * 99)[place]),
                }
            )
    return as_table(rows, SERVING_LOG)


def event_table(events: list[tuple]) -> pa.Table:
    """Build INTERACTIONS.

    Args:
        events: (user_id, item_id, microseconds, value), optionally with request_id and event_type.
    """
    return as_table(
        [
            {
                "event_id": f"e{n}",
                "user_id": event[0],
                "item_id": event[1],
                "event_type": event[5] if len(event) > 5 else "rating",
                "event_timestamp": event[2],
                "event_order": n,
                "ingested_at": 0,
                "value": event[3],
                "request_id": event[4] if len(event) > 4 else None,
                "source": "test",
            }
            for n, event in enumerate(events)
        ],
        INTERACTIONS,
    )


def shared_data(num_items: int, *, k: int, features: tuple[str, ...], users: int = 0) -> SharedData:
    """Return shared data with items i1, i2, ... in three categories.

    Item n has num_items + 1 - n past events.
    """
    ids = [f"i{n}" for n in range(1, num_items + 1)]
    items = [
        {
            "item_id": item_id,
            "title": item_id.upper(),
            "categories": [("comedy", "drama", "science")[n % 3]],
            "available": True,
        }
        for n, item_id in enumerate(ids)
    ]
    catalogue = Catalogue.from_items(as_table(items, ITEMS))
    counts = np.zeros(num_items + 1, dtype=np.int64)
    counts[catalogue.vocab.encode(ids)] = np.arange(num_items, 0, -1)
    people = [{"user_id": f"u{u}", "attributes": [("group", "ab"[u % 2])]} for u in range(users)]
    return SharedData(
        catalogue=catalogue,
        item_counts=counts,
        feature_names=features,
        target_events=("rating",),
        users=as_table(people, USERS),
        k=k,
    )


FEATURES = ("steady", "moving", "constant")
NUM_ITEMS, NUM_USERS, K = 40, 60, 5


def synthetic_window(
    name: str,
    *,
    start: int,
    seed: int,
    shift: float = 0.0,
    narrow: bool = False,
    history: bool = False,
) -> Window:
    """Return a window of ten days with 300 requests of five items, and events an hour after each.

    Args:
        shift: added to the feature 'moving' and to the scores.
        narrow: show the same five items of one category in all requests.
        history: add events before the window.
    """
    rng = np.random.default_rng(seed)
    slates, events = [], []
    for n, at in enumerate(np.sort(rng.integers(0, 240, size=300)) * HOUR + start):
        user = int(rng.integers(NUM_USERS))
        shown = rng.choice(NUM_ITEMS, size=K, replace=False) + 1
        if narrow:
            shown = np.arange(K) * 3 + 1
        taken = set(rng.choice(NUM_ITEMS, size=3, replace=False) + 1) | {shown[0]}
        features = rng.normal(size=(K, len(FEATURES)))
        features[:, 1] += shift
        features[:, 2] = 1.0
        slates.append(
            {
                "request_id": f"{name}-{n}",
                "user_id": f"{name}-u{user}" if n % 2 else f"u{user}",
                "at": int(at),
                "items": [f"i{item}" for item in shown],
                "sources": [("ease", "two_tower")[s] for s in rng.integers(2, size=K)],
                "scores": rng.normal(size=K) + shift,
                "features": features,
            }
        )
        if n % 3 == 0 and history:
            events.append((f"old{n}", f"i{shown[-1]}", start - HOUR * n - 1, 3.0))
        events += [
            (slates[-1]["user_id"], f"i{item}", int(at) + HOUR, float(rng.integers(1, 6)))
            for item in taken
        ]
    return Window(name, log_table(slates), event_table(events))


@pytest.fixture(scope="session")
def build():
    """The functions of this module that build logs, events and windows."""

    class Build:
        hour, start = HOUR, START
        log = staticmethod(log_table)
        events = staticmethod(event_table)
        shared = staticmethod(shared_data)
        window = staticmethod(synthetic_window)

        @staticmethod
        def synthetic_shared() -> SharedData:
            return shared_data(NUM_ITEMS, k=K, features=FEATURES, users=NUM_USERS)

    return Build
