"""Batch states, compared with event-by-event updates and a direct computation from all events."""

import math
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.contracts import EVENT_CODE
from shortlist.feature_store.online.user_state import FeatureEvent, UserState, update_user_state
from shortlist.feature_store.states.item_days import last_24_hours, shift_day_counts
from shortlist.feature_store.states.running_sql import OLDEST, SPAN, origin_of
from shortlist.features.finalize import (
    DAY_BUCKETS,
    HALF_LIFE,
    ITEM_STATE,
    MAX_HISTORY,
    USER_STATE,
    context_id,
)
from tests.examples import examples
from tests.shortlist.states import (
    DECAYED,
    START,
    TYPES,
    Arrived,
    asof,
    build,
    snapshots,
    write,
)

CODES = tuple(EVENT_CODE[name] for name in TYPES)


def assert_same(batch: dict[str, Any], state: UserState) -> None:
    want = state.columns()
    for name in (*USER_STATE, "history_items", "history_times"):
        if name in batch:
            assert batch[name] == (
                pytest.approx(want[name], rel=1e-9) if name in DECAYED else want[name]
            ), name
    if "history_values" in batch:
        assert batch["history_types"] == want["history_types"]
        assert batch["history_values"] == pytest.approx(want["history_values"], nan_ok=True)


