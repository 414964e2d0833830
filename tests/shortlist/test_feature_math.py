"""`finalize` with expected values written as arithmetic."""

import math

import numpy as np
import pytest

from shortlist.behaviour.refusals import NO_REFUSALS
from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.columns import MICROSECONDS_PER_HOUR as HOUR
from shortlist.features.event_groups import (
    EVENT_GROUPS,
    RATES,
    SPANS,
    USER_GROUP_FEATURES,
    group_features,
)
from shortlist.features.finalize import (
    CONTEXT_FEATURES,
    DAY_BUCKETS,
    HALF_LIFE,
    ITEM_FEATURES,
    USER_FEATURES,
    RequestRows,
    context_id,
    decay,
    finalize_context,
    finalize_items,
    finalize_user,
    time_features,
)
from shortlist.features.searches import NO_SEARCHES, Searches

NOW = 20_000 * DAY + 6 * HOUR  # 2024-10-04, a Friday, 06:00 UTC


def rows(
    *, events: float, history_times: list[int], searches: Searches = NO_SEARCHES
) -> RequestRows:
    known = events > 0
    return RequestRows(
        user_ids=["u"],
        context_ids=["web|unknown|06"],
        at=np.array([NOW]),
        user={
            "user_events": np.array([events]),
            "user_decayed": np.array([2.0 * known]),
            "user_last_time": np.array([(NOW - 7 * DAY) * known]),
            "user_first_time": np.array([(NOW - 10 * DAY) * known]),
            "user_value_sum": np.array([9.0 * known]),
            "user_value_count": np.array([2.0 * known]),
            # at NOW, a half-life later, half of both is left: 1.5 values with a sum of 7.5
            "user_value_decayed": np.array([15.0 * known]),
            "user_value_weight": np.array([3.0 * known]),
            # Impressions, clicks, carts, purchases, negatives; at NOW, half of the sums is left.
            "user_group_counts": np.array([[60.0, 12, 4, 2, 1]]) * known,
            "user_group_decayed": np.array([[30.0, 6, 2, 1, 1]]) * known,
            "user_group_last_time": np.array([(NOW - 7 * DAY) * known]),
            "user_group_first_time": np.array([(NOW - 9 * DAY) * known]),
        },
        history_items=[["a"] * len(history_times)],
        history_times=[np.array(history_times, dtype=np.int64)],
        history_values=[np.full(len(history_times), np.nan)],
        history_types=[np.zeros(len(history_times), dtype=np.int64)],
        attributes=[{}],
        context={
            "context_events": np.array([8.0]),
            "context_decayed": np.array([8.0]),
            "context_last_time": np.array([NOW - 14 * DAY]),
            **time_features(np.array([NOW])),
        },
        searches=[searches],
        refusals=[NO_REFUSALS],
    )


def logs(prefix: str, span: str, counts: tuple[float, ...]) -> dict[str, float]:
    names = (f"{prefix}_{group}{span}_log" for group in EVENT_GROUPS)
    return {name: math.log(1 + count) for name, count in zip(names, counts, strict=True)}


def test_a_sum_halves_in_a_half_life_and_never_grows() -> None:
    assert decay(np.array([4.0]), np.array([HALF_LIFE]))[0] == 2.0
    assert decay(np.array([4.0]), np.array([-HALF_LIFE]))[0] == 4.0


