"""Figures of live traffic, compared with values computed by hand, and their standard errors."""

import math

import numpy as np
import pyarrow as pa
import pytest

from monitoring.traffic.cuts import FigureError, all_cuts, by, exposure, figure, overview
from monitoring.traffic.estimate import UserSums, difference
from monitoring.traffic.join import DAY, HOUR, Delays, Traffic, join_outcomes
from monitoring.traffic.measures import MEASURES
from monitoring.traffic.whole import LISTS, WHOLE_MEASURES, coverage
from shortlist.datasets.service.traffic_log import REQUESTS, SHOWN
from tests.monitoring.conftest import as_table, event_table, shared_data

START = 20_000 * DAY
SHARED = shared_data(6, k=2, features=())


def tables(lists: list[tuple]) -> tuple[pa.Table, pa.Table]:
    """Build REQUESTS and SHOWN from (request_id, user_id, at, items, and optionally changes)."""
    requests, shown = [], []
    for number, (request_id, user_id, at, items, *changes) in enumerate(lists):
        row = {
            "request_id": request_id, "user_id": user_id, "at": at, "release_id": "r",
            "arm": "main", "forced": False, "surface": "home", "device": "phone", "known": True,
            "user_as_of": at - 2 * HOUR, "skipped": 0, "milliseconds": 10.0, "items": len(items),
            "first_position": 1, "explored": False,
        }  # fmt: skip
        requests.append(row | (changes[0] if changes else {}))
        shown += [
            {"request": number, "item_id": item, "position": place, "source": "ease",
             "score": 1.0, "propensity": 1.0}
            for place, item in enumerate(items, start=1)
        ]  # fmt: skip
    return as_table(requests, REQUESTS), as_table(shown, SHOWN)


def joined(lists: list[tuple], events: list[tuple], *, until: int = START + 60 * DAY) -> Traffic:
    requests, shown = tables(lists)
    return join_outcomes(
        requests,
        shown,
        event_table(events),
        catalogue=SHARED.catalogue,
        item_counts=SHARED.item_counts,
        target_events=("click",),
        until=until,
        list_size=2,
    )


@pytest.fixture(scope="module")
def shop() -> Traffic:
    """Three requests of a and b; a clicks and buys i1 and sends it back, b rates and hides."""
    lists = [
        ("ra", "a", START, ["i1", "i2"]),
        ("rb", "b", START + HOUR, ["i3", "i1"], {"device": "web", "arm": "challenger"}),
        ("rc", "a", START + DAY + HOUR, ["i2"], {"skipped": 1, "known": False, "user_as_of": None}),
    ]
    at = START
    events = [
        ("a", "i9", at - HOUR, None, None, "click"),
        ("a", "i1", at + 60_000_000, None, "ra", "click"),
        ("a", "i1", at + 2 * HOUR, 30.0, "ra", "purchase"),
        ("a", "i1", at + 5 * DAY, 30.0, None, "return"),
        ("a", "i2", at + 2 * HOUR, None, "ra", "click"),  # after the delay of an hour
        ("b", "i3", at + HOUR + 1, None, "rb", "click"),
        ("b", "i3", at + 2 * HOUR, 90.0, "rb", "watch"),
        ("b", "i3", at + 3 * HOUR, 4.0, "rb", "rating"),
        ("b", "i3", at + 4 * HOUR, 2.0, "rb", "survey"),
        ("a", "i2", at + 3 * HOUR, 12.0, "ra", "purchase"),  # kept
        ("b", "i1", at + HOUR + 1, None, "rb", "hide"),
        ("b", "i1", at + HOUR + 1, None, "ra", "click"),  # ra showed i1 too: counts for ra
        ("b", "i4", at + HOUR + 1, None, "rb", "click"),  # rb didn't show i4
    ]
    return joined(lists, events)


def test_ratios_by_hand(shop):
    value = {name: one.value for name, one in overview(shop).items()}
    assert value["click_through"] == 2 / 5
    assert value["request_click_through"] == value["conversion"] * 2 == pytest.approx(2 / 3)
    assert value["revenue_per_request"] == 14
    assert value["revenue_per_user"] == 21
    assert value["watch_seconds"] == 30
    assert value["watch_seconds_per_click"] == 45
    assert value["return_rate"] == 1 / 2
    assert value["rating"] == 4
    assert value["survey"] == 2
    assert value["satisfaction"] == 3
    assert value["hide_rate"] == 1 / 5
    assert value["requests_per_user"] == 3 / 2
    assert value["session_depth"] == 1
    assert value["skipped_stage_rate"] == 1 / 3
    assert value["unknown_user_rate"] == 1 / 3
    assert value["short_list_rate"] == 1 / 3
    assert value["feature_age"] == 2
    assert value["effective_items"] == pytest.approx(
        math.exp(-2 * 0.4 * math.log(0.4) - 0.2 * math.log(0.2))
    )
    # i1 drama, i2 science, i3 comedy: lists of two have two categories; the last has one item
    assert value["diversity"] == 1
    assert math.isnan(value["dislike_rate"])


