"""The lake: idempotent publishing, upserts, order, and no half-written state."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shortlist import columns as c
from shortlist.contracts import INTERACTIONS, ITEMS, TIMESTAMP, USERS, ContractError
from shortlist.lake import Lake, LakeError, write_whole

Event = tuple[str, str, str, int]  # event_id, user, item, microseconds


def interactions(*events: Event, event_type: str = "rating") -> pa.Table:
    n = len(events)
    time = pa.array([event[3] for event in events], pa.int64()).cast(TIMESTAMP)
    given = {
        c.EVENT_ID: [event[0] for event in events],
        c.USER_ID: [event[1] for event in events],
        c.ITEM_ID: [event[2] for event in events],
        c.EVENT_TYPE: [event_type] * n,
        c.EVENT_TIMESTAMP: time,
        c.EVENT_ORDER: range(n),
        c.INGESTED_AT: time,
        c.SOURCE: ["test"] * n,
    }
    return pa.table(
        [pa.array(given.get(field.name, [None] * n), field.type) for field in INTERACTIONS],
        schema=INTERACTIONS,
    )


def items(**titles: str) -> pa.Table:
    rows = [
        {c.ITEM_ID: id_, c.TITLE: title, c.CATEGORIES: [], c.AVAILABLE: True}
        for id_, title in titles.items()
    ]
    return pa.Table.from_pylist(rows, schema=ITEMS)


def users(*ids: str) -> pa.Table:
    return pa.Table.from_pylist([{c.USER_ID: id_} for id_ in ids], schema=USERS)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def ids_of(table: pa.Table) -> list[str]:
    return table.column(c.EVENT_ID).to_pylist()


def test_publishing_twice_changes_nothing(lake: Lake) -> None:
    batch = (interactions(("e1", "u", "a", 10), ("e2", "u", "b", 5)), items(a="A", b="B"))
    first = lake.publish("one", *batch, users("u"))
    assert first == {"interactions": 2, "known": 0, "items": 2, "users": 1}
    before = lake.interactions()
    lake.publish("one", *batch, users("u"))
    other_name = lake.publish("two", *batch, users("u"))
    assert other_name == {"interactions": 0, "known": 2, "items": 2, "users": 1}
    assert lake.interactions().equals(before)
    assert ids_of(before) == ["e2", "e1"]  # by time


def test_only_new_events_of_an_overlapping_batch_are_added(lake: Lake) -> None:
    lake.publish("one", interactions(("e1", "u", "a", 1)), items(a="A"), users("u"))
    later = interactions(("e1", "u", "a", 1), ("e2", "u", "a", 2), ("e2", "u", "a", 3))
    figures = lake.publish("two", later, items(a="A"), users("u"))
    assert (figures["interactions"], figures["known"]) == (1, 2)
    assert ids_of(lake.interactions()) == ["e1", "e2"]
    assert [path.name for path in lake.interaction_files()] == ["one.parquet", "two.parquet"]


def test_items_and_users_are_replaced_by_id(lake: Lake) -> None:
    lake.publish("one", interactions(("e1", "u", "a", 1)), items(a="A", b="B"), users("u"))
    lake.publish("two", interactions(("e2", "v", "c", 2)), items(b="New", c="C"), users("v"))
    table = lake.items()
    titles = zip(
        table.column(c.ITEM_ID).to_pylist(), table.column(c.TITLE).to_pylist(), strict=True
    )
    assert dict(titles) == {"a": "A", "b": "New", "c": "C"}
    assert lake.users().column(c.USER_ID).to_pylist() == ["u", "v"]


def test_vectors_of_items_survive_a_batch_without_them(lake: Lake) -> None:
    vectors = pa.array([[1.0, 2.0]], pa.list_(pa.float32()))
    with_vector = items(a="A").append_column("vector_image", vectors)
    lake.publish("one", interactions(("e1", "u", "a", 1)), with_vector, users("u"))
    lake.publish("two", interactions(("e2", "u", "b", 2)), items(b="B"), users("u"))
    assert lake.items().column("vector_image").to_pylist() == [[1.0, 2.0], None]


def test_reading_a_part(lake: Lake) -> None:
    events = [("e1", "u", "a", 10), ("e2", "u", "a", 20), ("e3", "u", "a", 30)]
    lake.publish("one", interactions(*events), items(a="A"), users("u"))
    likes = interactions(("e4", "u", "a", 20), event_type="like")
    lake.publish("two", likes, items(a="A"), users("u"))
    assert ids_of(lake.interactions(since=20, until=30, event_types=["rating"])) == ["e2"]
    assert ids_of(lake.interactions(since=20)) == ["e4", "e2", "e3"]
    assert ids_of(lake.interactions(until=20)) == ["e1"]
    assert lake.interactions(since=99).num_rows == 0
    assert lake.interactions().schema.equals(INTERACTIONS)
    with pytest.raises(LakeError, match="no events of type hide"):
        lake.interactions(event_types=["hide"])


def test_an_empty_lake_says_what_to_run(lake: Lake) -> None:
    for read in (lake.interactions, lake.items, lake.users):
        with pytest.raises(LakeError, match="shortlist run"):
            read()
    assert lake.interaction_files() == []
    with pytest.raises(LakeError, match="batch 'b1' was not ingested"):
        lake.read_incoming("b1")


def test_a_staged_batch_is_not_yet_in_the_lake(lake: Lake) -> None:
    batch = interactions(("e1", "u", "a", 1)), items(a="A"), users("u")
    lake.stage("b1", *batch)
    assert all(a.equals(b) for a, b in zip(lake.read_incoming("b1"), batch, strict=True))
    with pytest.raises(LakeError):
        lake.interactions()


def test_a_table_that_breaks_its_contract_leaves_the_lake_as_it_was(lake: Lake) -> None:
    lake.publish("one", interactions(("e1", "u", "a", 1)), items(a="A"), users("u"))
    before = {path: path.read_bytes() for path in lake.root.rglob("*") if path.is_file()}
    numeric = pa.table({c.USER_ID: pa.array([196.0, None])})
    with pytest.raises(ContractError, match="missing ids became NaN"):
        lake.publish("two", interactions(("e2", "u", "b", 2)), items(b="B"), numeric)
    assert {path: path.read_bytes() for path in lake.root.rglob("*") if path.is_file()} == before


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    write_whole(users("u"), path)
    unwritable = pa.table({"a": pa.nulls(1, pa.month_day_nano_interval())})
    with pytest.raises(pa.ArrowNotImplementedError):
        write_whole(unwritable, path)
    assert pq.read_table(path).equals(users("u"))
    assert [file.name for file in tmp_path.iterdir()] == ["table.parquet"]


def test_readers_do_not_see_a_write_that_was_cut_off(lake: Lake) -> None:
    lake.publish("one", interactions(("e1", "u", "a", 1)), items(a="A"), users("u"))
    (lake.root / "interactions" / ".two.parquet.7.partial").write_bytes(b"PAR1 cut")
    assert ids_of(lake.interactions()) == ["e1"]
