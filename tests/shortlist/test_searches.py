"""Search states, compared with a direct computation and with event-by-event updates."""

import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.columns import MICROSECONDS_PER_HOUR as HOUR
from shortlist.feature_store.states.target_sql import BACKFILL_LAG
from shortlist.features.searches import (
    MAX_QUERY,
    MAX_SEARCHES,
    NO_SEARCHES,
    USER_SEARCHES,
    Searches,
)
from tests.examples import examples
from tests.shortlist.states import (
    RATED,
    START,
    UNTIL,
    Arrived,
    asof,
    build,
    build_in_parts,
    write,
)


def oracle(seen: list[tuple[int, Arrived]]) -> dict[str, Any]:
    """Compute the state directly from all searches, given as pairs (event_order, event)."""
    newest = sorted(seen, key=lambda pair: (pair[1].t, pair[1].known, pair[0], pair[1].query))
    newest = newest[-MAX_SEARCHES:]
    return {
        "search_queries": [e.query for _, e in newest],
        "search_times": [e.t for _, e in newest],
        "search_count": len(seen),
    }


def assert_point_in_time(events: list[tuple[int, Arrived]], features: Path) -> None:
    """Compare states at and around the times of each search with `oracle`."""
    asked = [(n, e) for n, e in events if e.event_type == "search" and e.query]
    edges = {e.known for _, e in asked} | {e.t for _, e in asked}
    near = sorted({m + d for m in edges for d in (-1, 0, 1) if m + d <= UNTIL})
    moments = [(user, at) for user in ("u", "v") for at in near]
    rows = asof(features, "user_searches", "user_id", moments)
    for (user, at), state in zip(moments, rows, strict=True):
        seen = [(n, e) for n, e in asked if e.user_id == user and e.t < at and e.known <= at]
        want = oracle(seen) if seen else dict.fromkeys(USER_SEARCHES)
        assert {name: state[name] for name in want} == want


searched = st.lists(
    st.builds(
        lambda user_id, day, offset, lag, query, event_type: Arrived(
            user_id,
            "a",
            START + day * DAY + offset,
            START + day * DAY + offset + lag,
            None,
            event_type,
            query,
        ),
        user_id=st.sampled_from(["u", "u", "v"]),
        day=st.sampled_from([0, 1, 2, 33]),
        offset=st.sampled_from([0, 1, 5 * HOUR, DAY - 1]),
        lag=st.sampled_from([0, 0, 1, HOUR, 2 * DAY, BACKFILL_LAG + 1]),
        query=st.sampled_from(["tea", "red boots", "don't \"'\n🫖", "", None]),
        event_type=st.sampled_from(["search", "search", "search", "impression"]),
    ),
    min_size=1,
    max_size=16,
)


@settings(max_examples=examples(10), deadline=None)
@given(events=searched, cuts=st.lists(st.integers(0, 40), max_size=3, unique=True))
def test_no_state_sees_what_had_not_been_asked_or_arrived(
    events: list[Arrived], cuts: list[int]
) -> None:
    """States are point-in-time correct; incremental builds give the rows of a full rebuild."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        batches = build_in_parts(events, folder, cuts=cuts, until=UNTIL, rated=RATED)
        known = [pair for batch in batches for pair in enumerate(batch)]  # (event_order, event)
        assert_point_in_time(known, folder / "features")
        rows = [
            pq.read_table(folder / root / "user_searches")
            .sort_by([("user_id", "ascending"), ("event_timestamp", "ascending")])
            .to_pylist()
            for root in ("features", "anew")
        ]
        assert rows[0] == rows[1]


@settings(max_examples=examples(10), deadline=None)
@given(
    times=st.lists(st.sampled_from([0, 1, 2, DAY, DAY + 1]), min_size=1, max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_pushing_builds_what_the_batch_says(times: list[int], order: Any) -> None:
    """Updates event by event give the batch states after each search, also for late searches.

    In the lake, each search arrives a microsecond after the previous one.
    """
    order.shuffle(times)
    first = START + 2 * DAY
    arrived = [
        Arrived("u", "a", START + t, first + n, None, "search", f"query {n}")
        for n, t in enumerate(times)
    ]
    moments = [("u", e.known) for e in arrived]
    with tempfile.TemporaryDirectory() as folder:
        files = [write([RATED, *arrived], Path(folder) / "b.parquet")]
        build(files, Path(folder) / "features", until=first + len(times))
        rows = asof(Path(folder) / "features", "user_searches", "user_id", moments)
    state = NO_SEARCHES
    for event, row in zip(arrived, rows, strict=True):
        assert event.query is not None
        state = state.with_search(event.query, timestamp=event.t)
        assert {name: row[name] for name in USER_SEARCHES} == state.columns()


def test_a_long_query_is_cut_alike_in_both_paths(tmp_path: Path) -> None:
    query = "🫖" * (MAX_QUERY - 1) + "äöü"
    asked = Arrived("u", "a", START, START, None, "search", query)
    build([write([RATED, asked], tmp_path / "b.parquet")], tmp_path / "features", until=UNTIL)
    (row,) = asof(tmp_path / "features", "user_searches", "user_id", [("u", UNTIL)])
    assert row["search_queries"] == [query[:MAX_QUERY]]
    assert NO_SEARCHES.with_search(query, timestamp=START).queries == (query[:MAX_QUERY],)


def test_an_online_state_is_cut_strictly_before_the_request() -> None:
    held = Searches(("a", "b", "c"), (10, 20, 30), 8)
    assert held.before(31) is held
    assert held.before(30) == Searches(("a", "b"), (10, 20), 7)
    assert held.before(10) == Searches((), (), 5)


def test_ratings_alone_make_no_rows_and_a_search_that_left_builds_anew(tmp_path: Path) -> None:
    """Searches that were removed from the lake, as `shortlist forget` does, leave all parts."""
    features = tmp_path / "features"
    rated = write([RATED], tmp_path / "rated.parquet")
    assert build([rated], features, until=START + DAY)["user_searches"] == 0
    assert pq.read_table(features / "user_searches").num_rows == 0
    asked = [
        Arrived("u", "a", START + DAY + n, START + DAY + n, None, "search", "tea") for n in range(3)
    ]
    found = write(asked, tmp_path / "asked.parquet")
    rows = build([rated, found], features, until=START + 2 * DAY)
    assert (rows["user_searches"], rows["user_stats"]) == (3, 0)  # one more part, without a rebuild
    write(asked[:2], found)
    assert build([rated, found], features, until=START + 3 * DAY)["user_searches"] == 2
    write([Arrived(**vars(e) | {"query": "chess"}) for e in asked[:2]], found)
    assert build([rated, found], features, until=START + 4 * DAY)["user_searches"] == 2
    (state,) = asof(features, "user_searches", "user_id", [("u", START + 4 * DAY)])
    assert state["search_queries"] == ["chess", "chess"]
    assert build([rated], features, until=START + 5 * DAY)["user_searches"] == 0
    assert pq.read_table(features / "user_searches").num_rows == 0
