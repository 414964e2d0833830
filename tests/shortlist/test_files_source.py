"""The source `files`: column mapping, formats, times, ids and incremental reading."""

import gzip
import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from shortlist.config import Settings
from shortlist.contracts import microseconds
from shortlist.datasets import DataConfig, DatasetError, stage_source
from shortlist.lake import open_staged
from shortlist.lake.staging import staged_events, staged_rows

NOW = 1_700_000_000_000_000
EVENTS = [
    {"who": "00196", "what": "a", "stars": 4.0, "when": 881250949},
    {"who": "7", "what": "b", "stars": 2.0, "when": 881250950},
    {"who": "7", "what": "c", "stars": None, "when": 881250951},
]
COLUMNS = {"user_id": "who", "item_id": "what", "value": "stars", "event_timestamp": "when"}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    table = pa.Table.from_pylist(rows)
    stem = path.name.removesuffix(".gz").removesuffix(".zst")
    plain = path.with_name(stem)
    if stem.endswith(".csv"):
        pyarrow.csv.write_csv(table, plain)
    elif stem.endswith(".jsonl"):
        plain.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(table, plain)
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    if path.name.endswith(".zst"):
        with pa.CompressedOutputStream(str(path), "zstd") as out:
            out.write(plain.read_bytes())
        plain.unlink()
    return path


class Staged:
    """The tables of a staged batch, read into memory."""

    def __init__(self, home: Path, config: dict[str, Any], **data: Any):
        self.settings = Settings(home=home)
        interactions = config.pop("interactions", None) or (
            {"columns": COLUMNS, "event_type": "rating"}
            | {k: v for k, v in config.items() if k not in ("items", "users")}
        )
        sections = {k: config[k] for k in ("items", "users") if k in config}
        files = {"interactions": interactions} | sections
        data_config = DataConfig.model_validate({"source": "files", "files": files} | data)
        self.batch = stage_source(data_config, self.settings, now=NOW)
        self.folder, _ = open_staged(self.settings.lake, self.batch.batch_id)

    def table(self, name: str) -> pa.Table:
        relation = (
            staged_events(self.folder, original=True)
            if name == "interactions"
            else staged_rows(self.folder, name)
        )
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return connection.sql(f"SELECT * FROM {relation}").to_arrow_table()

    def column(self, name: str, table: str = "interactions") -> list[Any]:
        return self.table(table).column(name).to_pylist()


ENDINGS = ("csv", "jsonl", "parquet", "csv.gz", "jsonl.gz", "csv.zst", "jsonl.zst")


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_gives_the_same_batch(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"events.{ending}", EVENTS)
    staged = Staged(tmp_path / "home", {"path": path}, like_threshold=4.0)
    assert staged.column("user_id") == ["00196", "00196", "7", "7"]
    assert staged.column("event_type") == ["rating", "like", "rating", "rating"]
    assert staged.column("event_order") == [0, 1, 2, 3]
    assert staged.column("value") == [4, 4, 2, None]
    assert microseconds(staged.table("interactions").column("event_timestamp")).to_pylist() == [
        *(881_250_949_000_000, 881_250_949_000_000, 881_250_950_000_000, 881_250_951_000_000)
    ]
    assert staged.column("faults") == [None] * 4
    assert staged.batch.read == {"interactions": 4, "items": 0, "users": 0}
    reference = Staged(
        tmp_path / "other", {"path": write(tmp_path / "again.csv", EVENTS)}, like_threshold=4.0
    )
    assert staged.column("event_id") == reference.column("event_id")
    assert len(set(staged.column("event_id"))) == 4


def test_a_folder_and_a_pattern_are_read_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    write(folder / "2.csv", EVENTS[1:2])
    write(folder / "1.csv.gz", EVENTS[:1])
    write(folder / "3.jsonl", EVENTS[2:])
    (folder / "README").write_text("not data")
    for path in (folder, folder / "*.*"):
        staged = Staged(tmp_path / "home", {"path": path})
        assert staged.column("item_id") == ["a", "b", "c"]
        assert staged.column("event_order") == [0, 1 << 40, 2 << 40]
        assert staged.column("source") == ["1.csv.gz", "2.csv", "3.jsonl"]


def test_two_tables_of_events_are_one_log(tmp_path: Path) -> None:
    views = write(tmp_path / "views.csv", EVENTS[:2])
    orders = write(
        tmp_path / "orders.jsonl", [{"c": "7", "sku": "b", "at": 881250999, "op": "buy"}]
    )
    columns = {"user_id": "c", "item_id": "sku", "event_timestamp": "at", "event_type": "op"}
    mapped = {"path": str(orders), "columns": columns, "event_types": {"buy": "purchase"}}
    seen = {"path": str(views), "columns": COLUMNS, "event_type": "view"}
    staged = Staged(tmp_path / "home", {"interactions": [seen, mapped]})
    assert staged.column("event_type") == ["view", "view", "purchase"]
    assert [json.dumps(row) for row in staged.column("original")][2].count("buy") == 1


