"""Encodings, line ends, nested events and lists: `ingest` reads the same rows as `init` shows."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.guessing.guess import guess
from flows.runtime.configuration import load_run_config
from shortlist.config import Settings
from shortlist.datasets import DatasetError
from shortlist.datasets.load import stage_source

HEAD = "user,item,time\n"


def look(folder: Path, log: bytes, *, name: str = "log.csv", **more: Any) -> dict[str, Any]:
    path = folder / name
    path.write_bytes(log)
    options = {"items": None, "users": None, "columns": {}, "event_type": None, "name": None}
    return guess(str(path), **(options | more))


def take(folder: Path, toml: str, table: str = "interactions") -> tuple[pa.Table, pa.Table]:
    """Stage data with the TOML that `init` wrote; return (staged rows, unreadable lines)."""
    (folder / "run.toml").write_text(toml)
    config = load_run_config(folder / "run.toml").data
    batch = stage_source(config, Settings(home=folder / "home"), now=1_800_000_000_000_000)
    staged = Settings(home=folder / "home").lake / "incoming" / batch.batch_id
    rejected = staged / "rejected.parquet"
    parts = [pq.read_table(one) for one in sorted((staged / table).glob("*.parquet"))]
    return pa.concat_tables(parts), pq.read_table(rejected) if rejected.exists() else pa.table({})


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("cp1251", ["Иванов", "молоко", "Петров", "хлеб ржаной", "Сидорова"]),
        ("cp1252", ["Müller", "Café crème", "Señor Núñez", "Straße", "Jürgen"]),
        ("shift_jis", ["山田太郎", "コーヒー豆", "東京タワー", "佐藤花子"]),
    ],
)
def test_an_encoding_is_found_and_said(tmp_path: Path, encoding: str, words: list[str]) -> None:
    rows = "".join(f"{one},{one} {i},{1_700_000_000 + i}\n" for i, one in enumerate(words * 3))
    found = look(tmp_path, (HEAD + rows).encode(encoding))
    assert any(note.startswith("GUESS: ") and "not utf-8" in note for note in found["notes"])
    staged, _ = take(tmp_path, found["toml"])
    assert staged.column("user_id").to_pylist() == words * 3
    asked = look(tmp_path, (HEAD + rows).encode(encoding), encoding=encoding)
    assert f'encoding = "{encoding}"' in asked["toml"]


def test_rows_that_cannot_be_decoded_are_counted(tmp_path: Path) -> None:
    good = "".join(f"Иван{i},молоко,{1_700_000_000 + i}\n" for i in range(9)).encode("cp1251")
    found = look(tmp_path, HEAD.encode() + good + b"\x98x,i,1700000000\n", encoding="cp1251")
    staged, rejected = take(tmp_path, found["toml"])
    assert (staged.num_rows, rejected.num_rows) == (9, 1)
    assert rejected.column("rule").to_pylist() == ["line.invalid_encoding"]


@pytest.mark.parametrize("pack", [False, True])
def test_mixed_line_ends_and_quoted_newlines(tmp_path: Path, pack: bool) -> None:
    log = b"user,item,time,text\r\nu1,a,1700000000,x\nu2,b,1700000001,y\r\n"
    name = "log.csv.gz" if pack else "log.csv"
    found = look(tmp_path, gzip.compress(log) if pack else log, name=name)
    staged, _ = take(tmp_path, found["toml"])
    assert staged.column("user_id").to_pylist() == ["u1", "u2"]
    quoted = b'user,item,time,text\nu1,a,1700000000,"one\ntwo"\nu2,b,1700000001,y\n'
    (tmp_path / "other").mkdir()
    staged, _ = take(tmp_path / "other", look(tmp_path / "other", quoted)["toml"])
    assert staged.column("text").to_pylist() == ["one\ntwo", "y"]


NESTED = [
    {"session": 0, "events": [{"aid": 1, "ts": 1_700_000_000_000, "type": "clicks"}]},
    {
        "session": 1,
        "events": [
            {"aid": 2, "ts": 1_700_000_001_000, "type": "carts"},
            {"aid": 3, "ts": 1_700_000_002_000, "type": "orders"},
        ],
    },
]
ORDERS = [
    {"customer": {"id": "c1"}, "at": "2024-05-31", "cart": {"lines": [{"sku": "a"}, {"sku": "b"}]}},
    {"customer": {"id": "c2"}, "at": "2024-06-01", "cart": {"lines": [{"sku": "a"}]}},
]


@pytest.mark.parametrize("form", ["lines", "array", "pretty", "lines.gz", "array.gz"])
@pytest.mark.parametrize(
    ("content", "users", "items"),
    [(NESTED, ["0", "1", "1"], ["1", "2", "3"]), (ORDERS, ["c1", "c1", "c2"], ["a", "b", "a"])],
)
def test_every_nested_event_is_read(
    tmp_path: Path, content: list[Any], users: list[str], items: list[str], form: str
) -> None:
    text = "".join(json.dumps(one) + "\n" for one in content)
    if not form.startswith("lines"):
        text = json.dumps(content, indent=2 if form == "pretty" else None)
    file, name = text.encode(), "log.json"
    if form.endswith(".gz"):
        file, name = gzip.compress(file), "log.json.gz"
    staged, _ = take(tmp_path, look(tmp_path, file, name=name)["toml"])
    assert staged.column("user_id").to_pylist() == users
    assert staged.column("item_id").to_pylist() == items
    # Each original is a line with one event, so that `quarantine restore` can read it.
    for row in staged.column("original").to_pylist():
        line = json.loads(row["_line"])
        assert len(line.get("events") or line["cart"]["lines"]) == 1


def test_a_second_list_of_events_is_named(tmp_path: Path) -> None:
    lines = [
        {"uid": "u", "clicks": [{"item": "a", "ts": 1_700_000_000}], "orders": [{"item": "b"}]},
        {"uid": "v", "clicks": [], "orders": [{"item": "c", "ts": 1_700_000_009}]},
    ]
    text = "".join(json.dumps(one) + "\n" for one in lines)
    found = look(tmp_path, text.encode(), name="log.jsonl")
    assert any("'orders' may be events as well, and is not read" in one for one in found["notes"])


def test_utf_16_without_its_mark_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is utf-16 without the two bytes"):
        look(tmp_path, f"{HEAD}u,a,1700000000\n".encode("utf-16-le"))


def test_an_array_that_is_cut_short_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is no array of JSON objects"):
        look(tmp_path, b'[{"user": "u", "item": "a"}, {"us', name="log.json")


@pytest.mark.parametrize(
    "bad", [b"u3,a\n", b"u3,a,1700000002,9\n", b"caf\xe9,a,1700000002\n", b'u3,"a"b,1700000002\n']
)
def test_lines_that_are_no_rows_are_said(tmp_path: Path, bad: bytes) -> None:
    good = "".join(f"ü{i},a,{1_700_000_000 + i}\n" for i in range(9)).encode()
    found = look(tmp_path, HEAD.encode() + good + bad)
    (note,) = [note for note in found["notes"] if "are no rows" in note]
    assert note.startswith("1 lines are no rows and go to quarantine, e.g. ")
    staged, rejected = take(tmp_path, found["toml"])
    assert (staged.num_rows, rejected.num_rows) == (9, 1)


@pytest.mark.parametrize("around", ["ratings", None])
def test_objects_on_many_lines_are_rows(tmp_path: Path, around: str | None) -> None:
    rows = [{"user": f"u{i}", "item": "a", "time": 1_700_000_000 + i} for i in range(3)]
    content = [{"version": 1, around: rows}] if around else rows
    text = "\n".join(json.dumps(one, indent=2) for one in content)
    staged, _ = take(tmp_path, look(tmp_path, text.encode(), name="log.json")["toml"])
    assert staged.column("user_id").to_pylist() == ["u0", "u1", "u2"]


def test_arrays_of_arrays_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="array of arrays, whose values have no names; want"):
        look(tmp_path, b'[["u", "a", 1700000000], ["v", "a", 1700000001]]', name="log.json")


def test_a_spreadsheet_s_line_names_the_separator(tmp_path: Path) -> None:
    """A first line `sep=;`, as spreadsheets write it, sets the separator."""
    log = b"sep=;\r\nuser;item;time\r\nu1;a,b;1700000000\r\nu2;c;1700000001\r\n"
    staged, _ = take(tmp_path, look(tmp_path, log)["toml"])
    assert staged.column("item_id").to_pylist() == ["a,b", "c"]


def test_words_in_the_first_line_may_be_data(tmp_path: Path) -> None:
    """A first line that looks like data is recognised, and the error names --header."""
    rows = "".join(f"useru{i},itemi1{i},Mar 1{i} 2024 10:00,purchase\n" for i in range(9))
    with pytest.raises(DatasetError, match=r"first line is data, not names of columns.* --header"):
        look(tmp_path, rows.encode())


@pytest.mark.parametrize("word", ["review", "rating", "search", "click"])
def test_a_word_of_data_may_also_name_a_column(tmp_path: Path, word: str) -> None:
    rows = "".join(f"{i % 9},{i % 7},{word},{1_700_000_000 + i}\n" for i in range(9))
    with pytest.raises(DatasetError, match=r"first line is data, not names of columns.* --header"):
        look(tmp_path, rows.encode())


def test_a_list_of_structs_as_events_is_a_question_with_an_answer(tmp_path: Path) -> None:
    events = [[{"item": "a", "at": 1_700_000_000}]]
    pq.write_table(pa.table({"user": ["u"], "events": events}), tmp_path / "log.parquet")
    with pytest.raises(DatasetError, match=r"'events' is a list of structs: .*unnest\(events"):
        guess(
            str(tmp_path / "log.parquet"),
            **{"items": None, "users": None, "columns": {}, "event_type": None, "name": None},
        )


STRANGE: dict[str, tuple[str, bytes, str]] = {
    "a till's export": (
        "till.txt",
        b"Customer No|Product Code|Order Date|Unit Price\n17.0|A-1|31/12/2023|2\n"
        b"18.0|A-2|01/02/2024|3\n",
        'timestamp_unit = "%d/%m/%Y"',
    ),
    "a web server's log": (
        "hits.json",
        b'{"visitor": {"id": "v"}, "page": {"sku": "s"}, "ts": 1700000000000000000}\n',
        'timestamp_unit = "ns"',
    ),
    "ratings of a school": (
        "grades.tsv",
        b"reader\tbook_id\tgrade\twhen\nr1\tb1\t1\t20240301\nr2\tb1\t6\t20240302\n",
        'event_type = "rating"',
    ),
    "no header and no idea": ("x.dat", b"1;2;3\n4;5;6\n", "first line is data"),
    "only numbers of days": ("d.csv", b"user,item,day\nu,i,1\nu,j,2\n", "no reading"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_forms_that_are_on_no_list(tmp_path: Path, name: str) -> None:
    """Unusual files are read, or refused with one sentence."""
    file, content, expected = STRANGE[name]
    try:
        said = look(tmp_path, content, name=file)["toml"]
    except DatasetError as error:
        said = str(error)
        assert "\n" not in said
    assert expected in said
