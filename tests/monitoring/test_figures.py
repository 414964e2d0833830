"""Slates joined with later events, and all figures, compared with values computed by hand."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from monitoring.figures import (
    all_figures,
    at_equal_size,
    column_drifts,
    drifted_share,
    jensen_shannon,
    latency_figures,
    wasserstein,
)
from monitoring.frames import (
    event_frame,
    feature_frame,
    ranking_frame,
    request_frame,
    score_frame,
    shown_frame,
)
from monitoring.windows import MonitorError, Window, slates_of
from shortlist.contracts import SERVING_LOG, ContractError
from shortlist.splits import draw_requests
from tests.monitoring.conftest import log_table


@pytest.fixture
def small(build):
    """Two requests: `ra` of user a, who has a history, and `rb` of user b, who is unknown.

    a chose i1 before. Within 24 h of the request, a chooses i1 again, i2 and i5; i3 comes too late.
    b chooses i6, which was not shown, and i4 again, with the request_id of this list.
    """
    at, hour = build.start, build.hour
    events = [
        ("a", "i1", at - hour, 3.0),
        ("b", "i4", at + hour, 1.0),  # before b's request, so i4 isn't new to b
        ("a", "i2", at, 5.0),
        ("a", "i1", at + hour, 3.0),
        ("a", "i5", at + 2 * hour, 2.0),
        ("b", "i6", at + 3 * hour, 4.0),
        ("b", "i4", at + 4 * hour, 2.0, "rb"),
        ("a", "i3", at + 24 * hour, 5.0),
    ]
    slates = [
        {"request_id": "ra", "user_id": "a", "at": at, "items": ["i1", "i2", "i3"]},
        {
            "request_id": "rb",
            "user_id": "b",
            "at": at + 2 * hour,
            "items": ["i4", "i5"],
            "sources": ["ease", "two_tower"],
            "known": False,
            "skipped": ["features"],
        },
    ]
    window = Window("current", build.log(slates), build.events(events)).checked()
    shared = build.shared(6, k=3, features=("f",))
    return window, shared, slates_of(window, shared)


def test_a_later_page_counts_as_a_list(small):
    window, shared, first = small
    names = window.log.column_names
    later = pc.cast(pc.add(window.log.column("position"), 10), pa.int32())
    log = window.log.set_column(names.index("position"), SERVING_LOG.field("position"), later)
    again = slates_of(Window("current", log, window.interactions).checked(), shared)
    assert again.item_idx.tolist() == first.item_idx.tolist()
    assert again.source.tolist() == first.source.tolist()


def test_taken_is_what_is_new_within_a_day_or_names_the_request(small):
    """Relevant items are new items of the next 24 h, and those whose event has the request_id."""
    _, shared, slates = small
    names = [shared.catalogue.vocab.decode(r) for r in slates.relevant]
    assert names == [["i2", "i5"], ["i4", "i6"]]
    np.testing.assert_array_equal(slates.grade, [[3, 5, np.nan], [2, np.nan, np.nan]])
    assert slates.history_length.tolist() == [1, 1]
    assert slates.hit.tolist() == [[False, True, False], [True, False, False]]
    assert slates.known.tolist() == [True, False]
    assert slates.skipped.tolist() == [False, True]


def test_figures_by_hand(small):
    _, shared, slates = small
    figures = all_figures(slates, slates, shared, rng=np.random.default_rng(0))
    value = {name: figure.current for name, figure in figures.items()}
    assert value["recall@3"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert value["precision@3"] == pytest.approx((1 / 3 + 1 / 3) / 2)
    assert value["mrr@3"] == pytest.approx((1 / 2 + 1 / 1) / 2)
    ideal = 1 + 1 / np.log2(3)
    assert value["ndcg@3"] == pytest.approx((1 / np.log2(3) / ideal + 1 / ideal) / 2)
    assert value["replayed_hit_rate@3"] == 1
    assert value["replayed_hit_rate@3/light_users"] == 1
    assert np.isnan(value["replayed_hit_rate@3/new_users"])
    assert value["satisfaction"] == pytest.approx(((3 + 5) / 2 + 2) / 2)
    assert value["coverage@3"] == 5 / 6
    # i1, i2 and i3 have different categories, and so do i4 and i5
    assert value["diversity@3"] == pytest.approx(1)
    assert value["shown_share/ease"] == pytest.approx(4 / 5)
    assert value["replayed_hit_share/ease"] == pytest.approx(2 / 4)
    assert value["replayed_hit_share/two_tower"] == 0
    assert value["unknown_user_rate"] == value["skipped_stage_rate"] == 1 / 2
    assert value["short_list_rate"] == 1 / 2
    assert all(figures[name].reference == figures[name].current for name in ("ndcg@3", "requests"))


def test_the_same_mix_takes_the_slices_share_out_of_the_hit_rate(build):
    """The hit rate with the same mix of slices isn't affected by a change of their shares."""
    shared = build.shared(6, k=1, features=("f",))

    def slates(plan):
        """Build slates from `plan`: (user has a history, shown item is chosen) of each request."""
        shown, events = [], []
        for n, (known, hit) in enumerate(plan):
            at, user = build.start + n * build.hour, f"u{n}"
            if known:
                events.append((user, "i6", at - build.hour, 3.0))
            events.append((user, "i1" if hit else "i2", at, 3.0))
            shown.append({"request_id": f"r{n}", "user_id": user, "at": at, "items": ["i1"]})
        return slates_of(Window("w", build.log(shown), build.events(events)).checked(), shared)

    # In both windows, the hit rate is 1 for new users and 1/2 for light users.
    current = slates([(False, True)] * 1 + [(True, True), (True, False)] * 2)
    reference = slates([(False, True)] * 8 + [(True, True), (True, False)])
    figures = all_figures(current, reference, shared, rng=np.random.default_rng(0))
    plain, same = figures["replayed_hit_rate@1"], figures["replayed_hit_rate_same_mix@1"]
    assert (plain.current, plain.reference) == (pytest.approx(3 / 5), pytest.approx(9 / 10))
    assert (same.current, same.reference) == (pytest.approx(3 / 5), pytest.approx(3 / 5))