def test_user_features_by_hand() -> None:
    minute = 60_000_000
    last = NOW - 55 * minute  # the current session has events 55, 35 and 10 minutes ago
    times = [last - 84 * HOUR, last - 12 * HOUR, last, NOW - 35 * minute, NOW - 10 * minute]
    asked = Searches(
        ("tea", "red boots", "chess"), (NOW - 2 * DAY, NOW - DAY, NOW - 90 * minute), 7
    )
    features = finalize_user(rows(events=3, history_times=times, searches=asked))[0]
    values = dict(zip(USER_FEATURES, features, strict=True))
    assert values == pytest.approx(
        {
            "user_events_log": math.log(1 + 3),
            "user_recent_activity": math.log(1 + 2.0 / 2),
            "user_hours_since_last_log": math.log(1 + 7 * 24),
            "user_days_since_first_log": math.log(1 + 10),
            "user_mean_value": 9 / 2,
            "user_value_trend": (7.5 + 9 / 2) / (1.5 + 1) - 9 / 2,
            "user_session_depth_log": math.log(1 + 3),
            # gaps between sessions: 12 hours and 3 days, so 42 hours on average
            "user_usual_gap_log": math.log(1 + (12 + 72) / 2),
            **logs("user", "", (60, 12, 4, 2, 1)),
            **logs("user", "_7d", (15, 3, 1, 0.5, 0.5)),
            "user_click_rate": (12 + 1) / (60 + 20),
            "user_conversion": (2 + 1) / (12 + 20),
            "user_cart_rate": (4 + 2) / (12 + 20),
            "user_negative_rate": (1 + 1) / (12 + 20),
            "user_click_rate_7d": (3 + 1) / (15 + 20),
            "user_conversion_7d": (0.5 + 1) / (3 + 20),
            "user_cart_rate_7d": (1 + 2) / (3 + 20),
            "user_negative_rate_7d": (0.5 + 1) / (3 + 20),
            "user_searches_log": math.log(1 + 7),
            "user_searches_1d_log": math.log(1 + 2),
            "user_minutes_since_search_log": math.log(1 + 90),
        }
    )


def test_an_unknown_user_is_all_zeros_and_has_the_prior_rates() -> None:
    features = finalize_user(rows(events=0, history_times=[]))[0]
    rates = [rate.prior for rate in RATES]
    values = dict(zip(USER_FEATURES, features.tolist(), strict=True))
    for span in SPANS:
        of_rates = [values.pop(f"user_{rate.name}{span}") for rate in RATES]
        assert of_rates == pytest.approx(rates)
    assert set(values.values()) == {0.0}


def test_a_rate_is_never_above_one_and_a_click_was_seen() -> None:
    clicked_unseen = np.array([0.0, 30, 0, 0, 0])  # clicks in a log without impressions
    assert rates_of(clicked_unseen)["user_click_rate"] == (30 + 1) / (30 + 20)
    assert all(rate <= 1 for rate in rates_of(np.full(5, 1e9)).values())


def rates_of(counts: np.ndarray) -> dict[str, float]:
    """Return the rates of a user with the given counts per event group, by feature name."""
    features = group_features(counts, counts, np.array(0))
    values = dict(zip(USER_GROUP_FEATURES, features, strict=True))
    return {
        f"user_{rate.name}{span}": values[f"user_{rate.name}{span}"]
        for rate in RATES
        for span in SPANS
    }


def test_as_of_is_that_of_each_view_and_of_the_user_the_newest() -> None:
    known = rows(events=3, history_times=[])
    assert known.user_as_of.tolist() == [NOW - 7 * DAY]
    known.user["user_group_last_time"] += DAY
    assert known.user_as_of.tolist() == [NOW - 6 * DAY]
    known.user["user_last_time"][:] = 0  # no target event
    assert known.user_as_of.tolist() == [NOW - 6 * DAY]
    searched = rows(
        events=0,
        history_times=[],
        searches=Searches(("tea", "cup"), (NOW - 4 * DAY, NOW - 3 * DAY), 2),
    )
    assert searched.user_as_of.tolist() == [NOW - 3 * DAY]
    assert {view: times.tolist() for view, times in searched.as_of.items()} == {
        "user_stats": [0],
        "user_event_groups": [0],
        "user_searches": [NOW - 3 * DAY],
        "context_trend": searched.context["context_last_time"].tolist(),
    }
    nobody = rows(events=0, history_times=[])
    assert nobody.user_as_of.tolist() == [0]


