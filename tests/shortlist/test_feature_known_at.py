"""Point-in-time correctness of states, compared with a direct computation from all events.

A state contains no event that happened at or after its time or was ingested later. An incremental
build gives the same rows as a full rebuild.
"""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.columns import MICROSECONDS_PER_HOUR as HOUR
from shortlist.contracts import EVENT_TYPES
from shortlist.feature_store.states.build import VIEWS
from shortlist.feature_store.states.item_days import shift_day_counts
from shortlist.feature_store.states.snapshots import Snapshots
from shortlist.feature_store.states.target_sql import BACKFILL_LAG
from shortlist.features.finalize import DAY_BUCKETS, HALF_LIFE, USER_STATE
from shortlist.ticks import last_day, newest_tick
from tests.examples import examples
from tests.shortlist.states import DECAYED, START, TYPES, Arrived, arrivals, asof, build, write


def assert_point_in_time(
    events: list[Arrived], features: Path, *, until: int, tick: int = DAY
) -> None:
    edges = {e.known for e in events} | {e.t for e in events} | {e.t + 1 for e in events}
    near = sorted({m + d for m in edges for d in (-1, 0, 1) if m + d <= until})
    users = [(user, at) for user in ("u", "v") for at in near]
    stats = asof(features, "user_stats", "user_id", users)
    lists = asof(features, "user_history", "user_id", users)
    for (user, at), state, history in zip(users, stats, lists, strict=True):
        seen = [e for e in events if e.user_id == user and e.t < at and e.known <= at]
        if not seen:
            assert state["user_events"] is None
            assert history["history_items"] is None
            continue
        last = max(e.t for e in seen)
        assert [state[name] for name in USER_STATE if name not in DECAYED] == [
            len(seen),
            last,
            min(e.t for e in seen),
            sum(e.value for e in seen if e.value is not None),
            sum(e.value is not None for e in seen),
        ]
        decayed = sum(2.0 ** ((e.t - last) / HALF_LIFE) for e in seen)
        assert state["user_decayed"] == pytest.approx(decayed, rel=1e-9)
        valued = [(2.0 ** ((e.t - last) / HALF_LIFE), e.value) for e in seen if e.value is not None]
        assert state["user_value_decayed"] == pytest.approx(sum(w * v for w, v in valued), rel=1e-9)
        assert state["user_value_weight"] == pytest.approx(sum(w for w, _ in valued), rel=1e-9)
        newest: dict[str, int] = {}
        for event in seen:
            newest[event.item_id] = max(event.t, newest.get(event.item_id, event.t))
        assert sorted(history["history_times"]) == history["history_times"]
        assert dict(zip(history["history_items"], history["history_times"], strict=True)) == newest
        for item, code in zip(history["history_items"], history["history_types"], strict=True):
            types = {e.event_type for e in seen if (e.item_id, e.t) == (item, newest[item])}
            assert EVENT_TYPES[code - 1] in types
    around = {newest_tick(m, tick) + d * tick for m in edges for d in (0, 1, 2)}
    ticks = sorted({*range(START, until + 1, DAY), *(one for one in around if one <= until)})
    items = [(item, at) for item in ("a", "b", "c") for at in ticks]
    rows = asof(features, "item_state", "item_id", items)
    for (item, at), row in zip(items, rows, strict=True):
        seen = [e for e in events if e.item_id == item and e.known <= at]
        assert (row["item_events"] or 0) == len(seen)
        if seen:
            assert row["item_tick_time"] % tick == 0
            assert row["item_last_time"] == max(e.t for e in seen)
            # Counts are per calendar day; `today` is the day that ends at `at` or contains it.
            today = last_day(at)
            want = [
                sum(e.t // DAY == today - age for e in seen) for age in reversed(range(DAY_BUCKETS))
            ]
            days = np.array(today - last_day(row["item_tick_time"]))
            assert shift_day_counts(np.array(row["item_day_counts"]), days).tolist() == want


EVENTS = arrivals(
    item_ids=["a", "b", "c"],
    days=[0, 1, 2, 3, 33],
    lags=[0, 1, 2, HOUR, 2 * DAY, BACKFILL_LAG, BACKFILL_LAG + 1],
    values=[None, 1.0, 4.0],
    event_types=TYPES,
    max_size=10,
)


ticks = st.sampled_from([DAY, 6 * HOUR, HOUR])


@settings(max_examples=examples(10), deadline=None)
@given(events=EVENTS, tick=ticks)
def test_nothing_is_seen_before_it_happened_and_arrived(events: list[Arrived], tick: int) -> None:
    until = START + 45 * DAY
    with tempfile.TemporaryDirectory() as folder:
        files = [write(events, Path(folder) / "batch.parquet")]
        build(files, Path(folder) / "features", until=until, tick=tick)
        assert_point_in_time(events, Path(folder) / "features", until=until, tick=tick)


@settings(max_examples=examples(10), deadline=None)
@given(
    events=EVENTS,
    cuts=st.lists(st.integers(0, 40), min_size=1, max_size=3, unique=True),
    tick=ticks,
)
def test_a_part_more_says_what_building_anew_says(
    events: list[Arrived], cuts: list[int], tick: int
) -> None:
    """Featurize after each batch of events gives the same rows as one full rebuild."""
    edges = [*(START + cut * DAY + 6 * HOUR for cut in sorted(cuts)), START + 45 * DAY]
    with tempfile.TemporaryDirectory() as temporary:
        folder, files, start, built = Path(temporary), [], 0, False
        for number, edge in enumerate(edges):
            batch = [e for e in events if start <= e.ingested < edge]
            if batch:
                files.append(write(batch, folder / f"batch{number}.parquet"))
            start = edge
            if any(e.known <= edge and e.ingested < edge for e in events):
                build(files, folder / "features", until=edge, tick=tick)
                built = True
        if not built:
            return
        build(files, folder / "anew", until=edges[-1], tick=tick, anew=True)
        for view in VIEWS:
            rows = [
                sorted(
                    pq.read_table(root / view).to_pylist(),
                    key=lambda row: tuple(str(value) for value in row.values()),
                )
                for root in (folder / "features", folder / "anew")
            ]
            if view == "user_history":  # has events that a rebuild drops
                continue
            assert len(rows[0]) == len(rows[1]), view
            for mine, yours in zip(*rows, strict=True):
                assert mine.keys() == yours.keys()
                for name, value in mine.items():
                    if name.endswith(("_decayed", "_weight")):
                        assert value == pytest.approx(yours[name], rel=1e-9)
                    else:
                        assert value == yours[name], (view, name)
        assert_point_in_time(events, folder / "features", until=edges[-1], tick=tick)


def test_a_day_is_one_part_more_and_what_it_cannot_say_is_built_anew(tmp_path: Path) -> None:
    """New events add a part; other changes cause a full rebuild."""
    features = tmp_path / "features"

    def parts() -> int:
        return len(list((features / "user_stats").glob("*.parquet")))

    first = write([Arrived("u", "a", START, START)], tmp_path / "b0.parquet")
    build([first], features, until=START + DAY)
    day = write([Arrived("v", "b", START + DAY, START + DAY)], tmp_path / "b1.parquet")
    rows = build([first, day], features, until=START + 2 * DAY)
    assert (parts(), rows["user_stats"], rows["item_state"]) == (2, 1, 1)
    # Without new events, a part without rows is added. An earlier `until` causes a full rebuild.
    assert build([first, day], features, until=START + 3 * DAY)["user_stats"] == 0
    assert parts() == 3
    assert build([first, day], features, until=START + 2 * DAY)["user_stats"] == 2
    assert parts() == 1
    # Another tick of items causes a full rebuild, in both directions.
    hourly = {"until": START + 2 * DAY, "tick": HOUR}
    assert build([first, day], features, **hourly)["item_state"] == 2
    stamps = pq.read_table(features / "item_state").column("item_tick_time").to_pylist()
    assert (parts(), sorted(stamps)) == (1, [START + HOUR, START + DAY + HOUR])
    found = Snapshots.read(features)
    assert found is not None
    assert found.tick == HOUR
    build([first, day], features, until=START + 2 * DAY)
    assert parts() == 1
    # Imported history is older than the existing parts, so it causes a full rebuild.
    old = write([Arrived("u", "c", START - DAY, START + 30 * DAY)], tmp_path / "b2.parquet")
    assert build([first, day, old], features, until=START + 3 * DAY)["user_stats"] == 3
    assert parts() == 1
    # A changed lake file and a broken manifest each cause a full rebuild.
    write([Arrived("u", "a", START, START), Arrived("u", "b", START, START)], first)
    assert build([first, day, old], features, until=START + 4 * DAY)["user_history"] == 4
    assert parts() == 1
    (features / "manifest.json").write_text("{")
    assert Snapshots.read(features) is None
    build([first, day, old], features, until=START + 5 * DAY)
    assert parts() == 1