def test_satisfaction_is_what_people_said_not_what_they_paid(build):
    at, hour = build.start, build.hour
    events = [
        ("a", "i2", at - 1, 1.0, None, "survey"),  # before the list was shown
        ("a", "i1", at + 1, 49.9, "r", "purchase"),
        ("a", "i1", at + 2 * hour, 4.0, None, "survey"),
        ("a", "i1", at + 3 * hour, 2.0, None, "review"),
        ("a", "i2", at + hour, 120.0, "r", "watch"),
        ("a", "i3", at + hour, None, "r", "rating"),
        ("b", "i1", at + hour, 5.0, None, "survey"),
    ]
    shown = [{"request_id": "r", "user_id": "a", "at": at, "items": ["i1", "i2", "i3"]}]
    window = Window("w", build.log(shown), build.events(events)).checked()
    slates = slates_of(window, build.shared(3, k=3, features=("f",)))
    np.testing.assert_array_equal(slates.grade, [[3, np.nan, np.nan]])


def test_relevance_is_that_of_the_evaluation(build):
    window = build.window("w", start=build.start, seed=3)
    users = window.log.column("user_id").to_pylist()
    times = window.interactions.column("event_timestamp").cast("int64").to_numpy()
    drawn = draw_requests(
        window.interactions,
        (build.start, int(times.max()) + 1),
        rng=np.random.default_rng(0),
        max_per_user=10_000,
    )
    wanted = {
        (user, at): sorted(items)
        for user, at, items in zip(drawn.user_ids, drawn.at.tolist(), drawn.relevant, strict=True)
    }
    asked = [
        {"request_id": f"r{n}", "user_id": user, "at": at, "items": ["i1"]}
        for n, (user, at) in enumerate(wanted)
    ]
    assert len(asked) > 200
    assert {user for user, _ in wanted} == set(users)
    shared = build.synthetic_shared()
    slates = slates_of(Window("w", build.log(asked), window.interactions).checked(), shared)
    found = {
        (user, at): sorted(shared.catalogue.vocab.decode(items))
        for user, at, items in zip(
            slates.user_ids, slates.at.tolist(), slates.relevant, strict=True
        )
    }
    assert found == wanted


