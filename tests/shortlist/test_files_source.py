"""Files with a column mapping: CSV, JSON Lines and Parquet give one batch; bad ones are named."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from shortlist.contracts import ContractError, microseconds
from shortlist.datasets import DatasetError, FilesConfig
from shortlist.datasets.files import load_files

NOW = 1_700_000_000_000_000
EVENTS = [
    {"who": "00196", "what": "a", "stars": 4.0, "when": 881250949},
    {"who": "7", "what": "b", "stars": 2.0, "when": 881250950},
    {"who": "7", "what": "c", "stars": None, "when": 881250951},
]
COLUMNS = {"user_id": "who", "item_id": "what", "value": "stars", "event_timestamp": "when"}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(table, path)
    return path


def config(path: Path, **more: Any) -> FilesConfig:
    sections = {name: more.pop(name) for name in ("items", "users") if name in more}
    interactions = {"path": path, "columns": COLUMNS, "event_type": "rating"} | more
    return FilesConfig.model_validate({"interactions": interactions} | sections)


def load(path: Path, *, like_threshold: float | None = None, **more: Any):
    return load_files(config(path, **more), like_threshold=like_threshold, now=NOW)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_every_format_gives_the_same_batch(tmp_path: Path, ending: str) -> None:
    batch = load(write(tmp_path / f"events.{ending}", EVENTS), like_threshold=4.0)
    events = batch.interactions.drop_columns(["source"])
    assert events.column("user_id").to_pylist() == ["00196", "7", "7", "00196"]
    assert events.column("event_type").to_pylist() == ["rating", "rating", "rating", "like"]
    assert events.column("event_order").to_pylist() == [0, 2, 4, 1]
    assert events.column("value").to_pylist() == [4, 2, None, 4]
    assert microseconds(events.column("event_timestamp")).to_pylist() == [
        *(881_250_949_000_000, 881_250_950_000_000, 881_250_951_000_000, 881_250_949_000_000)
    ]
    assert batch.items.column("item_id").to_pylist() == ["a", "b", "c"]
    assert batch.users.column("user_id").to_pylist() == ["00196", "7"]
    reference = load(write(tmp_path / "again.csv", EVENTS), like_threshold=4.0)
    assert events.equals(reference.interactions.drop_columns(["source"]))


def test_items_and_users_are_mapped(tmp_path: Path) -> None:
    items = [
        {
            "sku": "a",
            "name": "Alpha",
            "genres": "film|noir",
            "cost": 2.5,
            "year": "1995",
            "by": "X",
        },
        {"sku": "b", "name": "Beta", "genres": "", "cost": None, "year": "1996-05-31", "by": ""},
    ]
    users = [{"id": "00196", "group": "young"}, {"id": "8", "group": ""}]
    batch = load(
        write(tmp_path / "events.csv", EVENTS),
        items={
            "path": write(tmp_path / "items.csv", items),
            "columns": {
                **{"item_id": "sku", "title": "name", "categories": "genres"},
                **{"price": "cost", "published_at": "year"},
            },
            "attributes": ["by"],
        },
        users={
            "path": write(tmp_path / "users.csv", users),
            "columns": {"user_id": "id"},
            "attributes": ["group"],
        },
    )
    assert batch.items.column("categories").to_pylist() == [["film", "noir"], []]
    assert batch.items.column("price").to_pylist() == [2.5, None]
    assert [str(day)[:10] for day in batch.items.column("published_at").to_pylist()] == [
        *("1995-01-01", "1996-05-31")
    ]
    assert batch.items.column("attributes").to_pylist() == [[("by", "X")], []]
    # User 7 is in no users file but acts: it is a user without attributes.
    assert batch.users.column("user_id").to_pylist() == ["00196", "8", "7"]
    assert batch.users.column("attributes").to_pylist() == [[("group", "young")], [], None]


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 1_000), ("us", 1_000_000)])
def test_units_of_time(tmp_path: Path, unit: str, factor: int) -> None:
    rows = [event | {"when": event["when"] * factor} for event in EVENTS]
    events = load(write(tmp_path / "events.csv", rows), timestamp_unit=unit).interactions
    assert microseconds(events.column("event_timestamp"))[0].as_py() == 881_250_949_000_000


def test_iso_times_and_given_event_ids(tmp_path: Path) -> None:
    rows = [
        {"who": "u", "what": "a", "at": "1997-12-04T15:55:49.000001Z", "id": "x1", "kind": "click"},
        {"who": "u", "what": "b", "at": "1997-12-04T16:55:49+01:00", "id": "x2", "kind": "view"},
    ]
    columns = {
        **{"user_id": "who", "item_id": "what", "event_timestamp": "at"},
        **{"event_id": "id", "event_type": "kind", "query": "kind"},
    }
    path = write(tmp_path / "events.csv", rows)
    events = load(path, columns=columns, event_type=None, timestamp_unit="iso").interactions
    assert microseconds(events.column("event_timestamp")).to_pylist() == [
        *(881_250_949_000_001, 881_250_949_000_000)
    ]
    assert events.column("event_id").to_pylist() == ["x1", "x2"]
    assert events.column("event_type").to_pylist() == ["click", "view"]
    assert events.column("query").to_pylist() == ["click", "view"]


def bad(**changes: Any) -> list[dict[str, Any]]:
    return [*EVENTS, EVENTS[0] | changes]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("e.csv", b"", "e.csv: is empty"),
        ("e.csv", b"who,what,stars,when\nu,a,1,5\nu,a\n", "e.csv: cannot be read as csv.*2"),
        ("e.csv", b"who,what,stars,when\nu,\xff\xfe,1,5\n", "e.csv: cannot be read as csv"),
        ("e.csv", b"who,what,stars\nu,a,1\n", "no column 'when'; there are who, what, stars"),
        ("e.csv", b"who,who,what,stars,when\nu,v,a,1,5\n", "column 'who' is there 2 times"),
        ("e.csv", b"who,what,stars,when\nu,a,four,5\n", "column 'stars' is not numeric.*four"),
        ("e.csv", b"who,what,stars,when\nu,a,4,5\nu,a,4,\n", "'when', row 2: '' is no time in 's'"),
        ("e.csv", b"who,what,stars,when\nu,a,4,881250949000\n", "another timestamp_unit"),
        ("e.jsonl", b'{"who": "u"\n', "e.jsonl: cannot be read as jsonl"),
        ("e.parquet", b"PAR1 cut short", "e.parquet: cannot be read as parquet"),
        ("e.xlsx", b"PK", "ending '.xlsx', want .csv, .jsonl or .parquet"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=complaint):
        load(tmp_path / name)


def test_a_truncated_parquet_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "e.parquet", EVENTS)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DatasetError, match=r"e\.parquet: cannot be read as parquet"):
        load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere\.csv: no such file"):
        load(tmp_path / "nowhere.csv")
    with pytest.raises(DatasetError, match="is a folder, want one file"):
        load(tmp_path)


def test_ids_that_became_floats_are_refused(tmp_path: Path) -> None:
    rows = [event | {"what": float(i)} for i, event in enumerate(EVENTS)] + bad(what=None)[-1:]
    with pytest.raises(DatasetError, match=r"column 'what' is double.*became NaN"):
        load(write(tmp_path / "e.parquet", rows))


@pytest.mark.parametrize("value", [["a"], {"a": 1}])
def test_ids_of_another_kind_are_refused(tmp_path: Path, value: Any) -> None:
    rows = [event | {"what": value} for event in EVENTS]
    with pytest.raises(DatasetError, match=r"column 'what' is .*, want text or whole numbers"):
        load(write(tmp_path / "e.jsonl", rows))


def test_missing_ids_break_the_contract(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="column 'item_id' has 1 nulls in 4 rows"):
        load(write(tmp_path / "e.jsonl", bad(what=None)))


def test_a_missing_iso_time_is_refused(tmp_path: Path) -> None:
    rows = [{"who": "u", "what": "a", "stars": 1, "when": "1997-12-04T15:55:49Z"}]
    rows.append({"who": "u", "what": "b", "stars": 1, "when": None})
    with pytest.raises(DatasetError, match="column 'when', row 2: is empty"):
        load(write(tmp_path / "e.jsonl", rows), timestamp_unit="iso")


def test_unknown_event_types_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", [event | {"kind": "stare"} for event in EVENTS])
    with pytest.raises(DatasetError, match="event types stare; want impression"):
        load(path, columns=COLUMNS | {"event_type": "kind"}, event_type=None)
    with pytest.raises(DatasetError, match="no event type: map 'event_type' to a column"):
        load(path, event_type=None)
    with pytest.raises(DatasetError, match="columns must map item_id"):
        load(path, columns={"user_id": "who", "event_timestamp": "when"})
