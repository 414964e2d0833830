"""Small data sets with a known best answer, shared by the tests of all models."""

import numpy as np
import pytest

from models.data import TrainingData, Validation
from models.recommend.queries import build_queries
from shortlist.behaviour.refusals import NO_REFUSALS
from shortlist.contracts import EVENT_CODE
from shortlist.features.event_groups import empty_group_state
from shortlist.features.finalize import (
    CONTEXT_STATE,
    DAY_BUCKETS,
    HALF_LIFE,
    RequestRows,
    context_id,
    time_features,
)
from shortlist.features.pack import ItemState
from shortlist.features.profiles import ProfileEncoder
from shortlist.features.searches import NO_SEARCHES
from tests.models.small_data import DAY, START, catalogue_of, queries_of, state_of, training_data


def make_checkerboard(*, users: int = 60, items: int = 30) -> tuple[TrainingData, Validation]:
    """Return checkerboard data: even users consume even items, odd users odd items.

    Two items of each user are held out as relevant items. The idea is from the recommender tests of
    benfred/implicit.
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
    """Return data of users who each prefer one category; a profile attribute mostly names it.

    Each user has six sessions of 3 to 7 events. Four of five events are of the preferred category,
    with higher values. The last three days are the validation window, with one tick per day and one
    request at the start of each session. Histories and item states contain all earlier days.
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
    """Build a request per user at the first event of `today`, with the events `own` as history."""
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
    """Return the decay weight of each event, for sorted times, as of the last one."""
    return np.exp2((times - times[-1:].sum()) / HALF_LIFE)


def state_at(
    item: np.ndarray, time: np.ndarray, value: np.ndarray, tick: int, num_items: int
) -> ItemState:
    """Build item states from the events (sorted by time) strictly before `tick`."""
    before = time < tick
    item, time, value = item[before], time[before], value[before]
    size = num_items + 1
    count = np.bincount(item, minlength=size).astype(np.float64)
    last, first = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    last[item] = time  # of repeated items, numpy keeps the last time
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
    """120 users, 80 items in four categories, 24 days, and three validation ticks."""
    return make_small_world()


@pytest.fixture(scope="session")
def checkerboard() -> tuple[TrainingData, Validation]:
    """60 users and 30 items; a model that has learned the pattern reaches an nDCG of 1."""
    return make_checkerboard()