def test_context_features_by_hand() -> None:
    features = finalize_context(rows(events=0, history_times=[]))[0]
    values = dict(zip(CONTEXT_FEATURES, features, strict=True))
    assert values == pytest.approx(
        {
            "hour_sin": 1.0,  # 06:00 is a quarter of the circle
            "hour_cos": 0.0,
            "weekday_sin": math.sin(2 * math.pi * 4 / 7),  # Friday, four days after Monday
            "weekday_cos": math.cos(2 * math.pi * 4 / 7),
            "is_weekend": 0.0,
            "context_activity_log": math.log(1 + 8 / 4),
        },
        abs=1e-6,
    )


@pytest.mark.parametrize(("days_later", "weekend"), [(0, 0), (1, 1), (2, 1), (3, 0)])
def test_the_weekend_is_saturday_and_sunday(days_later: int, weekend: float) -> None:
    assert time_features(np.array([NOW + days_later * DAY]))["is_weekend"][0] == weekend


def test_item_features_by_hand() -> None:
    days = np.zeros(DAY_BUCKETS)
    days[-1], days[-7], days[-8], days[0] = 5, 2, 23, 23
    state = {
        "item_events": np.array(53.0),
        "item_decayed": np.array(1.0),
        "item_last_time": np.array(NOW - DAY),
        "item_first_time": np.array(NOW - 60 * DAY),
        "item_value_sum": np.array(12.0),
        "item_value_count": np.array(4.0),
        "item_value_decayed": np.array(2.0 * 2 ** (1 / 7)),
        "item_value_weight": np.array(1.0 * 2 ** (1 / 7)),  # at NOW, 1 value of 2 is left
        "item_day_counts": days,
        "item_group_counts": np.array([1000.0, 80, 20, 10, 5]),
        "item_group_decayed": np.array([400.0, 40, 8, 4, 2]),
        "item_group_last_time": np.array(NOW - 7 * DAY),
        "item_group_first_time": np.array(NOW - 60 * DAY),
    }
    values = finalize_items(
        state,
        as_of=NOW,
        published_at=np.array(NOW - int(2 * 365.25 * DAY)),
    )
    assert dict(zip(ITEM_FEATURES, values, strict=True)) == pytest.approx(
        {
            "item_events_log": math.log(1 + 53),
            "item_count_1d_log": math.log(1 + 5),
            "item_count_7d_log": math.log(1 + 5 + 2),
            "item_count_14d_log": math.log(1 + 5 + 2 + 23),
            "item_count_30d_log": math.log(1 + 53),
            "item_trend": math.log(1 + 7) - math.log(1 + 46 * 7 / 23),
            "item_mean_value": 12 / 4,
            "item_value_trend": (2 + 12 / 4) / (1 + 1) - 12 / 4,
            "item_days_since_first_log": math.log(1 + 60),
            "item_days_since_last_log": math.log(1 + 1),
            "item_published_years_ago": 2.0,
            **logs("item", "", (1000, 80, 20, 10, 5)),
            **logs("item", "_7d", (200, 20, 4, 2, 1)),
            "item_click_rate": (80 + 1) / (1000 + 20),
            "item_conversion": (10 + 1) / (80 + 20),
            "item_cart_rate": (20 + 2) / (80 + 20),
            "item_negative_rate": (5 + 1) / (80 + 20),
            "item_click_rate_7d": (20 + 1) / (200 + 20),
            "item_conversion_7d": (2 + 1) / (20 + 20),
            "item_cart_rate_7d": (4 + 2) / (20 + 20),
            "item_negative_rate_7d": (1 + 1) / (20 + 20),
        },
        rel=1e-6,
    )


def test_a_context_is_surface_device_and_hour() -> None:
    assert context_id(surface="web", device=None, at=NOW) == "web|unknown|06"
    assert context_id(surface=None, device="tv", at=NOW + 17 * HOUR) == "unknown|tv|23"
