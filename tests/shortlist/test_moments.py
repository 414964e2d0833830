"""Times in other units than microseconds are refused; the error names the likely unit."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortlist.http.api import Event, Filters
from shortlist.moments import WANT, moment_problem, number_problem
from tests.invalid_values import NOW, UNITS, us


@pytest.mark.parametrize("kind", ["event", "date"])
@pytest.mark.parametrize(("unit", "factor"), UNITS.items())
@pytest.mark.parametrize("moment", [us(1972), us(1998, 4, 2), NOW, us(2099)])
def test_the_unit_is_named(kind, unit, factor, moment):
    said = moment_problem(moment // factor, kind=kind)
    assert said is not None
    assert said == f"{moment // factor} looks like {unit}, {WANT}"


@pytest.mark.parametrize("kind", ["event", "date"])
def test_nanoseconds_are_named(kind):
    assert "looks like nanoseconds" in moment_problem(NOW * 1_000, kind=kind)
    assert "beyond the year 2100" in moment_problem(10**30, kind=kind)


@given(st.integers(us(1971), us(2100) - 1))
def test_events_of_our_time_pass_in_microseconds_and_in_no_other_unit(moment):
    assert moment_problem(moment, kind="event") is None
    assert moment_problem(moment // 1_000, kind="event")
    assert moment_problem(moment // 1_000_000, kind="event")
    assert moment_problem(moment * 1_000, kind="event")


@pytest.mark.parametrize("moment", [0, -1, 5, -us(1990)])
def test_no_event_was_before_1970(moment):
    assert moment_problem(moment, kind="event").endswith(WANT)


@given(st.dates(min_value=datetime(1800, 1, 1).date(), max_value=datetime(2099, 12, 31).date()))
def test_every_day_since_1800_is_a_date(day):
    assert moment_problem(us(day.year, day.month, day.day), kind="date") is None


@pytest.mark.parametrize("year", [1801, 1902, 1931, 1968, 1972, 2024])
def test_dates_of_old_films_in_another_unit_are_named(year):
    moment = us(year, 7, 3) + 3_600_000_000
    assert moment_problem(moment, kind="date") is None
    for unit, factor in UNITS.items():
        assert f"looks like {unit}" in moment_problem(moment // factor, kind="date")
    assert "looks like nanoseconds" in moment_problem(moment * 1_000, kind="date")


def test_the_example_of_the_message_is_right():
    number, moment = WANT.split(" such as ")[1].split(" for ")
    assert us(2024, 5, 31) + 36_000_000_000 == int(number)
    assert datetime.fromisoformat(moment).timestamp() == int(number) / 1e6


@pytest.mark.parametrize(
    "value", ["2024-05-31T10:00:00Z", "31.05.2024", "", "1.5", 1.5, float("nan"), True, [], {}]
)
def test_what_is_no_whole_number_is_told_the_unit(value):
    assert number_problem(value).endswith(f" is no whole number; {WANT}")
    event = {"user_id": "u", "item_id": "i", "event_type": "view", "event_timestamp": value}
    for model, body in ((Event, event), (Filters, {"published_after": value})):
        with pytest.raises(ValueError, match="is no whole number; want microseconds since 1970"):
            model.model_validate(body)


@pytest.mark.parametrize("value", [NOW, float(NOW), str(NOW), f" {NOW} ", f"{NOW}.0"])
def test_whole_numbers_pass(value):
    assert number_problem(value) is None
    assert Filters(published_after=value).published_after == NOW
