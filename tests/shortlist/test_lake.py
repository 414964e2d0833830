"""The lake: idempotent publishing, upserts, sort order, and atomic commits."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shortlist import columns as c
from shortlist.contracts import (
    INTERACTIONS,
    ITEMS,
    TIMESTAMP,
    USERS,
    ContractError,
    microseconds,
)
from shortlist.lake import Lake, LakeError, Published, open_staged, publish_batch, write_whole
from shortlist.lake.partitions import MAX_FILES, granularity_for
from shortlist.lake.snapshot import locked

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
    assert ids_of(before) == ["e2", "e1"]  # sorted by time


def test_only_new_events_of_an_overlapping_batch_are_added(lake: Lake) -> None:
    lake.publish("one", interactions(("e1", "u", "a", 1)), items(a="A"), users("u"))
    later = interactions(("e1", "u", "a", 1), ("e2", "u", "a", 2), ("e2", "u", "a", 3))
    figures = lake.publish("two", later, items(a="A"), users("u"))
    assert (figures["interactions"], figures["known"]) == (1, 2)
    assert ids_of(lake.interactions()) == ["e1", "e2"]
    assert [path.name for path in lake.interaction_files()] == ["000001.parquet", "000002.parquet"]


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
    """Events can be read by time and by event type."""
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


def test_a_page_was_asked_for_at_its_first_event(lake: Lake) -> None:
    """An event was requested with its page's first event, if that is at most 30 minutes earlier."""
    minute = 60_000_000

    def of(page: str | None, *events: Event, event_type: str) -> pa.Table:
        table = interactions(*events, event_type=event_type)
        place = table.schema.get_field_index(c.REQUEST_ID)
        pages = pa.array([page] * len(events), pa.string())
        return table.set_column(place, table.schema.field(place), pages)

    shown = (("s1", "u", "a", 100), ("s2", "u", "b", 100), ("s3", "v", "b", 7))
    chosen = pa.concat_tables(
        [
            of("p", ("c1", "u", "a", 110), ("c2", "u", "b", 120), event_type="click"),
            # Over 30 minutes after its page, so it counts as a separate request.
            of("p", ("c3", "u", "c", 100 + 31 * minute), event_type="click"),
            of("", ("c4", "u", "d", 130), event_type="click"),
            of(None, ("c5", "u", "e", 140), event_type="click"),
            of("never logged", ("c6", "u", "f", 150), event_type="click"),
        ]
    )
    own = microseconds(chosen.column(c.EVENT_TIMESTAMP)).to_pylist()
    assert lake.asked_at(chosen).tolist() == own  # the lake is still empty
    lake.publish("shown", of("p", *shown, event_type="impression"), items(a="A"), users("u"))
    lake.publish("chosen", chosen, items(), users())
    assert lake.asked_at(chosen).tolist() == [100, 100, *own[2:]]


def test_an_empty_lake_says_what_to_run(lake: Lake) -> None:
    for read in (lake.interactions, lake.items, lake.users):
        with pytest.raises(LakeError, match="shortlist run"):
            read()
    assert lake.interaction_files() == []
    with pytest.raises(LakeError, match="batch 'b1' was not ingested"):
        open_staged(lake.root, "b1")


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


def test_a_reader_keeps_the_snapshot_it_began_with(lake: Lake) -> None:
    lake.publish("one", interactions(("e1", "u", "a", 1)), items(a="A"), users("u"))
    files = lake.interaction_files()
    for number in (2, 3):
        event = interactions((f"e{number}", "u", "a", number))
        lake.publish(str(number), event, items(a="A"), users("u"))
    assert ids_of(pq.read_table(files[0], partitioning=None)) == ["e1"]
    assert len(lake.interaction_files()) == 3


def test_anything_that_reads_parquet_reads_it(lake: Lake) -> None:
    """Other Parquet readers can read the lake's partitions."""
    lake.publish("one", interactions(("e1", "u", "a", 1)), items(a="A"), users("u"))
    lake.publish("two", interactions(("e2", "u", "a", 2)), items(a="A"), users("u"))
    pattern = str(lake.root / "current" / "interactions" / "**" / "*.parquet")
    found = duckdb.sql(f"SELECT event_id, event_year FROM '{pattern}' ORDER BY 1").fetchall()
    assert found == [("e1", 1970), ("e2", 1970)]
    assert pq.read_table(lake.root / "current" / "interactions").num_rows == 2


