"""Base rows and tail: concurrent posts and refreshes lose no event and count none twice."""

import multiprocessing
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.featurize import featurize, featurize_flow
from services.events.event_log import EventLog
from shortlist.clock import HomeClock
from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.columns import MICROSECONDS_PER_HOUR as HOUR
from shortlist.config import Settings
from shortlist.feature_store import FeatureStoreError, OnlineReader, Tail
from shortlist.feature_store.online.fold import USER_VIEWS, fold
from shortlist.feature_store.online.tail import MAX_READ, known_at
from shortlist.features.finalize import RequestRows
from tests.examples import examples
from tests.feature_repo.streams import (
    START,
    TARGETS,
    USERS_HERE,
    arrivals,
    as_posted,
    assert_same,
    publish,
)

TYPES = ("rating", "like", "click", "purchase", "hide", "impression", "search", "survey")


def _post_ids(folder: Path, barrier: Any, queue: Any) -> None:
    log = EventLog(folder)
    barrier.wait()
    accepted = 0
    for i in range(100):
        accepted += len(
            log.append([{"event_id": f"e{i}", "user_id": "u1", "event_type": "rating"}])
        )
    queue.put(accepted)


def test_two_processes_that_post_the_same_events_accept_each_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_post_ids, args=(tmp_path, barrier, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    accepted = [queue.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert sum(accepted) == 100
    assert len(Tail(tmp_path).read(["u1"])["u1"]) == 100


RATED = {"event_id": "e1", "user_id": "u1", "item_id": "i1", "event_type": "rating"}


def test_an_event_that_reached_only_the_inbox_is_inserted_at_the_next_start(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    event = RATED | {"event_timestamp": START + 5}
    log.append([event | {"received_at": START + 6}])
    lost = Tail(tmp_path)
    lost._connection().execute("DELETE FROM tail")  # as if the process died before the insert
    assert lost.read(["u1"]) == {}
    log.close()
    EventLog(tmp_path, now=lambda: START + 10).close()
    ((found,),) = Tail(tmp_path).read(["u1"]).values()
    assert found["event_id"] == "e1"


def test_of_a_users_many_events_the_newest_are_read(tmp_path: Path) -> None:
    """The request of a robot that posted 100,000 events must not take seconds."""
    tail = Tail(tmp_path)
    posts = [
        {"event_id": f"e{n}", "user_id": "robot", "event_timestamp": 10_000 - n // 2}
        for n in range(MAX_READ + 5)
    ]
    tail.insert(posts)
    tail.insert([{"event_id": "other", "user_id": "u", "event_timestamp": 1}])
    found = tail.read(["robot", "u", "nobody"])
    assert {user: len(events) for user, events in found.items()} == {"robot": MAX_READ, "u": 1}
    expected = sorted(enumerate(posts), key=lambda each: (each[1]["event_timestamp"], each[0]))
    assert [event["event_id"] for event in found["robot"]] == [
        post["event_id"] for _, post in expected[-MAX_READ:]
    ]


def test_lines_stamped_by_another_clock_are_remembered_and_not_folded(tmp_path: Path) -> None:
    """Lines with a `received_at` beyond the current time are known, but not used in states.

    Older versions stamped replayed events with the time of the machine.
    """
    log = EventLog(tmp_path)
    event = RATED | {"event_timestamp": START + 5}
    log.append([event | {"received_at": START + 10**15}])
    Tail(tmp_path)._connection().execute("DELETE FROM tail")
    log.close()
    restarted = EventLog(tmp_path, now=lambda: START + 100)
    assert Tail(tmp_path).read(["u1"]) == {}
    assert restarted.append([event]) == []
    restarted.close()


def test_reads_during_a_featurize_neither_lose_nor_double_an_event(tmp_path: Path) -> None:
    """Concurrent reads are correct while featurize moves events from the tail to the base rows."""
    home = Settings(home=tmp_path / "home")
    publish(home, "before", arrivals(40, seed=0, start=START))
    featurize(home, TARGETS, until=START + 2 * DAY)
    day = arrivals(60, seed=1, start=START + 2 * DAY)
    tail = Tail.of(home)
    tail.insert(as_posted(e, when, event_id=f"day-{i}") for i, (e, when) in enumerate(day))
    night = START + 4 * DAY
    users, contexts, at = [*USERS_HERE, "nobody"], [""] * 5, np.full(5, night)
    reader = OnlineReader(home)
    expected = reader.read(users, contexts, at)
    publish(home, "day", day)
    over, failures, reads = threading.Event(), [], []

    def read() -> None:
        while not over.is_set():
            try:
                assert_same(reader.read(users, contexts, at), expected)
                reads.append(1)
            except Exception as error:
                failures.append(error)
                return

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for number in range(3):
            featurize(home, TARGETS, until=START + 2 * DAY + (number + 1) * 16 * HOUR)
    finally:
        over.set()
        thread.join()
    assert failures == []
    assert len(reads) > 10
    assert tail.read(users) == {}


def test_features_are_never_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Featurize with an earlier `until` than the current one is refused."""
    home = Settings(home=tmp_path / "home")
    publish(home, "before", arrivals(40, seed=0, start=START))
    until = START + 2 * DAY
    featurize(home, TARGETS, until=until)
    before = (home.features / "manifest.json").read_text()
    monkeypatch.setenv("SHORTLIST_HOME", str(home.home))
    with pytest.raises(FeatureStoreError, match="features are never set back"):
        featurize_flow.fn(TARGETS, until - 1)
    assert (home.features / "manifest.json").read_text() == before


@pytest.fixture(scope="module")
def empty_rows() -> RequestRows:
    from models.recommend.hydrate import empty_rows

    return empty_rows(["u"], [""], np.array([10**9]))


@given(
    events=st.lists(
        st.tuples(
            st.integers(1, 400),  # time of the event
            st.integers(0, 400),  # delay of its arrival
            st.sampled_from(TYPES),
            st.sampled_from(["a", "b", "c"]),
            st.sampled_from([None, 0.0, 1.0, 4.5]),
        ),
        max_size=12,
    ),
    cuts=st.lists(st.integers(0, 900), min_size=len(USER_VIEWS), max_size=len(USER_VIEWS)),
)
@settings(max_examples=examples(150), deadline=None)
def test_a_base_cut_anywhere_and_its_tail_are_the_whole(events, cuts, empty_rows) -> None:
    """Folding the tail into base rows gives the same state as folding all events into empty rows.

    The base row of each view may end at another time, as during a materialize.
    """
    posted = [
        {
            "event_id": str(i),
            "user_id": "u",
            "item_id": item,
            "event_type": event_type,
            "event_timestamp": at,
            "received_at": at + lag,
            "value": value,
            "query": "q" if event_type == "search" else None,
        }
        for i, (at, lag, event_type, item, value) in enumerate(events)
    ]
    ordered = sorted((e | {"known": known_at(e)} for e in posted), key=lambda e: e["known"])
    targets = frozenset(TARGETS)

    def folded(base: RequestRows, stamps: dict[str, int], upto: dict[str, int]) -> RequestRows:
        arrays = {view: np.array([stamp]) for view, stamp in stamps.items()}
        some = [e for e in ordered if e["known"] <= max(upto.values())]
        return fold(base, arrays, tails={"u": some}, target_events=targets)

    nothing = dict.fromkeys(USER_VIEWS, 0)
    everything = dict.fromkeys(USER_VIEWS, 10**6)
    whole = folded(empty_rows, nothing, everything)
    base, stamps = empty_rows, dict(zip(USER_VIEWS, cuts, strict=True))
    for view, cut in stamps.items():  # fold the events into one view only, by high stamps of others
        others = {other: 10**6 for other in USER_VIEWS if other != view}
        base = folded(base, others | {view: 0}, {view: cut})
    assert_same(folded(base, stamps, everything), whole)
    assert whole.user["user_events"][0] == sum(e["event_type"] in targets for e in posted)
    assert whole.user["user_value_count"][0] == sum(
        e["value"] is not None for e in posted if e["event_type"] in targets
    )


def test_a_refresh_leaves_what_is_posted_while_it_runs(tmp_path: Path) -> None:
    """An event that is posted during a refresh counts exactly once, at any time."""
    from flows.refresh import refresh
    from flows.runtime.configuration import RunConfig

    home = Settings(home=tmp_path / "home")
    publish(home, "before", arrivals(40, seed=0, start=START))
    featurize(home, TARGETS, until=START + 2 * DAY)
    config = RunConfig.model_validate(
        {
            "name": "tiny",
            "data": {"source": "movielens-100k", "target_events": TARGETS, "clock": "replay"},
            "validation": {"failure_budget": 0.5},
            "train": {"sources": [], "rankers": []},
        }
    )
    clock = HomeClock(home, "replay", start=START + 2 * DAY)
    log, reader = EventLog(home.events), OnlineReader(home)
    over, counted, failures = threading.Event(), [0], []
    before = reader.read(["u0"], [""], np.array([clock.now()])).user["user_events"][0]

    def post() -> None:
        while not over.is_set():
            number = counted[0]
            with clock.stamping() as received:
                event = {
                    "event_id": f"live-{number}",
                    "user_id": "u0",
                    "item_id": f"i{number % 8}",
                    "event_type": "rating",
                    "event_timestamp": received,
                    "received_at": received,
                    "value": 3.0,
                }
                assert log.append([event]) == [event]
            clock.advance(received + 1)
            counted[0] += 1
            rows = reader.read(["u0"], [""], np.array([clock.now()]))
            if rows.user["user_events"][0] != before + counted[0]:
                failures.append((number, rows.user["user_events"][0] - before))

    import os

    os.environ["SHORTLIST_HOME"] = str(home.home)
    thread = threading.Thread(target=post)
    thread.start()
    try:
        refresh(home, config)
        refresh(home, config)
    finally:
        over.set()
        thread.join()
        result = refresh(home, config)
        del os.environ["SHORTLIST_HOME"]
    assert failures == []
    assert counted[0] > 5
    assert result["features"]["incremental"]
    rows = reader.read(["u0"], [""], np.array([clock.now()]))
    assert rows.user["user_events"][0] == before + counted[0]
    assert Tail.of(home).read(["u0"]) == {}
    log.close()
