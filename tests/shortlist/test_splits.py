"""Windows and requests: histories contain no future events, relevant items are new to the user."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.splits import HORIZON, WINDOWS, SplitError, draw_requests, split_windows
from tests.shortlist.conftest import event_table

HOUR = 3_600_000_000
FRACTIONS = (0.5, 0.2, 0.2, 0.1)


@given(st.lists(st.integers(0, 10_000), min_size=60, max_size=300, unique=True))
def test_windows_cover_every_event_once_and_in_order(times):
    windows = split_windows(np.array(times), FRACTIONS)
    counted = [sum(windows[name][0] <= t < windows[name][1] for t in times) for name in WINDOWS]
    assert sum(counted) == len(times)
    for count, share in zip(counted, FRACTIONS, strict=True):
        assert abs(count - share * len(times)) <= 2


def test_shares_of_the_whole_source_cut_the_rest_at_the_same_places():
    """Shares that sum to less than 1 refer to the whole log, of which the rest is held back.

    Of 100 events, 5 are held back. 70% of all 100 ends at the same event as 70/95 of the other 95.
    """
    windows = split_windows(np.arange(95), (0.70, 0.10, 0.05, 0.10))
    assert windows.edges == (0, 70, 80, 85, 95)


def test_events_of_one_time_stay_in_one_window():
    times = np.array([1] * 50 + list(range(2, 52)))
    windows = split_windows(times, FRACTIONS)
    assert windows["retrieval_train"][0] == 1
    assert windows["retrieval_train"][1] > 1


@pytest.mark.parametrize(
    ("times", "fractions", "message"),
    [
        ([], FRACTIONS, "nothing to split"),
        ([1, 1, 1], FRACTIONS, "window 'retrieval_train' is empty"),
        (range(100), (0.5, 0.4, 0.1, 0.1), "sum to at most 1"),
        (range(100), (0.5, 0.5, 0.0, 0.0), "above 0"),
        (range(100), (0.5, 0.2, 0.1, 0.1, 0.1), "four shares"),
    ],
)
def test_impossible_splits_say_why(times, fractions, message):
    with pytest.raises(SplitError, match=message):
        split_windows(np.array(list(times), dtype=np.int64), fractions)


def test_a_request_is_a_user_and_a_time_with_the_new_items_of_a_day():
    day = 24 * HOUR
    events = [
        ("u", "a", 10),
        ("u", "b", 1_000),
        ("u", "c", 1_000),  # same time as b, so the same set
        ("u", "a", 2_000),  # not new
        ("u", "d", 1_000 + HOUR),
        ("u", "e", 1_000 + day),  # a day later: no longer relevant at 1,000
        ("v", "a", 1_500),
    ]
    requests = draw_requests(event_table(events), (500, 10 * day), rng=np.random.default_rng(0))
    by_key = {
        (u, int(t)): (sorted(r), sorted(n))
        for u, t, r, n in zip(
            requests.user_ids, requests.at, requests.relevant, requests.next_set, strict=True
        )
    }
    assert by_key["u", 1_000] == (["b", "c", "d"], ["b", "c"])
    # The repeat of `a` is a request too; its relevant items are the new items of the next day.
    assert by_key["u", 2_000] == (["d", "e"], [])
    assert by_key["v", 1_500] == (["a"], ["a"])
    assert ("u", 10) not in by_key


def test_a_request_is_when_its_page_was_asked_for():
    events = [  # user, item, time
        ("u", "a", 90),  # its page was requested before the window
        ("u", "b", 130),
        ("u", "c", 140),  # on the same page as b
        ("u", "d", 150),  # on no page
        ("u", "b", 160),  # on another page, and not new
        ("u", "e", 900),
    ]
    asked = np.array([80, 110, 110, 150, 155, 890])
    requests = draw_requests(
        event_table(events), (85, 800), rng=np.random.default_rng(0), horizon=60, asked=asked
    )
    found = zip(requests.at.tolist(), requests.relevant, requests.next_set, strict=True)
    assert list(found) == [
        (85, ["a", "b", "c"], ["a"]),  # moved to the start of the window, after the training data
        (110, ["b", "c", "d"], ["b", "c"]),
        (150, ["d"], ["d"]),
    ]
    # The context of a request is the surface of its first event. This log has no devices.
    assert requests.contexts == [(f"with {item}", None) for item in "abd"]


def test_relevance_ends_with_the_window():
    events = [("u", "a", 0), ("u", "b", 100), ("u", "c", 200)]
    requests = draw_requests(event_table(events), (50, 150), rng=np.random.default_rng(0))
    assert requests.relevant == [["b"]]


EVENTS = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from("abcdefgh"), st.integers(0, 3 * HORIZON)),
    min_size=1,
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.integers(1, 4))
def test_relevant_items_are_new_and_of_the_next_day(events, most):
    start = HORIZON
    requests = draw_requests(
        event_table(events), (start, 4 * HORIZON), rng=np.random.default_rng(0), max_per_user=most
    )
    assert np.all(np.diff(requests.at) >= 0)
    for user in "uvw":
        assert requests.user_ids.count(user) <= most
    for user, at, relevant, next_set in zip(
        requests.user_ids, requests.at, requests.relevant, requests.next_set, strict=True
    ):
        seen = {i for u, i, t in events if u == user and t < at}
        ahead = {i for u, i, t in events if u == user and at <= t < at + HORIZON}
        assert set(relevant) == ahead - seen
        assert set(next_set) == {i for u, i, t in events if u == user and t == at} - seen
        assert relevant