def test_partitions_are_as_wide_as_the_data_needs() -> None:
    """Partitions are days, months or years, by the number of events per day."""
    day = 86_400_000_000
    assert granularity_for(100_000_000, earliest=0, latest=90 * day) == "day"
    assert granularity_for(100_000, earliest=0, latest=215 * day) == "month"
    assert granularity_for(100_000, earliest=0, latest=20 * 365 * day) == "year"
    assert granularity_for(1, earliest=0, latest=0) == "year"


def test_late_events_land_in_their_partition_and_say_what_is_stale(lake: Lake) -> None:
    day = 86_400_000_000
    lake.publish("one", interactions(("e1", "u", "a", 700 * day)), items(a="A"), users("u"))
    late = interactions(("e2", "u", "a", 10 * day), ("e3", "u", "a", 800 * day))
    lake.publish("two", late, items(a="A"), users("u"))
    manifest = lake.manifest
    assert sorted(manifest.partitions) == ["1970", "1971", "1972"]
    assert manifest.batches[-1]["earliest"] == 10 * day
    assert manifest.batches[-1]["late"] == 1
    assert [path.parent.name for path in lake.interaction_files()] == [
        *("event_year=1970", "event_year=1971", "event_year=1972")
    ]


def test_many_small_batches_are_compacted(lake: Lake) -> None:
    for number in range(MAX_FILES + 1):
        event = interactions((f"e{number}", "u", "a", 100 - number))
        lake.publish(str(number), event, items(a="A"), users("u"))
    assert len(lake.interaction_files()) == 1
    assert ids_of(lake.interactions()) == [f"e{n}" for n in reversed(range(MAX_FILES + 1))]
    assert len(list((lake.root / "snapshots").iterdir())) == 3


def test_two_writers_are_kept_apart(lake: Lake) -> None:
    """A second writer is refused while the lake is locked."""
    batch = interactions(("e1", "u", "a", 1)), items(a="A"), users("u")
    with (
        locked(lake.root),
        pytest.raises(LakeError, match=r"process \d+ is writing to this lake; wait"),
    ):
        lake.publish("one", *batch)
    assert lake.publish("one", *batch)["interactions"] == 1


def test_sessions_run_across_batches_and_partitions(lake: Lake) -> None:
    """A session continues in later batches and over the end of a year."""
    minute, year = 60_000_000, 365 * 86_400_000_000
    first = [("e1", "u", "a", year - 40 * minute), ("e2", "u", "a", year - 20 * minute)]
    second = [("e3", "u", "a", year - 5 * minute), ("e4", "u", "a", year + 10 * minute)]
    third = [("e5", "u", "a", year + 41 * minute), ("e6", "v", "a", year)]
    for number, events in enumerate((first, second, third)):
        publish_batch(
            lake.root,
            str(number),
            events=interactions(*events),
            items=items(a="A"),
            users=users("u", "v"),
            given_ids=True,
            session_gap=30 * minute,
        )
    sessions = {row["event_id"]: row["session_id"] for row in lake.interactions().to_pylist()}
    start = (year - 40 * minute) // 1_000_000
    assert {sessions[f"e{n}"] for n in (1, 2, 3, 4)} == {f"u@{start}"}
    assert sessions["e5"] == f"u@{(year + 41 * minute) // 1_000_000}"
    assert sessions["e6"] == f"v@{year // 1_000_000}"


def operation(kind: str, *events: Event) -> pa.Table:
    table = interactions(*events)
    return table.append_column("operation", pa.array([kind] * table.num_rows))


def apply(lake: Lake, kind: str, *events: Event) -> Published:
    return publish_batch(
        lake.root,
        kind,
        events=operation(kind, *events),
        items=items(a="A"),
        users=users("u"),
        given_ids=True,
        operations=True,
    )


def test_corrections_and_deletions(lake: Lake) -> None:
    year = 400 * 86_400_000_000
    events = interactions(("e1", "u", "a", 1), ("e2", "u", "a", 2), ("e3", "u", "a", 3))
    lake.publish("one", events, items(a="A"), users("u"))
    deleted = apply(lake, "delete", ("e1", "u", "a", 1))
    assert (deleted.applied, deleted.accepted, deleted.earliest) == (1, 0, 1)
    assert ids_of(lake.interactions()) == ["e2", "e3"]
    moved = apply(lake, "correct", ("e2", "u", "a", year))
    assert (moved.applied, moved.earliest) == (1, 2)
    assert ids_of(lake.interactions()) == ["e3", "e2"]
    # Publishing the first batch again restores neither the deleted nor the uncorrected event.
    again = lake.publish("one", events, items(a="A"), users("u"))
    assert (again["interactions"], again["known"]) == (0, 3)
    assert ids_of(lake.interactions()) == ["e3", "e2"]
    assert sum(part["rows"] for part in lake.manifest.partitions.values()) == 2


