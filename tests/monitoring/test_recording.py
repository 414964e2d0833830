"""Figures of how traffic is recorded, of what users saw before, and of coverage, by hand."""

import numpy as np
import pyarrow as pa
import pytest

from monitoring.traffic.cuts import FigureError, by, figure, values_of
from monitoring.traffic.join import DAY, HOUR, join_outcomes
from monitoring.traffic.measures import MEASURES
from monitoring.traffic.recording import ROBOT_REQUESTS
from monitoring.traffic.whole import LISTS
from shortlist.contracts import ITEMS, TIMESTAMP
from shortlist.items.catalogue import Catalogue
from tests.monitoring.conftest import as_table, event_table
from tests.monitoring.test_traffic import START, joined, tables

SECOND = 1_000_000


def value(name: str, traffic, where: str = "all") -> float:
    return figure(name, traffic, where=where).value


@pytest.fixture(scope="module")
def feedback():
    """Two lists and ten events, of which one is not feedback and one is older than the lists."""
    lists = [("ra", "a", START, ["i1", "i2"]), ("rb", "b", START + DAY, ["i3", "i1"])]
    events = [
        ("a", "i1", START - HOUR, None, None, "click"),  # before the first list
        ("a", "i1", START + SECOND, None, "ra", "click"),
        ("a", "i1", START + 3 * SECOND, None, "ra", "click"),  # repeats it
        ("a", "i1", START + 90 * SECOND, None, "ra", "click"),  # more than a minute later
        ("a", "i2", START + SECOND, None, None, "click"),  # names no list
        ("a", "i2", START + SECOND, 5.0, "ra", "watch"),
        ("a", "i2", START + 9 * SECOND, 5.0, "ra", "watch"),  # watch time may come twice
        ("b", "i3", START + DAY - 1, None, "rb", "like"),  # dated before its list
        ("b", "i5", START + DAY + 1, None, "rb", "like"),  # rb didn't show i5
        ("c", "i1", START + DAY + 1, None, "rx", "rating"),  # rx isn't logged; c has no list
        ("b", "i3", START + DAY + 1, None, None, "return"),  # no feedback
    ]
    return joined(lists, events)


def test_events_tell_how_they_are_recorded(feedback):
    assert len(feedback.events) == 9
    assert value("attributed_event_rate", feedback) == 8 / 9
    assert value("unlisted_event_rate", feedback) == 2 / 8
    assert value("early_event_rate", feedback) == 1 / 6
    assert value("repeated_event_rate", feedback) == 1 / 7
    assert value("attributed_event_rate", feedback, "event_type=click") == 3 / 4
    assert set(by(MEASURES["early_event_rate"], feedback, "event_type")) == {
        "click", "like", "rating", "watch",
    }  # fmt: skip
    with pytest.raises(FigureError, match="want all, or one of day, event_type"):
        figure("early_event_rate", feedback, where="arm=main")


def test_events_go_with_their_time_or_with_their_list(feedback):
    later = feedback.between(START + DAY - 2, START + 2 * DAY)
    assert (len(later.requests), len(later.events)) == (1, 3)
    assert later.events["request"].tolist() == [0, -1, -1]
    first = feedback.pick(np.array([True, False]))
    assert len(first.events) == 8  # those of ra, and those without a logged list
    assert first.events["listed"].sum() == 5
    alone = feedback.between(START + 1, START + DAY)  # the list of these events is earlier
    assert alone.events["listed"].sum() == len(alone.events) - 1
    assert (alone.events["request"] == -1).all()
    assert len(alone.pick(np.zeros(0, dtype=bool)).events) == len(alone.events)


def test_late_events_count_when_they_happen_and_when_they_arrive():
    requests, shown = tables([("ra", "a", START, ["i1"]), ("rb", "b", START + 5 * DAY, ["i1"])])
    table = event_table(
        [("a", "i1", START + 1, None, "ra", "click"), ("a", "i1", START + 2, None, "ra", "like")]
    )
    times = pa.array([START + 3 * DAY, START + 23 * HOUR], pa.int64())
    place = table.schema.get_field_index("ingested_at")
    table = table.set_column(place, table.schema.field(place), times.cast(TIMESTAMP))
    traffic = join_outcomes(
        requests,
        shown,
        table,
        catalogue=joined([("ra", "a", START, ["i1"])], []).catalogue,
        item_counts=np.zeros(7),
        target_events=("click",),
        until=START + 9 * DAY,
    )
    assert value("late_event_rate", traffic.between(START, START + DAY)) == 1 / 2
    assert value("late_event_rate", traffic.between(START + 2 * DAY, START + 4 * DAY)) == 1
    assert len(traffic.between(START + DAY, START + 2 * DAY).events) == 0


