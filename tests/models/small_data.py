"""Catalogues, queries, item states and training data of a few rows."""

import numpy as np
import pyarrow as pa

from models.data import TrainingData
from models.queries import Queries
from shortlist import columns as c
from shortlist.features.event_groups import empty_group_state
from shortlist.features.finalize import CONTEXT_FEATURES, DAY_BUCKETS, ITEM_STATE, USER_FEATURES
from shortlist.features.pack import ItemState
from shortlist.features.searches import NO_SEARCHES
from shortlist.items.catalogue import Catalogue

DAY = c.MICROSECONDS_PER_DAY
START = 1_700_000_000_000_000


def catalogue_of(categories: list[list[str]]) -> Catalogue:
    """Return items i001, i002, ... with these categories; item_idx is the number in the id."""
    n = len(categories)
    return Catalogue.from_items(
        pa.table(
            {
                c.ITEM_ID: [f"i{i + 1:03d}" for i in range(n)],
                c.TITLE: [
                    f"{' '.join(names)} number {i + 1}" for i, names in enumerate(categories)
                ],
                c.CATEGORIES: pa.array(categories, pa.list_(pa.string())),
                c.AVAILABLE: [True] * n,
            }
        )
    )


def queries_of(histories: list[list[int]], *, length: int = 50, users: list[str] | None = None):
    """Return queries with these histories (item_idx, oldest first), one event per minute."""
    n = len(histories)
    history = np.zeros((n, length), dtype=np.int64)
    time = np.zeros((n, length), dtype=np.int64)
    for row, items in enumerate(histories):
        newest = items[-length:]
        history[row, : len(newest)] = newest
        time[row, : len(newest)] = START + np.arange(len(newest)) * 60_000_000
    return Queries(
        user_ids=users or [f"u{row}" for row in range(n)],
        at=np.full(n, START + DAY),
        history=history,
        history_time=time,
        history_value=np.where(history > 0, 4, np.nan).astype(np.float32),
        history_type=np.zeros_like(history),
        seen=[np.array(items, dtype=np.int64) for items in histories],
        user=np.zeros((n, len(USER_FEATURES)), dtype=np.float32),
        context=np.zeros((n, len(CONTEXT_FEATURES)), dtype=np.float32),
        profile=np.ones((n, 1), dtype=np.int64),
        searches=[NO_SEARCHES] * n,
    )


def state_of(counts: np.ndarray) -> ItemState:
    """Return item states in which item i has counts[i] events, all on the newest day."""
    state = {name: counts.astype(np.float64) for name in ITEM_STATE} | empty_group_state(
        "item", len(counts)
    )
    days = np.zeros((len(counts), DAY_BUCKETS), dtype=np.int64)
    days[:, -1] = counts
    state["item_day_counts"] = days
    state["item_last_time"] = np.where(counts > 0, START, 0).astype(np.int64)
    state["item_first_time"] = np.where(counts > 0, START, 0).astype(np.int64)
    return ItemState(pack_id="test", as_of=START + DAY, state=state)


def training_data(catalogue: Catalogue, histories: list[list[int]]) -> TrainingData:
    lengths = [len(items) for items in histories]
    n = sum(lengths)
    return TrainingData(
        catalogue=catalogue,
        user_ids=[f"u{row}" for row in range(len(histories))],
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        item_idx=np.array([item for items in histories for item in items], dtype=np.int64),
        time=np.concatenate([START + np.arange(m) * 60_000_000 for m in lengths]),
        value=np.full(n, 4, dtype=np.float32),
        type_code=np.zeros(n, dtype=np.int64),
        profile=np.ones((len(histories), 1), dtype=np.int64),
        profile_cardinalities=(2,),
    )
