"""Small data sets with a known best answer, shared by the tests of all models."""

import numpy as np
import pyarrow as pa
import pytest

from models.data import TrainingData, Validation
from models.queries import Queries
from models.recommend.queries import build_queries
from shortlist import columns as c
from shortlist.catalogue import Catalogue
from shortlist.contracts import EVENT_CODE
from shortlist.features.event_groups import empty_group_state
from shortlist.features.finalize import (
    CONTEXT_FEATURES,
    CONTEXT_STATE,
    DAY_BUCKETS,
    HALF_LIFE,
    ITEM_STATE,
    USER_FEATURES,
    RequestRows,
    context_id,
    time_features,
)
from shortlist.features.pack import ItemState
from shortlist.features.profiles import ProfileEncoder
from shortlist.features.searches import NO_SEARCHES
from shortlist.refusals import NO_REFUSALS

DAY = c.MICROSECONDS_PER_DAY
START = 1_700_000_000_000_000


def catalogue_of(categories: list[list[str]]) -> Catalogue:
    """Items i001, i002, ... in the order given, so that item_idx is the number in the id."""
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
    """Queries with the given histories (item_idx, oldest first), one event per minute."""
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
    """Item states in which item i has counts[i] events, all on the newest day."""
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


def make_checkerboard(*, users: int = 60, items: int = 30) -> tuple[TrainingData, Validation]:
    """Checkerboard data: even users consume even items, odd users odd items.

    Two items of each user are left out as the relevant ones. After benfred/implicit's recommender
    tests.
    """
    rng = np.random.default_rng(0)
    catalogue = catalogue_of([["even" if i % 2 else "odd"] for i in range(items)])
    histories, wanted = [], []
    for user in range(users):
        own = np.arange(1, items + 1)
        own = rng.permutation(own[own % 2 == user % 2])
        histories.append(own[:-2].tolist())
        wanted.append(own[-2:])
    data = training_data(catalogue, histories)
    validation = Validation([(queries_of(histories), state_of(data.item_counts), wanted)])
    return data, validation


TASTES = ("comedy", "drama", "science", "war")