def test_retention_counts_days_of_activity_that_are_complete(shop):
    # user-days: (a, 0), (b, 0), (a, 1); a comes back on day 1 and, by the return, on day 5
    assert figure("retention_1", shop).value == pytest.approx(1 / 3)
    assert figure("retention_7", shop).value == pytest.approx(2 / 3)
    assert figure("retention_28", shop).value == pytest.approx(2 / 3)
    early = joined([("ra", "a", START, ["i1"])], [], until=START + 2 * DAY - 1)
    assert math.isnan(figure("retention_1", early).value), "the next day isn't over"


def test_open_requests_are_neither_hits_nor_misses():
    lists = [("ra", "a", START, ["i1"]), ("rb", "b", START + 50 * 60_000_000, ["i2"])]
    events = [("a", "i1", START + 1, None, "ra", "click")]
    traffic = joined(lists, events, until=START + HOUR + 1)
    assert figure("click_through", traffic).value == 1
    assert figure("click_through", traffic).total == 1
    assert math.isnan(figure("conversion", traffic).value)
    later = joined(lists, events, until=START + 2 * HOUR)
    assert figure("click_through", later).value == 1 / 2


def test_cuts_add_up_to_the_whole(shop):
    measure = MEASURES["click_through"]
    for column in ("device", "arm", "group", "position", "source", "day"):
        parts = by(measure, shop, column)
        assert sum(one.value * one.total for one in parts.values()) == pytest.approx(2)
    assert by(measure, shop, "arm")["challenger"].value == 1 / 2
    assert by(measure, shop, "position")["1"].value == 2 / 3
    assert figure("click_through", shop, where="device=web").value == 1 / 2
    assert shop.requests["group"].tolist() == ["light", "new", "light"]
    assert exposure(shop, "source") == {"ease": 1.0}
    assert figure("exposure/category=drama", shop).value == 2 / 5
    assert set(all_cuts(shop)) == set(MEASURES)
    with pytest.raises(FigureError, match="figure 'ctr' is unknown, want one of click_through"):
        figure("ctr", shop)
    with pytest.raises(FigureError, match="slice 'source=ease' of conversion: want all, or one of"):
        figure("conversion", shop, where="source=ease")


def test_coverage_is_that_of_random_lists_of_equal_number():
    lists = [(f"r{n}", f"u{n}", START + n, [f"i{n % 3 + 1}"]) for n in range(3 * LISTS)]
    assert coverage(joined(lists, [])) == pytest.approx(3 / 6)
    rare = [*lists[1:], ("rx", "ux", START, ["i6"])]
    # i6 is in one list of 600: it is in 200 random ones with probability 1/3
    assert coverage(joined(rare, [])) == pytest.approx((3 + 1 / 3) / 6)
    assert math.isnan(coverage(joined(lists[: LISTS - 1], [])))


def test_the_error_of_a_ratio_is_that_of_repeated_samples():
    rng = np.random.default_rng(0)
    found, errors = [], []
    for _ in range(300):
        size = rng.integers(1, 20, size=200).astype(float)
        rate = rng.beta(2, 8, size=200)
        sums = UserSums.of(np.arange(200), rng.binomial(size.astype(int), rate).astype(float), size)
        found.append(sums.estimate().value)
        errors.append(sums.estimate().error)
    assert np.mean(errors) == pytest.approx(np.std(found), rel=0.1)


def test_cuped_removes_what_was_known_before():
    rng = np.random.default_rng(1)
    before = rng.normal(size=2_000)
    after = before + rng.normal(scale=0.5, size=2_000)
    user, ones = np.arange(2_000), np.ones(1_000)
    a = UserSums.of(user[:1_000], after[:1_000] + 0.1, ones)
    b = UserSums.of(user[1_000:], after[1_000:], ones)
    known = {int(u): float(x) for u, x in zip(user, before, strict=True)}
    plain, adjusted = difference(a, b), difference(a, b, before=known)
    assert adjusted.reduced == pytest.approx(0.8, abs=0.05)  # 1 / (1 + 0.25) of the variance
    assert adjusted.error < plain.error / 2
    assert adjusted.value == pytest.approx(0.1, abs=3 * adjusted.error)
    assert difference(a, b, before={}).error == plain.error


def test_every_figure_has_a_value_or_says_that_there_is_no_data(shop):
    found = overview(shop)
    assert set(found) == set(MEASURES) | set(WHOLE_MEASURES)
    nothing = overview(shop.pick(np.zeros(3, dtype=bool)))
    assert all(math.isnan(one.value) for one in nothing.values())
    assert Delays().microseconds("click") == HOUR