def test_a_uri_is_fetched_once(tmp_path: Path) -> None:
    """Remote files are downloaded once into the cache, by pattern and by folder."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/shop/a.csv", write(tmp_path / "a.csv", EVENTS[:2]).read_bytes())
    memory.pipe("/shop/b.csv", write(tmp_path / "b.csv", EVENTS[2:]).read_bytes())
    for where in ("memory://shop/*.csv", "memory://shop"):
        staged = Staged(tmp_path / "home", {"path": where})
        assert staged.column("item_id") == ["a", "b", "c"]
    assert len(list((tmp_path / "home" / "cache" / "fetched").iterdir())) == 2
    with pytest.raises(DatasetError, match=r"memory://nowhere/x.csv: nothing is there"):
        Staged(tmp_path / "home", {"path": "memory://nowhere/x.csv"})


def test_items_and_users_are_mapped(tmp_path: Path) -> None:
    items = [
        {"sku": "a", "name": "A (1995)", "genres": "film|noir|film", "cost": 2.5, "by": "X"},
        {"sku": "b", "name": "Beta", "genres": "", "cost": None, "by": ""},
    ]
    users = [{"id": "00196", "group": "young"}, {"id": "8", "group": ""}]
    staged = Staged(
        tmp_path / "home",
        {
            "path": write(tmp_path / "events.csv", EVENTS),
            "items": {
                "path": write(tmp_path / "items.csv", items),
                "columns": {
                    **{"item_id": "sku", "title": "name", "categories": "genres"},
                    **{"price": "cost", "published_at": "name"},
                },
                "attributes": ["by"],
            },
            "users": {
                "path": write(tmp_path / "users.csv", users),
                "columns": {"user_id": "id"},
                "attributes": ["group"],
            },
        },
    )
    assert staged.column("categories", "items") == [["film", "noir"], []]
    assert staged.column("price", "items") == [2.5, None]
    years = [day and day.year for day in staged.column("published_at", "items")]
    assert years == [1995, None]
    assert staged.column("attributes", "items") == [[("by", "X")], []]
    assert staged.column("attributes", "users") == [[("group", "young")], []]
    assert staged.batch.read == {"interactions": 3, "items": 2, "users": 2}


def test_vectors_and_lists_of_json_lines(tmp_path: Path) -> None:
    items = [{"id": "a", "tags": ["x", "y"], "text": ["One.", "Two."], "vec": [0.5, 1]}]
    mapped = {
        "path": write(tmp_path / "items.jsonl", items),
        "columns": {
            **{"item_id": "id", "categories": "tags", "description": "text"},
            **{"vector_image": "vec"},
        },
    }
    staged = Staged(tmp_path / "home", {"path": write(tmp_path / "e.csv", EVENTS), "items": mapped})
    assert staged.column("categories", "items") == [["x", "y"]]
    assert staged.column("description", "items") == ["One. Two."]
    assert staged.column("vector_image", "items") == [[0.5, 1.0]]


@pytest.mark.parametrize(
    ("unit", "factor"), [("s", 1), ("ms", 1_000), ("us", 1_000_000), ("ns", 1_000_000_000)]
)
def test_units_of_time(tmp_path: Path, unit: str, factor: int) -> None:
    rows = [event | {"when": event["when"] * factor} for event in EVENTS]
    path = write(tmp_path / "events.csv", rows)
    staged = Staged(tmp_path / "home", {"path": path, "timestamp_unit": unit})
    times = microseconds(staged.table("interactions").column("event_timestamp"))
    assert times[0].as_py() == 881_250_949_000_000


@pytest.mark.parametrize(
    ("text", "unit", "zone", "hour"),
    [
        ("2024-05-31T10:00:00Z", "iso", "Europe/Berlin", 10),
        ("2024-05-31 10:00:00+02:00", "iso", "UTC", 8),
        ("2024-05-31 10:00:00", "iso", "UTC", 10),
        ("2024-05-31 10:00:00", "iso", "Europe/Berlin", 8),
        ("2024-01-31 10:00", "iso", "Europe/Berlin", 9),
        ("31.05.2024 10:00", "%d.%m.%Y %H:%M", "Europe/Berlin", 8),
        ("45443.4166666667", "excel", "UTC", 10),
        ("45443.4166666667", "excel", "Europe/Berlin", 8),
        ("20240531100000", "%Y%m%d%H%M%S", "Europe/Berlin", 8),
    ],
)
def test_time_zones(tmp_path: Path, text: str, unit: str, zone: str, hour: int) -> None:
    path = write(tmp_path / "e.csv", [EVENTS[0] | {"when": text}])
    staged = Staged(tmp_path / "home", {"path": path, "timestamp_unit": unit, "time_zone": zone})
    (moment,) = staged.column("event_timestamp")
    assert (moment.hour, moment.utcoffset().total_seconds()) == (hour, 0)


@pytest.mark.parametrize("mark", [-1, 0, 99])
def test_unrated_events_become_views(tmp_path: Path, mark: int) -> None:
    rows = [EVENTS[0] | {"stars": mark}, EVENTS[0] | {"what": "z", "stars": 4.5}]
    mapped = {
        **{"path": write(tmp_path / "e.csv", rows), "event_type": "rating", "unrated": mark},
        "columns": {
            **{"user_id": "who", "item_id": "what", "event_timestamp": "when", "value": "stars"}
        },
    }
    staged = Staged(tmp_path / "home", {"interactions": mapped})
    assert staged.column("event_type") == ["view", "rating"]
    assert staged.column("value") == [None, 4.5]


@pytest.mark.parametrize(
    ("ending", "ids", "kept"),
    [
        ("csv", ["17850.0", "12.00"], ["17850", "12"]),
        ("jsonl", [17850.0, 12], ["17850", "12"]),
        ("parquet", [17850.0, 12.0], ["17850", "12"]),
        ("csv", ["007.0", "1.10.0"], ["007", "1.10.0"]),
    ],
)
def test_whole_numbers_with_decimals_are_ids(
    tmp_path: Path, ending: str, ids: list[Any], kept: list[str]
) -> None:
    rows = [EVENTS[0] | {"who": one, "what": one} for one in ids]
    staged = Staged(tmp_path / "home", {"path": write(tmp_path / f"e.{ending}", rows)})
    assert staged.column("user_id") == kept
    assert staged.column("item_id") == kept


@pytest.mark.parametrize("words", [["NA"], ["guest", "-1", "NA"], ["", "NA"]])
def test_sessions_of_nobody_stand_alone(tmp_path: Path, words: list[str]) -> None:
    """A row without a user gets the user id of its session; without a session it gets none."""
    rows = [EVENTS[0] | {"who": word, "session": f"s{i}"} for i, word in enumerate(words)]
    rows += [EVENTS[0] | {"who": words[0], "session": ""}, EVENTS[0] | {"who": "u", "session": "x"}]
    columns = {"user_id": "who", "item_id": "what", "event_timestamp": "when"}
    mapped = {
        **{"path": write(tmp_path / "e.csv", rows), "event_type": "view", "no_user": words},
        "columns": columns | {"session_id": "session"},
    }
    staged = Staged(tmp_path / "home", {"interactions": mapped})
    alone = [f"session:s{i}" for i in range(len(words))]
    assert staged.column("user_id") == [*alone, None, "u"]


def test_given_ids_types_and_texts(tmp_path: Path) -> None:
    rows = [
        {"who": "u", "what": "a", "at": "1997-12-04T15:55:49.000001Z", "id": "x1", "kind": "click"},
        {"who": "u", "what": "b", "at": "1997-12-04T16:55:49+01:00", "id": "", "kind": "view"},
    ]
    columns = {
        **{"user_id": "who", "item_id": "what", "event_timestamp": "at"},
        **{"event_id": "id", "event_type": "kind", "query": "kind"},
    }
    path = write(tmp_path / "events.csv", rows)
    staged = Staged(
        tmp_path / "home",
        {"interactions": {"path": path, "columns": columns, "timestamp_unit": "iso"}},
    )
    times = microseconds(staged.table("interactions").column("event_timestamp")).to_pylist()
    assert times == [881_250_949_000_001, 881_250_949_000_000]
    ids = staged.column("event_id")
    assert ids[0] == "x1"
    assert len(ids[1]) == 24  # derived from the content, because the row has no id
    assert staged.column("event_type") == ["click", "view"]
    assert staged.column("query") == ["click", "view"]


def test_excluded_events_are_marked(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", EVENTS)
    rules = ["user_id = '00196'", "value < 0"]
    staged = Staged(tmp_path / "home", {"path": path}, exclude=rules)
    assert staged.column("excluded") == [True, False, False]
    with pytest.raises(DatasetError, match=r"exclude: .*usr_id.* want SQL conditions"):
        Staged(tmp_path / "home", {"path": path}, exclude=["usr_id = 1"])


def test_the_same_content_is_the_same_batch(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", EVENTS)
    first = Staged(tmp_path / "home", {"path": path}).batch
    assert Staged(tmp_path / "home", {"path": path}).batch == first
    write(path, EVENTS[:2])
    assert Staged(tmp_path / "home", {"path": path}).batch.batch_id != first.batch_id
    assert len(list((tmp_path / "home" / "lake" / "incoming").iterdir())) == 2