def test_prices_are_compared_with_the_catalogues():
    about = {"categories": [], "available": True}
    items = [about | {"item_id": f"i{n}", "price": 10.0} for n in (1, 2)]
    items.append(about | {"item_id": "i3"})
    requests, shown = tables([("ra", "a", START, ["i1", "i2", "i3"])])
    events = [
        ("a", "i1", START + 1, 10.0, "ra", "add_to_cart"),
        ("a", "i1", START + 2, 19.0, "ra", "purchase"),
        ("a", "i2", START + 2, 1_000.0, "ra", "purchase"),  # in cents
        ("a", "i2", START + 3, 4.0, "ra", "add_to_cart"),  # less than half
        ("a", "i3", START + 3, 4.0, "ra", "purchase"),  # without a price in the catalogue
        ("a", "i1", START + 3, 900.0, "ra", "watch"),
    ]
    traffic = join_outcomes(
        requests,
        shown,
        event_table(events),
        catalogue=Catalogue.from_items(as_table(items, ITEMS)),
        item_counts=np.zeros(4),
        target_events=("click",),
        until=START + 2 * DAY,
    )
    assert value("odd_price_rate", traffic) == 2 / 4


def test_robots_ask_often_and_click_nothing_or_most():
    lists, events = [], []
    for n in range(ROBOT_REQUESTS):
        at = START + n * HOUR
        lists += [(f"{user}{n}", user, at, ["i1", "i2"]) for user in ("person", "idle", "eager")]
        events += [("eager", item, at + 1, None, f"eager{n}", "click") for item in ("i1", "i2")]
    events.append(("person", "i1", START + 1, None, "person0", "click"))
    lists.append(("once", "visitor", START, ["i1"]))
    traffic = joined(lists, events)
    assert value("robot_request_rate", traffic) == 2 * ROBOT_REQUESTS / len(lists)


def test_items_chosen_before_are_counted_for_28_days():
    lists = [
        ("ra", "a", START + 30 * DAY, ["i1", "i2"]),
        ("rb", "b", START + 30 * DAY, ["i1", "i3"], {"first_position": 1}),
    ]
    events = [
        ("a", "i1", START + 29 * DAY, None, None, "click"),
        ("a", "i2", START + DAY, None, None, "click"),  # 29 days before
        ("b", "i1", START + 29 * DAY, None, None, "watch"),  # no target event
        ("b", "i3", START + 30 * DAY, None, "rb", "click"),  # at the time of the list
    ]
    assert value("seen_item_rate", joined(lists, events)) == 1 / 4


def test_sources_are_counted_per_list():
    requests, shown = tables([("ra", "a", START, ["i1", "i2"]), ("rb", "b", START, ["i1", "i2"])])
    sources = ["ease", "popular", "ease", "ease"]
    shown = shown.set_column(shown.schema.get_field_index("source"), "source", [np.array(sources)])
    traffic = joined([("ra", "a", START, ["i1"])], [])
    traffic = join_outcomes(
        requests,
        shown,
        event_table([]),
        catalogue=traffic.catalogue,
        item_counts=traffic.item_counts,
        target_events=("click",),
        until=START + DAY,
    )
    assert value("sources_per_list", traffic) == 3 / 2
    assert values_of("exposure/source=*", traffic) == ["ease", "popular"]


def test_coverage_of_new_items_and_of_categories():
    """Of 50 items per category, half of `a`, all of `b`; 40 of all are new, 10 of those shown."""
    items = [
        {
            "item_id": f"i{n}",
            "categories": ["a" if n < 50 else "b"],
            "available": True,
            "published_at": START - (5 if 15 <= n < 55 else 90) * DAY,
        }
        for n in range(100)
    ] + [{"item_id": "single", "categories": ["c"], "available": True}]
    shown_items = [f"i{n}" for n in (*range(25), *range(50, 100))]
    lists = [(f"r{n}", f"u{n}", START + n, shown_items) for n in range(LISTS)]
    requests, shown = tables(lists)
    traffic = join_outcomes(
        requests,
        shown,
        event_table([]),
        catalogue=Catalogue.from_items(as_table(items, ITEMS)),
        item_counts=np.zeros(102),
        target_events=("click",),
        until=START + DAY,
    )
    assert value("coverage", traffic) == pytest.approx(75 / 101)
    assert value("new_item_coverage", traffic) == pytest.approx(15 / 40)  # 10 of a, 5 of b
    assert values_of("coverage/category=*", traffic) == ["a", "b"]
    assert value("coverage/category=a", traffic) == pytest.approx(0.5 / (75 / 101))
    assert np.isnan(value("coverage/category=c", traffic))
    with pytest.raises(FigureError, match="exposure/<column>=\\*"):
        values_of("exposure/colour=*", traffic)