def priced(**prices: float | None) -> pa.Table:
    """Return items with prices; an item with None is unavailable."""
    rows = [
        {c.ITEM_ID: id_, c.CATEGORIES: [], c.PRICE: price or 1.0, c.AVAILABLE: price is not None}
        for id_, price in prices.items()
    ]
    return pa.Table.from_pylist(rows, schema=ITEMS)


def versions_of(lake: Lake) -> list[tuple[str, int, float, bool]]:
    names = (c.ITEM_ID, c.KNOWN_AT, c.PRICE, c.AVAILABLE)
    rows = lake.item_versions().select(names).to_pylist()
    return sorted(tuple(row[name] for name in names) for row in rows)


def test_a_version_is_kept_for_each_change_of_an_item_and_none_for_a_repeat(lake: Lake) -> None:
    event = interactions(("e1", "u", "a", 1))
    lake.publish("one", event, priced(a=1, b=2), users("u"), arrived=1_000)
    lake.publish("two", event, priced(a=1, b=2), users("u"), arrived=2_000)
    first = [("a", 0, 1.0, True), ("b", 0, 2.0, True)]
    assert versions_of(lake) == first
    one = Lake(lake.root, version=lake.manifest.version)
    lake.publish("three", event, priced(a=3, c=5), users("u"), arrived=3_000)
    lake.publish("four", event, priced(a=None), users("u"), arrived=3_000)
    later = [("a", 3_000, 3.0, True), ("a", 3_001, 1.0, False), ("c", 3_000, 5.0, True)]
    assert versions_of(lake) == sorted(first + later)
    assert versions_of(one) == first  # a reader of the old snapshot sees the old versions
    last = {row[0]: row[2:] for row in versions_of(lake)}
    current = lake.items().select([c.ITEM_ID, c.PRICE, c.AVAILABLE]).to_pylist()
    assert last == {row[c.ITEM_ID]: (row[c.PRICE], row[c.AVAILABLE]) for row in current}


def test_a_home_without_versions_begins_with_its_items(lake: Lake) -> None:
    event = interactions(("e1", "u", "a", 1))
    lake.publish("one", event, priced(a=1, b=2), users("u"))
    assert lake.folder is not None
    (lake.folder / "items_versions.parquet").unlink()  # as in a lake written by older code
    old = lake.items()
    write_whole(old.drop_columns([c.UPDATED_AT]), lake.folder / "items.parquet")
    assert versions_of(lake) == [("a", 0, 1.0, True), ("b", 0, 2.0, True)]
    lake.publish("two", event, priced(b=4), users("u"), arrived=7)
    assert versions_of(lake) == [("a", 0, 1.0, True), ("b", 0, 2.0, True), ("b", 7, 4.0, True)]


def test_updated_at_dates_an_imported_version_and_no_live_one(lake: Lake) -> None:
    event, day = interactions(("e1", "u", "a", 1)), 86_400_000_000
    lake.publish("one", event, priced(a=1, b=2, c=3), users("u"))
    table = priced(a=5, b=6, c=3)
    stamps = pa.array([10 * day, 29 * day, 10 * day], pa.int64()).cast(TIMESTAMP)
    place = table.schema.get_field_index(c.UPDATED_AT)
    stamped = table.set_column(place, table.schema.field(place), stamps)
    lake.publish("two", event, stamped, users("u"), arrived=30 * day)
    # The stamp of `a` is old enough for imported history, so its version starts at the stamp. The
    # stamp of `b` is a day old, so its version starts on arrival. Of `c`, only the stamp changed.
    assert [row[:2] for row in versions_of(lake)] == [
        ("a", 0),
        ("a", 10 * day),
        ("b", 0),
        ("b", 30 * day),
        ("c", 0),
    ]


def test_the_row_of_an_item_that_was_only_mentioned_is_no_version(lake: Lake) -> None:
    """A placeholder row of an item is replaced by its first real row as the first version."""
    event = interactions(("e1", "u", "a", 1))
    bare = pa.Table.from_pylist(
        [{c.ITEM_ID: "a", c.CATEGORIES: [], c.AVAILABLE: True}], schema=ITEMS
    )
    lake.publish("one", event, bare, users("u"), arrived=10)
    lake.publish("two", event, priced(a=2, b=3), users("u"), arrived=20)
    assert versions_of(lake) == [("a", 0, 2.0, True), ("b", 20, 3.0, True)]