# Few users, items and times, so that ties and repeats are common. Gaps last up to SPAN.
events_of_anyone = st.lists(
    st.builds(
        FeatureEvent,
        user_id=st.sampled_from(["u", "v"]),
        item_id=st.sampled_from(["a", "b", "c", "d"]),
        timestamp=st.sampled_from(
            [
                *(START + offset for offset in (0, 1, 2, DAY, 5_000 * DAY, 5_001 * DAY)),
                *(START + SPAN + offset for offset in (-DAY, -1, 0)),
            ]
        ),
        value=st.sampled_from([None, float("nan"), 1.0, 4.5]),
        type_code=st.sampled_from(CODES),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=examples(25), deadline=None)
@given(events=events_of_anyone, rng=st.randoms(use_true_random=False))
def test_batch_states_are_what_pushing_builds(
    events: list[FeatureEvent], rng: random.Random
) -> None:
    """Updates event by event give the states of the batch build, also if events are late."""
    events.sort(key=lambda event: event.timestamp)
    with tempfile.TemporaryDirectory() as folder:
        found = snapshots(events, Path(folder))
    for view in ("user_stats", "user_history"):
        for row in found[view]:
            seen = [e for e in events if e.user_id == row["user_id"] and e.timestamp < row["stamp"]]
            assert row["stamp"] == seen[-1].timestamp + 1
            state = UserState()
            for event in seen:
                state = update_user_state(state, event)
            assert_same(row, state)
            # Late events: the order of updates has no effect, except between events of one time.
            times = sorted({event.timestamp for event in seen})
            rng.shuffle(times)
            late = UserState()
            for time in times:
                for event in seen:
                    if event.timestamp == time:
                        late = update_user_state(late, event)
            assert_same(row, late)
    moments = {(event.user_id, event.timestamp + 1) for event in events}
    assert {(row["user_id"], row["stamp"]) for row in found["user_stats"]} == moments
    assert len(found["user_stats"]) == len(found["user_history"]) == len(moments)


def random_events(n: int, *, seed: int) -> list[FeatureEvent]:
    rng = random.Random(seed)
    events = [
        FeatureEvent(
            user_id=rng.choice(["u", "v", "w"]),
            item_id=rng.choice("abcdefgh"),
            timestamp=START + rng.randrange(80) * DAY + rng.choice([0, 5, 7, DAY - 1]),
            value=rng.choice([None, 1.0, 3.0]),
            type_code=rng.choice(CODES),
        )
        for _ in range(n)
    ]
    return sorted(events, key=lambda event: event.timestamp)


def decayed_sum(times: list[int]) -> float:
    return sum(2.0 ** ((t - max(times)) / HALF_LIFE) for t in times)


def summary(seen: list[FeatureEvent], prefix: str) -> dict[str, Any]:
    """Compute the state directly from all events that it may contain."""
    times = [event.timestamp for event in seen]
    valued = [(event.timestamp, event.value) for event in seen if event.value is not None]
    values = [value for _, value in valued]
    weights = [2.0 ** ((t - max(times)) / HALF_LIFE) for t, _ in valued]
    return {
        f"{prefix}_events": len(seen),
        f"{prefix}_decayed": pytest.approx(decayed_sum(times), rel=1e-9),
        f"{prefix}_last_time": max(times),
        f"{prefix}_first_time": min(times),
        f"{prefix}_value_sum": sum(values),
        f"{prefix}_value_count": len(values),
        f"{prefix}_value_decayed": pytest.approx(np.dot(weights, values), rel=1e-9),
        f"{prefix}_value_weight": pytest.approx(sum(weights), rel=1e-9),
    }


def test_no_state_sees_an_event_at_or_after_its_stamp(tmp_path: Path) -> None:
    events = random_events(150, seed=1)
    until = START + 70 * DAY + DAY // 2
    found = snapshots(events, tmp_path, until=until)
    events = [event for event in events if event.timestamp < until]

    for row in found["user_stats"]:
        seen = [e for e in events if e.user_id == row["user_id"] and e.timestamp < row["stamp"]]
        assert {name: row[name] for name in USER_STATE} == summary(seen, "user")
    for row in found["user_history"]:
        seen = [e for e in events if e.user_id == row["user_id"] and e.timestamp < row["stamp"]]
        newest: dict[str, FeatureEvent] = {}
        for event in seen:
            newest.pop(event.item_id, None)
            newest[event.item_id] = event
        assert row["history_items"] == list(newest)
        assert row["history_times"] == [event.timestamp for event in newest.values()]
        assert row["history_types"] == [event.type_code for event in newest.values()]
    for row in found["context_trend"]:
        assert row["stamp"] % DAY == 0
        seen = [
            e
            for e in events
            if e.timestamp < row["stamp"]
            and context_id(surface="web", device=None, at=e.timestamp) == row["context_id"]
        ]
        expected = summary(seen, "context")
        for name in ("context_events", "context_decayed", "context_last_time"):
            assert row[name] == expected[name]


def test_items_at_every_tick_are_what_the_events_before_it_say(tmp_path: Path) -> None:
    events = random_events(60, seed=2)
    until = START + 140 * DAY
    rows = snapshots(events, tmp_path, until=until)["item_state"]
    assert all(row["stamp"] % DAY == 0 and row["stamp"] <= until for row in rows)
    for item in {event.item_id for event in events}:
        of_item = sorted((r for r in rows if r["item_id"] == item), key=lambda r: r["stamp"])
        for tick in range(START, until + 1, DAY):
            seen = [e for e in events if e.item_id == item and e.timestamp < tick]
            newest = [row for row in of_item if row["stamp"] <= tick]
            if not seen:
                assert not newest
                continue
            counts = [
                sum(tick - age * DAY <= e.timestamp < tick - (age - 1) * DAY for e in seen)
                for age in range(DAY_BUCKETS, 0, -1)
            ]
            want = summary(seen, "item") | {"item_day_counts": counts}
            row = newest[-1]
            assert row["item_tick_time"] == row["stamp"]
            later = np.array((tick - row["stamp"]) // DAY)
            moved = shift_day_counts(np.array(row["item_day_counts"]), later)
            got = row | {"item_day_counts": moved.tolist()}
            assert {name: got[name] for name in ITEM_STATE} == want


def test_what_happens_later_changes_no_earlier_row(tmp_path: Path) -> None:
    """States built up to a cut equal the rows before the cut in a build of all events."""
    events = random_events(120, seed=3)
    cut = next(e.timestamp for e in events if e.timestamp % DAY and e.timestamp > START + 40 * DAY)
    (tmp_path / "all").mkdir()
    (tmp_path / "cut").mkdir()
    whole = snapshots(events, tmp_path / "all")
    known = snapshots(events, tmp_path / "cut", until=cut)
    for view in ("user_stats", "user_history", "item_state", "context_trend"):
        earlier = [row for row in whole[view] if row["stamp"] <= cut]
        assert sorted(map(repr, known[view])) == sorted(map(repr, earlier))
        assert len(earlier) < len(whole[view])


def test_only_the_newest_items_are_kept(tmp_path: Path) -> None:
    items = [f"i{n}" for n in range(MAX_HISTORY + 2)]
    events = [FeatureEvent("u", item, START + i) for i, item in enumerate(items)]
    rows = snapshots(events, tmp_path)["user_history"]
    newest = max(rows, key=lambda row: row["stamp"])
    assert newest["history_items"] == items[2:]
    assert newest["history_times"] == [START + i for i in range(2, len(items))]
    assert all(math.isnan(value) for value in newest["history_values"])
    assert sorted(len(row["history_items"]) for row in rows)[-3:] == [MAX_HISTORY] * 3
    state = UserState()
    for event in events[-4:]:
        state = update_user_state(state, event, max_history=2)
    assert (state.items, state.times) == (items[-2:], newest["history_times"][-2:])


def test_the_day_that_a_tick_cuts_is_filled_up_with_its_share_of_the_day_before() -> None:
    counts = np.zeros((2, DAY_BUCKETS))
    counts[:, -3:] = [8, 4, 2]
    six = np.array([START + DAY + DAY // 4, START + DAY])
    at_six, at_midnight = last_24_hours(counts, six)
    # At 06:00, a quarter of the day is over, so the last 24 hours include 3/4 of the day before.
    assert at_six[-3:].tolist() == [0.25 * 8, 0.25 * 4 + 0.75 * 8, 2 + 0.75 * 4]
    assert at_six[:-3].tolist() == [0] * 27
    assert at_midnight.tolist() == counts[1].tolist()


def test_an_item_that_fell_off_a_full_list_comes_back_alike(tmp_path: Path) -> None:
    """Updates event by event give the same history as the batch, even if the list is full.

    The user returns to an item that a full list has dropped, and a late event of another dropped
    item arrives.
    """
    items = [f"i{n}" for n in range(MAX_HISTORY + 2)]
    events = [FeatureEvent("u", item, START + i) for i, item in enumerate(items)]
    again = FeatureEvent("u", items[0], START + len(items))
    late = FeatureEvent("u", items[1], START)  # older than the events that the list dropped
    state = UserState()
    for event in [*events, again, late]:
        state = update_user_state(state, event)
    rows = snapshots(sorted([*events, again, late], key=lambda e: e.timestamp), tmp_path)
    newest = max(rows["user_history"], key=lambda row: row["stamp"])
    assert newest["history_items"] == state.items == [*items[3:], items[0]]
    assert newest["history_times"] == state.times


HUGE = 1e60


def visits(user: str, t: int, arrived: int, *, source: str = "test") -> list[Arrived]:
    return [
        Arrived(user, "a", t, arrived, value, event_type, source=source)
        for event_type, value in (("rating", HUGE), ("click", None))
    ]


def assert_finite(features: Path) -> None:
    for view in ("user_stats", "user_event_groups", "item_state", "item_event_groups"):
        rows = pq.read_table(features / view).to_pylist()
        names = [name for name in rows[0] if name.endswith(("_decayed", "_weight"))]
        assert names
        assert all(np.isfinite(row[name]).all() for row in rows for name in names), view


def test_events_of_before_the_oldest_weight_count_as_of_its_time(tmp_path: Path) -> None:
    """Bogus old dates make no state NaN or infinite, in a full build and in an added part."""
    newest = START + 5_000 * DAY
    oldest = origin_of(newest) + OLDEST * HALF_LIFE
    times = [0, DAY, oldest - DAY, oldest + HALF_LIFE, START, newest]
    files = [write([e for t in times for e in visits("u", t, t)], tmp_path / "log.parquet")]
    features = tmp_path / "features"
    build(files, features, until=newest + 1)
    assert_finite(features)
    moments = [("u", t + 1) for t in times]
    stats = asof(features, "user_stats", "user_id", moments)
    groups = asof(features, "user_event_groups", "user_id", moments)
    assert [row["user_last_time"] for row in stats] == times
    # The first three events count as of `oldest`; the fourth is a half-life later.
    want = [1, 2, 3, 1 + 3 / 2, pytest.approx(1), pytest.approx(1)]
    assert [row["user_decayed"] for row in stats] == want
    assert [row["user_value_decayed"] / HUGE for row in stats] == want
    assert [row["user_value_weight"] for row in stats] == want
    assert [row["user_group_decayed"][1] for row in groups] == want

    arrived = newest + 5
    posted = {"arrived": arrived, "source": "service:1.jsonl"}
    late = visits("u", 5, **posted) + visits("v", 5, **posted)
    files.append(write(late, tmp_path / "late.parquet"))
    build(files, features, until=newest + 10)
    build(files, tmp_path / "anew", until=newest + 10, anew=True)
    assert len(list((features / "user_stats").glob("*"))) == 2
    for folder in (features, tmp_path / "anew"):
        assert_finite(folder)
        moments = [("u", arrived), ("v", arrived)]
        stats = asof(folder, "user_stats", "user_id", moments)
        groups = asof(folder, "user_event_groups", "user_id", moments)
        assert [row["user_events"] for row in stats] == [len(times) + 1, 1]
        assert [row["user_last_time"] for row in stats] == [newest, 5]
        assert [row["user_decayed"] for row in stats] == [pytest.approx(1), 1]
        assert [row["user_group_counts"][1] for row in groups] == [len(times) + 1, 1]
        assert [row["user_group_decayed"][1] for row in groups] == [pytest.approx(1), 1]
