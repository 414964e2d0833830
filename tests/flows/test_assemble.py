"""Training histories from the events of the lake."""

import numpy as np
import pyarrow as pa

from flows.training.assemble import RunData, reviews_before, training_data
from shortlist import columns as c
from shortlist.contracts import EVENT_CODE, TIMESTAMP
from shortlist.features.profiles import ProfileEncoder
from shortlist.splits import split_windows
from tests.models.small_data import catalogue_of


def test_histories_carry_the_type_of_each_items_newest_event():
    events = [  # user, item, event type, value
        ("u2", "i001", "click", None),
        ("u1", "i002", "click", None),
        ("u1", "gone", "dislike", None),
        ("u1", "i001", "purchase", 9.5),
        ("u1", "i002", "purchase", 3.0),  # replaces the click of the same item
        ("u2", "i003", "dislike", None),
        ("u2", "i002", "click", None),  # at `end`, so excluded
    ]
    time = np.arange(len(events), dtype=np.int64)
    columns = zip(*events, strict=True)
    names = (c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.VALUE)
    run_data = RunData(
        interactions=pa.table(
            {name: list(values) for name, values in zip(names, columns, strict=True)}
            | {c.EVENT_TIMESTAMP: pa.array(time).cast(TIMESTAMP)}
            | {c.INGESTED_AT: pa.array(time).cast(TIMESTAMP), c.SOURCE: ["test"] * len(events)}
        ),
        asked=time,
        users=pa.table({c.USER_ID: [], c.ATTRIBUTES: []}),
        catalogue=catalogue_of([[]] * 3),
        windows=split_windows(np.arange(100), (0.6, 0.1, 0.1, 0.1)),
    )
    data = training_data(run_data, ProfileEncoder.fit([{}]), end=6)
    assert data.offsets.tolist() == [0, 2, 4]
    assert data.item_idx.tolist() == [1, 2, 1, 3]
    types = ("purchase", "purchase", "click", "dislike")
    assert data.type_code.tolist() == [EVENT_CODE[name] for name in types]
    np.testing.assert_array_equal(data.value, [9.5, 3.0, np.nan, np.nan])
    assert data.all_events.item_idx.tolist() == [
        2,
        4,
        1,
        2,
        1,
        3,
    ]  # also the repeated item and the item that isn't in the catalogue
    assert data.num_event_types == 3


def test_reviews_are_those_that_were_written_and_known_before_the_window_ends():
    reviews = [  # item, text, time, time of arrival, source
        ("i001", "first", 1, 1, "test"),
        ("i002", "second", 4, 4, "test"),
        ("i002", "written late", 6, 6, "test"),
        ("i003", "posted late", 2, 9, "service:"),
        ("gone", "of no item", 3, 3, "test"),
    ]
    item, text, time, arrived, source = zip(*reviews, strict=True)
    run_data = RunData(
        interactions=pa.table({c.EVENT_TIMESTAMP: pa.array([], TIMESTAMP)}),
        asked=np.array([]),
        users=pa.table({c.USER_ID: [], c.ATTRIBUTES: []}),
        catalogue=catalogue_of([[]] * 3),
        windows=split_windows(np.arange(100), (0.6, 0.1, 0.1, 0.1)),
    )
    assert reviews_before(run_data, 6) is None
    run_data.__dict__["reviews"] = pa.table(
        {
            c.ITEM_ID: item,
            c.TEXT: text,
            c.EVENT_TIMESTAMP: pa.array(time).cast(TIMESTAMP),
            c.INGESTED_AT: pa.array(arrived).cast(TIMESTAMP),
            c.SOURCE: source,
        }
    )
    found = reviews_before(run_data, 6)
    assert found is not None
    assert found.newest(3, limit=5) == [[], ["first"], ["second"], []]
    later = reviews_before(run_data, 10)
    assert later is not None
    assert later.newest(3, limit=5) == [
        [],
        ["first"],
        ["written late", "second"],
        ["posted late"],
    ]
