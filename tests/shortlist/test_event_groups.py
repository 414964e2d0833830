"""Event-group states, compared with a direct computation and with event-by-event updates."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.behaviour.counting import HALF_LIFE
from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.columns import MICROSECONDS_PER_HOUR as HOUR
from shortlist.contracts import EVENT_TYPES
from shortlist.feature_store.online.event_group_state import (
    EventGroupState,
    update_event_group_state,
)
from shortlist.feature_store.states.running_sql import SPAN
from shortlist.feature_store.states.target_sql import BACKFILL_LAG
from shortlist.features.event_groups import (
    EVENT_GROUPS,
    GROUP_OF,
    NUM_GROUPS,
)
from tests.examples import examples
from tests.shortlist.states import (
    RATED,
    START,
    UNTIL,
    Arrived,
    arrivals,
    asof,
    build,
    build_in_parts,
    write,
)


def oracle(seen: list[Arrived], prefix: str) -> dict[str, Any]:
    """Compute the state directly from all events that it may contain."""
    last = max(e.t for e in seen)
    counts, decayed = [0.0] * NUM_GROUPS, [0.0] * NUM_GROUPS
    for place, types in enumerate(EVENT_GROUPS.values()):
        for e in seen:
            if e.event_type in types:
                counts[place] += 1
                decayed[place] += 2.0 ** ((e.t - last) / HALF_LIFE)
    return {
        f"{prefix}_group_counts": counts,
        f"{prefix}_group_decayed": pytest.approx(decayed, rel=1e-9, abs=1e-15),
        f"{prefix}_group_last_time": last,
        f"{prefix}_group_first_time": min(e.t for e in seen),
    }


def assert_point_in_time(events: list[Arrived], features: Path) -> None:
    """Compare user states around each event and item states at each midnight with `oracle`."""
    grouped = [e for e in events if e.event_type in GROUP_OF]
    edges = {e.known for e in grouped} | {e.t for e in grouped}
    near = sorted({m + d for m in edges for d in (-1, 0, 1) if m + d <= UNTIL})
    users = [(user, at) for user in ("u", "v") for at in near]
    ticks = [(item, START + day * DAY) for item in ("a", "b") for day in range(46)]
    for view, key, prefix, moments in (
        ("user_event_groups", "user_id", "user", users),
        ("item_event_groups", "item_id", "item", ticks),
    ):
        for (name, at), state in zip(moments, asof(features, view, key, moments), strict=True):
            mine = [e for e in grouped if getattr(e, key) == name]
            seen = [e for e in mine if e.t < at and e.known <= at]
            if not seen:
                assert state[f"{prefix}_group_counts"] is None
                continue
            want = oracle(seen, prefix)
            assert {column: state[column] for column in want} == want


EVENTS = arrivals(
    item_ids=["a", "b"],
    days=[0, 1, 2, 33],
    lags=[0, 1, HOUR, 2 * DAY, BACKFILL_LAG + 1],
    event_types=["rating", "like", *GROUP_OF],
    max_size=12,
)


@settings(max_examples=examples(15), deadline=None)
@given(events=EVENTS, cuts=st.lists(st.integers(0, 40), max_size=3, unique=True))
def test_no_state_sees_what_had_not_happened_or_arrived(
    events: list[Arrived], cuts: list[int]
) -> None:
    """States are point-in-time correct after full and incremental builds, with late events too."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        build_in_parts(events, folder, cuts=cuts, until=UNTIL, rated=RATED)
        known = [e for e in events if e.ingested < UNTIL]
        assert_point_in_time(known, folder / "features")
        for view in ("user_event_groups", "item_event_groups"):
            rows = [pq.read_table(folder / root / view).num_rows for root in ("features", "anew")]
            assert rows[0] == rows[1], view


@settings(max_examples=examples(15), deadline=None)
@given(
    events=st.lists(
        st.tuples(
            st.sampled_from([0, 1, DAY, 600 * DAY, 5_000 * DAY, SPAN - 1, SPAN]),
            st.sampled_from(sorted(GROUP_OF)),
        ),
        min_size=1,
        max_size=12,
    ),
    order=st.randoms(use_true_random=False),
)
def test_pushing_builds_what_the_batch_says(events: list[tuple[int, str]], order: Any) -> None:
    """Updates event by event, in any order, give the state of the batch build."""
    arrived = [
        Arrived("u", "a", START + t, START + t, None, event_type) for t, event_type in events
    ]
    arrived.sort(key=lambda e: e.t)
    until = START + max(t for t, _ in events) + 1
    with tempfile.TemporaryDirectory() as folder:
        files = [write([RATED, *arrived], Path(folder) / "b.parquet")]
        build(files, Path(folder) / "features", until=until)
        (row,) = asof(Path(folder) / "features", "user_event_groups", "user_id", [("u", until)])
    for late in (False, True):
        if late:
            order.shuffle(arrived)
        state = EventGroupState()
        for e in arrived:
            state = update_event_group_state(state, GROUP_OF[e.event_type], timestamp=e.t)
        for name, want in state.columns().items():
            assert row[name] == (
                pytest.approx(want, rel=1e-9, abs=1e-15) if name.endswith("decayed") else want
            )


def test_every_group_has_known_event_types_and_no_type_is_in_two() -> None:
    types = [name for types in EVENT_GROUPS.values() for name in types]
    assert set(types) <= set(EVENT_TYPES)
    assert len(types) == len(set(types)) == len(GROUP_OF)
    assert [GROUP_OF["view"], GROUP_OF["click"]] == [list(EVENT_GROUPS).index("clicks")] * 2


def test_ratings_alone_make_no_rows_and_an_impression_that_left_builds_anew(
    tmp_path: Path,
) -> None:
    features = tmp_path / "features"
    rated = write([RATED], tmp_path / "rated.parquet")
    rows = build([rated], features, until=START + 2 * DAY)
    assert (rows["user_event_groups"], rows["item_event_groups"], rows["user_stats"]) == (0, 0, 1)
    assert pq.read_table(features / "user_event_groups").num_rows == 0
    shown = [Arrived("u", "a", START + n, START + n, None, "impression") for n in range(3)]
    seen = write(shown, tmp_path / "seen.parquet")  # known before the last build, but a new file
    rows = build([rated, seen], features, until=START + 3 * DAY)
    assert (rows["user_event_groups"], rows["item_event_groups"], rows["user_stats"]) == (3, 1, 1)
    assert len(list((features / "user_event_groups").glob("*.parquet"))) == 1
    write(shown[:2], seen)
    assert build([rated, seen], features, until=START + 4 * DAY)["user_event_groups"] == 2
    (state,) = asof(features, "item_event_groups", "item_id", [("a", START + 4 * DAY)])
    np.testing.assert_array_equal(state["item_group_counts"], [2, 0, 0, 0, 0])
