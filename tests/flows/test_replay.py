"""The order of requests and posts in a replay, without a server.

Events are posted once, and never before a request of an earlier time or of the same time.
"""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.replay import PostEvents, SendRequests, Traffic, plan_replay
from shortlist.contracts import INTERACTIONS
from shortlist.http.api import Item, RecommendResponse
from shortlist.splits import HORIZON, Requests

T = 1_700_000_000_000_000


def requests_of(pairs: list[tuple[str, int]]) -> Requests:
    users = [user for user, _ in pairs]
    times = np.array([at for _, at in pairs], dtype=np.int64)
    return Requests(users, times, [[]] * len(pairs), [[]] * len(pairs), [(None, None)] * len(pairs))


def plan(requests, events, *, connections=4, max_lag=1_000):
    return plan_replay(
        requests_of(requests),
        event_users=[user for user, _ in events],
        event_times=np.array([at for _, at in events], dtype=np.int64),
        connections=connections,
        max_lag=max_lag,
    )


def test_a_request_comes_before_the_events_of_its_own_time():
    steps = plan([("a", 10), ("a", 20)], [("a", 10), ("a", 10), ("a", 20)])
    assert steps == [SendRequests((0,)), PostEvents(0, 2), SendRequests((1,)), PostEvents(2, 3)]


def test_requests_of_different_people_go_side_by_side():
    steps = plan([("a", 10), ("b", 11), ("c", 12)], [("a", 10), ("b", 11), ("c", 12)])
    assert steps == [SendRequests((0, 1, 2)), PostEvents(0, 3)]


def test_a_step_takes_no_more_requests_than_there_are_connections():
    steps = plan([(user, 10) for user in "abcde"], [], connections=2)
    assert steps == [SendRequests((0, 1)), SendRequests((2, 3)), SendRequests((4,))]


def test_other_peoples_events_lag_at_most_so_long():
    """Events are posted before a request of any user that is over `max_lag` later."""
    steps = plan([("a", 10), ("b", 2_000)], [("c", 20)])
    assert steps == [SendRequests((0,)), PostEvents(0, 1), SendRequests((1,))]


def test_events_before_the_first_request_and_after_the_last_are_told():
    assert plan([("a", 10)], [("b", 5), ("b", 15)]) == [
        PostEvents(0, 1),
        SendRequests((0,)),
        PostEvents(1, 2),
    ]
    assert plan([], [("b", 5)]) == [PostEvents(0, 1)]
    assert plan([], []) == []


moments = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 60)), max_size=40)


@settings(max_examples=300, deadline=None)
@given(
    requests=moments.map(lambda pairs: sorted(set(pairs), key=lambda pair: pair[1])),
    events=moments.map(lambda pairs: sorted(pairs, key=lambda pair: pair[1])),
    connections=st.integers(1, 5),
    max_lag=st.integers(0, 30),
)
def test_no_look_ahead_no_lag_behind_the_user_and_nothing_lost(
    requests, events, connections, max_lag
):
    """Every request comes after all earlier events of its user and before all later events.

    Requests and events keep their order, and each is sent once.
    """
    asked, told = [], 0
    for step in plan(requests, events, connections=connections, max_lag=max_lag):
        if isinstance(step, PostEvents):
            assert step.start == told < step.stop
            told = step.stop
            continue
        assert 1 <= len(step.rows) <= connections
        assert requests[step.rows[-1]][1] - requests[step.rows[0]][1] <= max_lag
        for row in step.rows:
            user, at = requests[row]
            assert all(time < at for _, time in events[:told])
            own = [time for other, time in events[told:] if other == user]
            assert all(time >= at for time in own)
        asked += step.rows
    assert asked == list(range(len(requests)))
    assert told == len(events)


class Recorder:
    """Stand-in for the HTTP client: records requests and posts; all responses show i1 and i2."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int]] = []
        self.posted: list = []

    def recommend(self, request):
        self.sent.append(("ask", request.at))
        shown = [
            Item(item_id=item_id, title="", score=1.0, rank=rank, source="ease")
            for rank, item_id in enumerate(("i1", "i2")[: request.k], start=1)
        ]
        return RecommendResponse(
            request_id=f"{request.user_id}@{request.at}",
            release_id="r",
            user_known=True,
            items=shown,
            at=request.at,
        )

    def events(self, events):
        self.sent += [("tell", event.event_timestamp) for event in events]
        self.posted += events


def events_table(rows: list[tuple[str, str, int, str]]) -> pa.Table:
    """Return INTERACTIONS for rows of (user_id, item_id, microseconds, event_id)."""
    values = {
        "user_id": [row[0] for row in rows],
        "item_id": [row[1] for row in rows],
        "event_timestamp": [row[2] for row in rows],
        "event_id": [row[3] for row in rows],
        "event_type": ["rating"] * len(rows),
        "event_order": list(range(len(rows))),
        "ingested_at": [0] * len(rows),
        "value": [4.0] * len(rows),
        "source": ["test"] * len(rows),
    }
    columns = []
    for field in INTERACTIONS:
        column = values.get(field.name, [None] * len(rows))
        plain = pa.int64() if pa.types.is_timestamp(field.type) else field.type
        columns.append(pa.array(column, plain).cast(field.type))
    return pa.table(columns, schema=INTERACTIONS)


@pytest.fixture
def driven():
    """A Recorder and the traffic after a replay of three requests and five events.

    User `a` has two requests, `b` one and `c` none.
    """
    pairs = [("a", T + 10), ("b", T + 12), ("a", T + 20)]
    rows = [
        ("a", "i2", T + 10, "e1"),
        ("b", "i9", T + 12, "e2"),
        ("a", "i1", T + 20, "e3"),
        ("b", "i1", T + 12 + HORIZON, "e4"),
        ("c", "i1", T + 13 + HORIZON, "e5"),
    ]
    events = events_table(rows)
    recorder = Recorder()
    traffic = Traffic(recorder, requests_of(pairs), events, connections=2, k=2)
    traffic.drive(plan(pairs, [(row[0], row[2]) for row in rows]))
    return recorder, traffic


def test_events_keep_their_id_and_name_the_newest_list_that_showed_the_item(driven):
    recorder, _ = driven
    told = {event.event_id: (event.request_id, event.position) for event in recorder.posted}
    assert told == {
        "e1": (f"a@{T + 10}", 2),
        "e2": (None, None),  # i9 was not shown to b
        "e3": (f"a@{T + 20}", 1),
        "e4": (None, None),  # a day later, so not attributed to the list
        "e5": (None, None),  # c has no request
    }
    assert [event.event_timestamp for event in recorder.posted][:3] == [T + 10, T + 12, T + 20]
    assert {event.value for event in recorder.posted} == {4.0}


def test_the_result_counts_and_measures(driven):
    recorder, traffic = driven
    result = traffic.result()
    assert (result["requests"], result["events"], result["attributed"]) == (3, 5, 2)
    assert result["p50_ms"] <= result["p99_ms"]
    assert recorder.sent.index(("tell", T + 10)) > recorder.sent.index(("ask", T + 10))
    assert recorder.sent.index(("tell", T + 20)) > recorder.sent.index(("ask", T + 20))