def make_small_world(
    *, users: int = 120, items: int = 80, days: int = 24, seed: int = 0
) -> tuple[TrainingData, Validation]:
    """Users who prefer one category, which their profile attribute usually names.

    Each has six sessions of 3 to 7 events. Four of five events are of the preferred category, with
    higher values. The last three days are the validation window: one tick per day, one request at
    the start of each session, with histories and item counts of everything before.
    """
    rng = np.random.default_rng(seed)
    kind = np.arange(items) % len(TASTES)
    catalogue = catalogue_of([[TASTES[k]] for k in kind])
    appeal = rng.gamma(1.5, size=items)
    taste = rng.integers(len(TASTES), size=users)
    told = np.where(rng.random(users) < 0.8, taste, rng.integers(len(TASTES), size=users))
    groups = [{"group": TASTES[t]} for t in told]
    events = []
    for user in range(users):
        left = np.ones(items, dtype=bool)
        for day in np.sort(rng.choice(days, size=6, replace=False)):
            time = START + int(day) * DAY + int(rng.integers(DAY // 2))
            for _ in range(int(rng.integers(3, 8))):
                own = (kind == taste[user]) == (rng.random() < 0.8)
                pool = own & left
                weight = appeal * (pool if pool.any() else left)
                item = int(rng.choice(items, p=weight / weight.sum()))
                left[item] = False
                value = np.clip(rng.normal(4 if kind[item] == taste[user] else 2.5, 0.8), 1, 5)
                events.append((time, user, item + 1, float(value), int(day)))
                time += int(rng.integers(1, 10)) * 60_000_000
    events.sort()
    time, user, item, value, day = (np.array(column) for column in zip(*events, strict=True))
    profiles = ProfileEncoder.fit(groups)
    old = np.flatnonzero(day < days - 3)
    old = old[np.argsort(user[old], kind="stable")]
    known, first = np.unique(user[old], return_index=True)
    data = TrainingData(
        catalogue=catalogue,
        user_ids=[f"u{u}" for u in known],
        offsets=np.append(first, len(old)),
        item_idx=item[old],
        time=time[old],
        value=value[old].astype(np.float32),
        type_code=np.full(len(old), EVENT_CODE["rating"]),
        profile=profiles.encode(groups[u] for u in known),
        profile_cardinalities=profiles.cardinalities,
    )
    ticks = []
    for last in range(days - 3, days):
        people = np.unique(user[day == last])
        own = [np.flatnonzero((user == u) & (day < last)) for u in people]
        today = [np.flatnonzero((user == u) & (day == last)) for u in people]
        rows = _request_rows(catalogue, people, time, item, value, own, today, groups)
        queries = build_queries(rows, catalogue=catalogue, profiles=profiles)
        tick = START + last * DAY
        ticks.append((queries, state_at(item, time, value, tick, items), [item[e] for e in today]))
    return data, Validation(ticks)


def _request_rows(catalogue, people, time, item, value, own, today, groups) -> RequestRows:
    """Requests at the first event of `today`, with the events of `own` before them as history."""
    at = np.array([time[events[0]] for events in today])
    count = np.array([len(events) for events in own], dtype=np.float64)
    return RequestRows(
        user_ids=[f"u{u}" for u in people],
        context_ids=[context_id(surface=None, device=None, at=int(now)) for now in at],
        at=at,
        user={
            "user_events": count,
            "user_decayed": np.array([weight_of(time[e]).sum() for e in own]),
            "user_last_time": np.array([time[e[-1]] if len(e) else 0 for e in own]),
            "user_first_time": np.array([time[e[0]] if len(e) else 0 for e in own]),
            "user_value_sum": np.array([value[e].sum() for e in own]),
            "user_value_count": count,
            "user_value_decayed": np.array([np.dot(weight_of(time[e]), value[e]) for e in own]),
            "user_value_weight": np.array([weight_of(time[e]).sum() for e in own]),
        }
        | empty_group_state("user", len(at)),
        history_items=[catalogue.vocab.decode(item[e]) for e in own],
        history_times=[time[e] for e in own],
        history_values=[value[e] for e in own],
        history_types=[np.full(len(e), EVENT_CODE["rating"]) for e in own],
        attributes=[groups[u] for u in people],
        context={name: np.zeros(len(at)) for name in CONTEXT_STATE} | time_features(at),
        searches=[NO_SEARCHES] * len(at),
        refusals=[NO_REFUSALS] * len(at),
    )


def weight_of(times: np.ndarray) -> np.ndarray:
    """Decayed count of events at the given sorted times, as of the last one."""
    return np.exp2((times - times[-1:].sum()) / HALF_LIFE)


def state_at(
    item: np.ndarray, time: np.ndarray, value: np.ndarray, tick: int, num_items: int
) -> ItemState:
    """Item states from the events (sorted by time) strictly before `tick`."""
    before = time < tick
    item, time, value = item[before], time[before], value[before]
    size = num_items + 1
    count = np.bincount(item, minlength=size).astype(np.float64)
    last, first = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    last[item] = time  # the last write wins
    first[item[::-1]] = time[::-1]
    days = np.zeros((size, DAY_BUCKETS), dtype=np.int64)
    ago = (tick - 1 - time) // DAY
    np.add.at(days, (item[ago < DAY_BUCKETS], DAY_BUCKETS - 1 - ago[ago < DAY_BUCKETS]), 1)
    weight = np.exp2(-(last[item] - time) / HALF_LIFE)
    decayed = np.bincount(item, weight, minlength=size)
    return ItemState(
        pack_id=str(tick),
        as_of=tick,
        state={
            "item_events": count,
            "item_decayed": decayed,
            "item_last_time": last,
            "item_first_time": first,
            "item_value_sum": np.bincount(item, value, minlength=size),
            "item_value_count": count,
            "item_value_decayed": np.bincount(item, value * weight, minlength=size),
            "item_value_weight": decayed,
            "item_day_counts": days,
        }
        | empty_group_state("item", size),
    )


@pytest.fixture(scope="session")
def small_world() -> tuple[TrainingData, Validation]:
    """120 users, 80 items of four categories, 24 days; times, values, profiles; three ticks."""
    return make_small_world()


@pytest.fixture(scope="session")
def checkerboard() -> tuple[TrainingData, Validation]:
    """60 users, 30 items; learned if the two relevant items are ranked first (nDCG 1)."""
    return make_checkerboard()
