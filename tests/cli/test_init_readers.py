"""Line ends, encodings and nested lists in forms that a reader can easily lose rows of."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.guessing.guess import OpenQuestion
from shortlist.datasets import DatasetError
from shortlist.datasets.files.json_keys import json_path, lists_of
from shortlist.datasets.files.locate import SourceFile, locate
from shortlist.datasets.guess.encoding import guess_encoding
from tests.cli.test_init_forms import look, take

HEAD = b"user,item,time,text"
TIME = 1_700_000_000


@pytest.mark.parametrize(
    "cell", ['"good, {i}"', '"good ""x"" {i}"', '"good\n{i}"', '"good\r\n{i}"', "plain{i}"]
)
@pytest.mark.parametrize("ends", [(b"\r\n", b"\n"), (b"\n", b"\r"), (b"\r", b"\r")])
def test_lines_with_different_ends_are_read(
    tmp_path: Path, cell: str, ends: tuple[bytes, bytes]
) -> None:
    rows = [f"u{i},i{i % 3},{TIME + i},{cell.format(i=i)}".encode() for i in range(8)]
    log = b"".join(line + ends[i % 2] for i, line in enumerate([HEAD, *rows]))
    staged, rejected = take(tmp_path, look(tmp_path, log)["toml"])
    assert staged.column("user_id").to_pylist() == [f"u{i}" for i in range(8)]
    assert rejected.num_rows == 0


@pytest.mark.parametrize(
    ("line", "broken"), [(b"u9,i\r1,1700000000,x", 2), (b'u9,i1,1700000000,"x" y', 1)]
)
def test_only_the_broken_row_of_mixed_lines_is_lost(
    tmp_path: Path, line: bytes, broken: int
) -> None:
    rows = [f'u{i},i{i % 3},{TIME + i},"a, b"'.encode() for i in range(8)]
    log = b"".join(one + b"\n" for one in [HEAD, *rows, line])
    found = look(tmp_path, log)
    staged, rejected = take(tmp_path, found["toml"])
    assert (staged.num_rows, rejected.num_rows) == (8, broken)
    assert any(f"{broken} lines are no rows" in note for note in found["notes"])


TEXTS = {
    "Czech": ("cp1250", "Příliš žluťoučký kůň|Úpěl ďábelské ódy|Šťastný věhož|Něna"),
    "Polish": ("cp1250", "Łódź|Kraków|Gdańsk|Świętochłowice|Żółć"),
    "Hungarian": ("cp1250", "Győr|Székesfehérvár|Kőszeg|Szűcs|Erdős Pál"),
    "Croatian": ("cp1250", "Šibenik|Čakovec|Požega|Đurđevac|Ćićo"),
    "French": ("cp1252", "L'été à la plage|Forêt|où êtes-vous|œuvre"),
    "Portuguese": ("cp1252", "São Paulo|coração|Mamãe|pães"),
    "Danish": ("cp1252", "Søren|Ærø|København|rødgrød"),
    "Finnish": ("cp1252", "Hämäläinen|Jyväskylä|Šakki"),
    "Turkish": ("cp1254", "Şişli|Beyoğlu|İstanbul|kırmızı"),
    "Russian of DOS": ("cp866", "Иванов|молоко|Петров|хлеб ржаной"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_letters_decide_between_similar_encodings(tmp_path: Path, name: str) -> None:
    encoding, words = TEXTS[name]
    rows = "".join(f"{word} {i},i{i}\n" for i, word in enumerate(words.split("|") * 3))
    (tmp_path / "log.csv").write_bytes(rows.encode(encoding))
    assert guess_encoding(SourceFile("log.csv", tmp_path / "log.csv", "csv", None)) == encoding


@pytest.mark.parametrize("encoding", ["latin-1", "cp1250"])
def test_every_byte_of_an_encoding_is_read(tmp_path: Path, encoding: str) -> None:
    """DuckDB's latin-1 has no bytes 80 to 9F; Python's has."""
    users = [f"x{bytes([byte]).decode(encoding)}y" for byte in (0x8A, 0x9A, 0x9D, *[0xE9] * 9)]
    rows = "".join(f"{user},i,{TIME}\n" for user in users)
    log = f"user,item,time\n{rows}".encode(encoding)
    staged, rejected = take(tmp_path, look(tmp_path, log, encoding=encoding)["toml"])
    assert staged.column("user_id").to_pylist() == users
    assert rejected.num_rows == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04" + b"\0" * 50, "is a zip archive; unpack it"),
        ("user,item,time\n".encode("utf-32"), "is utf-32; want utf-8"),
        (b"user,item\n\0\0\x01\x80" * 9, "zero bytes, so it is no text"),
        (b"# made by a till\nuser,item,time\nu,i,1700000000\n", "line 1 is a comment: '# made"),
    ],
)
def test_what_is_no_csv_is_one_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        look(tmp_path, content)


def test_a_packed_archive_is_refused_by_ingest_as_well(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"PK\x03\x04zip")
    with pytest.raises(DatasetError, match="is a zip archive"):
        locate(str(tmp_path / "log.csv"), format=None, cache=tmp_path)


def lines(*objects: Any) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in objects).encode()


def event(item: str) -> dict[str, Any]:
    return {"item_id": item, "ts": TIME}


DEEP = [
    (
        {"user": "u", "sessions": [{"session_id": "s", "events": [event("a"), event("b")]}]},
        {"user": "v", "sessions": [{"session_id": "t", "events": [event("c")]}, {"events": []}]},
    ),
    (
        {"user": "u", "days": [{"visits": [{"hits": [event("a")]}, {"hits": [event("b")]}]}]},
        {"user": "v", "days": [{"visits": []}, {"visits": [{"hits": [event("c")]}]}]},
    ),
    (
        {"user": "u", "shop": {"carts": [{"box": {"lines": [event("a"), event("b")]}}]}},
        {"user": "v", "shop": {"carts": [{"box": {"lines": [event("c")]}}]}},
    ),
]


@pytest.mark.parametrize("objects", DEEP)
def test_lists_in_lists_are_events(tmp_path: Path, objects: tuple[Any, Any]) -> None:
    staged, _ = take(tmp_path, look(tmp_path, lines(*objects), name="log.jsonl")["toml"])
    assert staged.column("user_id").to_pylist() == ["u", "u", "v"]
    assert staged.column("item_id").to_pylist() == ["a", "b", "c"]
    originals = "".join(row["_line"] for row in staged.column("original").to_pylist())
    assert originals.count('"item_id"') == 3


def test_the_first_of_a_list_is_never_read_silently(tmp_path: Path) -> None:
    log = lines({"uid": "u", "x": [{"code": "a"}, {"code": "b"}], "at": TIME})
    columns = {"item_id": "x[0].code"}
    with pytest.raises(OpenQuestion, match=r"1 lists have more.*write x\[\]\.code for item_id"):
        look(tmp_path, log, name="log.jsonl", columns=columns)
    columns = {"event_timestamp": "sessions[0].events[0].ts"}
    with pytest.raises(DatasetError, match=r"no column 'sessions\[0\]\.events\[0\]\.ts'"):
        look(tmp_path, lines(*DEEP[0]), name="log.jsonl", columns=columns)


@pytest.mark.parametrize("empty", [[], None])
def test_an_empty_list_has_no_events(tmp_path: Path, empty: Any) -> None:
    log = lines({"uid": "v", "bought": [event("a")]}, {"uid": "u", "bought": empty})
    staged, _ = take(tmp_path, look(tmp_path, log, name="log.jsonl")["toml"])
    assert staged.column("user_id").to_pylist() == ["v"]


@pytest.mark.parametrize(
    "line",
    [
        {"user.id": "u", "item.id": "i", "@timestamp": "2025-05-01T10:00:00Z"},
        {"ctx": {"user.id": "u"}, "product.sku": "i", "time": TIME},
        {"user_id": "u", "hits.hits": [{"item_id": "i", "time": TIME}]},
    ],
)
def test_keys_may_contain_dots(tmp_path: Path, line: dict[str, Any]) -> None:
    staged, _ = take(tmp_path, look(tmp_path, lines(line), name="log.jsonl")["toml"])
    assert staged.column("user_id").to_pylist() == ["u"]
    assert staged.column("item_id").to_pylist() == ["i"]


def test_paths_of_keys() -> None:
    assert json_path('"a.b".c[0].d') == '$."a.b"."c"[0]."d"'
    assert lists_of(["u", "a[].b[].c", "a[].d"]) == ["a", "a[].b"]
    with pytest.raises(ValueError, match="a, b"):
        lists_of(["a[].x", "b[].y"])