def test_coverage_compares_at_equal_numbers_of_lists():
    """Coverage is compared on samples of equal size, because it grows with the number of lists."""
    lists = np.arange(1, 101).reshape(100, 1)
    rng = np.random.default_rng(0)
    assert at_equal_size(lambda x: len(np.unique(x)), lists, size=10, rng=rng) == 10
    assert at_equal_size(lambda x: len(np.unique(x)), lists, size=100, rng=rng) == 100


def test_distances_by_hand():
    # Each point moves by 3, and the reference's standard deviation is 1.
    assert wasserstein(np.array([2.0, 4.0]), np.array([-1.0, 1.0])) == pytest.approx(3)
    # Samples of different size: from {0, 1} to {0, 0, 0, 1}, a quarter of the mass moves by 1. The
    # standard deviation is 1/2.
    assert wasserstein(np.array([0, 0, 0, 1]), np.array([0, 1])) == pytest.approx(0.25 / 0.5)
    assert jensen_shannon(np.array(["a"]), np.array(["b"])) == pytest.approx(np.sqrt(np.log(2)))
    assert jensen_shannon(np.array(["a", "b"]), np.array(["b", "a"])) == 0


def test_drifted_share_counts_columns_with_a_distance():
    before = pd.DataFrame({"n": [0.0, 1.0] * 50, "c": ["x", "y"] * 50, "empty": [np.nan] * 100})
    now = before.assign(n=before["n"] + 5)
    drifts = column_drifts(now, before)
    assert drifts["n"] == pytest.approx(5 / 0.5)
    assert drifts["c"] == 0
    assert np.isnan(drifts["empty"])
    assert drifted_share(drifts) == 1 / 2
    assert np.isnan(drifted_share({}))


def test_latency_percentiles():
    assert latency_figures(np.arange(101.0))["latency_p95_ms"].current == 95
    assert latency_figures(None) == latency_figures(np.array([])) == {}


def test_frames_have_the_same_columns_and_say_what_was_shown(small):
    window, shared, slates = small
    both = np.arange(2)
    ranking = ranking_frame(slates, shared.catalogue, rows=both)
    of_b = ranking[ranking["request_id"] == "rb"]
    assert of_b[["item_id", "rank", "relevant"]].values.tolist() == [
        ["item i4", 1, 1],
        ["item i5", 2, 0],
        ["item i6", 4, 1],  # relevant but not shown, so its rank is after the three positions
    ]
    shown = shown_frame(slates, shared.catalogue, rows=both)
    assert shown["title"].tolist() == ["I1", "I2", "I3", "I4", "I5"]
    assert shown[["is comedy", "is drama", "is science"]].sum(axis=1).tolist() == [1] * 5
    events = event_frame(window, shared, rows=np.arange(7))
    assert events["category"].tolist()[:2] == ["drama", "comedy"]  # the events of i2 and i4
    requests = request_frame(slates, window, shared)
    assert requests["skipped_stages"].tolist() == ["no", "yes"]
    assert requests["slice"].tolist() == ["light", "light"]
    scores = score_frame(window.log, ["ease", "two_tower"], rows=np.arange(5))
    assert scores["score: two_tower"].notna().sum() == 1


def test_responses_made_without_features_are_left_out_of_the_feature_frame():
    slates = [
        {"request_id": "ra", "user_id": "u1", "at": 1, "items": ["i1"], "features": [[2.0, 3.0]]},
        {"request_id": "rb", "user_id": "u1", "at": 2, "items": ["i2", "i3"], "features": [[], []]},
    ]
    frame = feature_frame(log_table(slates), ["f", "g"], rows=np.arange(3))
    assert frame.to_dict("list") == {"f": [2.0], "g": [3.0]}
    nothing = feature_frame(log_table(slates[1:]), ["f", "g"], rows=np.arange(2))
    assert (len(nothing), list(nothing)) == (0, ["f", "g"])


def test_a_log_of_another_release_and_an_empty_log_are_refused(small, build):
    window, _, _ = small
    with pytest.raises(MonitorError, match="have \\[1\\] values, expected 2"):
        feature_frame(window.log, ["f", "g"], rows=np.arange(5))
    empty = Window("current", window.log.slice(0, 0), window.interactions)
    with pytest.raises(MonitorError, match="current window: the serving log is empty"):
        empty.checked()
    broken = Window("current", window.log.drop_columns(["score"]), window.interactions)
    with pytest.raises(ContractError, match="required column 'score' is missing"):
        broken.checked()
