"""A gallery of broken inputs: each gives one clear sentence, or a quarantined row with its reason;
none a crash; and of what was read nothing is lost.
"""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shortlist.config import Settings
from shortlist.datasets import DataConfig, DatasetError
from shortlist.lake import Lake

HEAD = b"user,item,stars,when\n"
GOOD = b"u1,a,4,1700000000\nu2,b,5,1700000001\n"
COLUMNS = {"user_id": "user", "item_id": "item", "value": "stars", "event_timestamp": "when"}
Broken = bytes | Callable[[Path], None]
TakeIn = Callable[[DataConfig, Settings], tuple[dict[str, int], list[dict[str, Any]]]]


class Gallery:
    """Takes a broken file from source to lake, without the judge: only rows matter here."""

    def __init__(self, folder: Path, take_in: TakeIn):
        self.folder = folder
        self.take_in = take_in
        self.settings = Settings(home=folder / "home")

    def put(self, name: str, content: Broken) -> Path:
        path = self.folder / name
        if callable(content):
            content(path)
        else:
            path.write_bytes(content)
        return path

    def run(self, interactions: dict[str, Any], **files: Any) -> tuple[dict[str, int], list[Any]]:
        """({read, accepted, quarantined, duplicates}, quarantined rows of all tables)."""
        mapped = {"columns": COLUMNS, "event_type": "rating"} | interactions
        config = DataConfig.model_validate(
            {"source": "files", "files": {"interactions": mapped} | files}
        )
        return self.take_in(config, self.settings)


@pytest.fixture
def gallery(tmp_path: Path, take_in: TakeIn) -> Gallery:
    return Gallery(tmp_path, take_in)


def parquet_of(**columns: Any) -> Broken:
    return lambda path: pq.write_table(pa.table(columns), path)


def cut(name: str, content: bytes, keep: float) -> tuple[str, bytes]:
    packed = gzip.compress(content)
    return name, packed[: int(len(packed) * keep)]


LONG = b"".join(b"u%d,i%d,3,%d\n" % (i, i * 7919 % 10_007, 1_700_000_000 + i) for i in range(9_999))

REFUSED: dict[str, tuple[str, Broken, dict[str, Any], str]] = {
    "empty file": ("e.csv", b"", {}, r"e\.csv: is empty"),
    "white space only": ("e.csv", b" \n\n", {}, r"e\.csv: is empty"),
    "header only": ("e.csv", HEAD, {}, "source 'files' has no events"),
    "folder without data": ("e.csv", lambda p: p.mkdir(), {}, "a folder without a file that ends"),
    "unknown ending": ("e.xlsx", b"PK", {}, r"ending '\.xlsx', want \.csv, .*format ="),
    "column missing": (
        *("e.csv", b"user,item,stars\nu,a,1\n", {}),
        r"e\.csv: no column 'when'; there are user, item, stars",
    ),
    "header twice": (
        *("e.csv", b"user,user,item,stars,when\nu,v,a,1,5\n", {}),
        r"e\.csv: column 'user' is there 2 times, want it once",
    ),
    "another separator": (
        *("e.csv", HEAD.replace(b",", b"^") + GOOD.replace(b",", b"^"), {}),
        r"no column 'user'; there are user\^item\^stars\^when \(separated by",
    ),
    "truncated gzip": (
        *cut("e.csv.gz", HEAD + LONG, 0.5),
        {},
        r"e\.csv\.gz: cannot be .*cut short",
    ),
    "gzip cut in its header": (*cut("e.csv.gz", HEAD + GOOD, 0.1), {}, r"e\.csv\.gz: cannot be"),
    "gzip that is none": ("e.csv.gz", HEAD + GOOD, {}, "its content is not packed; rename it"),
    "packed without saying": ("e.csv", gzip.compress(HEAD + GOOD), {}, "its content is gzip; ren"),
    "utf-16": ("e.csv", (HEAD + GOOD).decode().encode("utf-16"), {}, 'say encoding = "utf-16"'),
    "no JSON at all": ("e.jsonl", b"<html>\n", {}, r"e\.jsonl: .*line 1 is no object: '<html>'"),
    "JSON list": ("e.jsonl", b'[{"user": 1}]\n', {}, "line 1 is no object"),
    "JSON key missing": (
        *("e.jsonl", b'{"user": "u", "item": "a", "stars": 1}\n', {}),
        r"e\.jsonl: no key 'when' in its first 1 lines; there are user, item, stars",
    ),
    "Parquet cut short": (
        "e.parquet",
        lambda p: p.write_bytes(b"PAR1 cut short"),
        {},
        r"e\.parquet: cannot be read as parquet",
    ),
    "Parquet with float ids": (
        "e.parquet",
        parquet_of(user=["u"], item=[196.0], stars=[1.0], when=[5]),
        {},
        r"e\.parquet: column 'item' is double, want text or whole numbers \(missing ids became NaN",
    ),
    "Parquet with lists for ids": (
        "e.parquet",
        parquet_of(user=["u"], item=[["a"]], stars=[1.0], when=[5]),
        {},
        r"column 'item' is varchar\[\], want text or whole numbers",
    ),
    "file that is not there": ("other.csv", HEAD, {"path": "nowhere.csv"}, "nowhere.csv: no such"),
    "pattern without a match": ("o.csv", HEAD, {"path": "none-*.csv"}, "no file matches this"),
    "unknown file system": ("o.csv", HEAD, {"path": "zzz://b/e.csv"}, "zzz://b/e.csv: cannot be"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_broken_as_a_whole_is_one_sentence(gallery: Gallery, name: str) -> None:
    file, content, options, complaint = REFUSED[name]
    path = gallery.put(file, content)
    with pytest.raises(DatasetError, match=complaint) as error:
        gallery.run({"path": path} | options)
    assert "\n" not in str(error.value)
    assert not gallery.settings.lake.exists()


def test_a_file_that_may_not_be_read_is_named(gallery: Gallery) -> None:
    path = gallery.put("e.csv", HEAD + GOOD)
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything: a folder it cannot open as a file
        path = Path("/proc/self/mem")
    complaint = "may not be read|cannot be read|is empty"
    with pytest.raises(DatasetError, match=complaint):
        gallery.run({"path": path, "format": "csv"})


# name: (lines after the good ones, options, {rule: rows}); the good rows are always accepted.
ROWS: dict[str, tuple[bytes, dict[str, Any], dict[str, int]]] = {
    "too few fields": (b"u3,a\n", {}, {"line.missing_columns": 1}),
    "too many fields": (b"u3,a,4,1700000002,9\n", {}, {"line.too_many_columns": 1}),
    "text after a quote": (b'u3,"a"b,4,1700000002\n', {}, {"line.unquoted_value": 1}),
    "a quote never closed": (
        b'u3,"a,4,1700000002\nu4,b,3,1700000003\nu5,c,3,1700000004\n',
        {},
        {"line.unquoted_value": 3},
    ),
    "latin-1 in utf-8": (b"u3,caf\xe9,4,1700000002\n", {}, {"line.invalid_encoding": 1}),
    "a line of three megabytes": (
        b"u3," + b"x" * 3_000_000 + b",4,1700000002\n",
        {},
        {"line.line_size_over_maximum": 1},
    ),
    "an id of a million characters": (
        b"u3," + b"x" * 1_000_000 + b",4,1700000002\n",
        {},
        {"item_id.length": 1},
    ),
    "missing ids": (
        b",a,4,1700000002\nu3,,4,1700000003\n",
        {},
        {
            "user_id.required": 1,
            "item_id.required": 1,
        },
    ),
    "white space for an id": (b"   ,a,4,1700000002\n", {}, {"user_id.required": 1}),
    "NaN ids": (
        b"nan,a,4,1700000002\nu3,NULL,4,1700000003\n",
        {},
        {
            "user_id.placeholder": 1,
            "item_id.placeholder": 1,
        },
    ),
    "ids that became floats": (
        b"196.0,a,4,1700000002\nu3,1.5,4,1700000003\n",
        {},
        {
            "user_id.text": 1,
            "item_id.text": 1,
        },
    ),
    "ids as a spreadsheet writes them": (b"1.23E+12,a,4,1700000002\n", {}, {"user_id.text": 1}),
    "words for numbers": (b"u3,a,four,1700000002\n", {}, {"value.number": 1}),
    "a decimal comma": (b'u3,a,"4,5",1700000002\n', {}, {"value.number": 1}),
    "infinite values": (b"u3,a,inf,1700000002\n", {}, {"value.finite": 1, "value.rating_range": 1}),
    "ratings off the scale": (b"u3,a,11,1700000002\n", {}, {"value.rating_range": 1}),
    "negative prices": (
        b"u3,a,-3,1700000002\n",
        {"event_type": "purchase"},
        {
            "value.not_negative": 1,
        },
    ),
    "no time": (b"u3,a,4,\n", {}, {"event_timestamp.required": 1}),
    "a word for a time": (
        b"u3,a,4,yesterday\n",
        {},
        {
            "event_timestamp.readable": 1,
        },
    ),
    "milliseconds for seconds": (
        b"u3,a,4,1700000002000\n",
        {},
        {
            "event_timestamp.readable": 1,
        },
    ),
    "a time in the future": (b"u3,a,4,1900000000\n", {}, {"event_timestamp.range": 1}),
    "a time before all time": (b"u3,a,4,-5\n", {}, {"event_timestamp.range": 1}),
    "a header in the middle": (
        HEAD,
        {},
        {
            "value.number": 1,
            "event_timestamp.readable": 1,
        },
    ),
    "a row of nothing": (
        b",,,\n",
        {},
        {
            "user_id.required": 1,
            "item_id.required": 1,
            "event_timestamp.required": 1,
        },
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_row_goes_to_quarantine(gallery: Gallery, name: str) -> None:
    lines, options, rules = ROWS[name]
    path = gallery.put("e.csv", HEAD + GOOD + lines)
    account, rows = gallery.run({"path": path} | options)
    assert account["accepted"] == 2
    broken: dict[str, int] = {}
    for row in rows:
        for rule in row["expectation"].split("; "):
            broken[rule] = broken.get(rule, 0) + 1
        assert row["reason"]
        assert row["line"] >= 3
    assert broken == rules
    content = lines.decode("utf-8", errors="backslashreplace")
    for row in rows:  # the original is there, as the line or as its cells
        cells = row["original"]
        cells = json.loads(cells).values() if cells.startswith("{") else cells.split(",")
        assert all(str(cell) in content for cell in cells if cell)


FINE: dict[str, tuple[bytes, dict[str, Any], int]] = {
    "a byte order mark": (b"\xef\xbb\xbf" + HEAD + GOOD, {}, 2),
    "Windows line ends": ((HEAD + GOOD).replace(b"\n", b"\r\n"), {}, 2),
    "mixed line ends": (HEAD + GOOD + b"u3,a,4,1700000002\r\nu4,a,4,1700000003\n", {}, 4),
    "no line end at the end": ((HEAD + GOOD)[:-1], {}, 2),
    "empty lines": (HEAD + b"\n" + GOOD + b"\n\n", {}, 2),
    "semicolons": ((HEAD + GOOD).replace(b",", b";"), {}, 2),
    "quoted line breaks": (HEAD + GOOD + b'u3,"a\nb",4,1700000002\n', {}, 3),
    "spaces around cells": (HEAD + GOOD + b" u3 , a , 4 , 1700000002\n", {}, 3),
    "missing values": (HEAD + GOOD + b"u3,a,,1700000002\nu3,b,NaN,1700000002\n", {}, 4),
    "declared latin-1": (HEAD + GOOD + b"u3,caf\xe9,4,1700000002\n", {"encoding": "latin-1"}, 3),
    "declared utf-16": ((HEAD + GOOD).decode().encode("utf-16"), {"encoding": "utf-16"}, 2),
    "leading zeros": (HEAD + b"00196,007,4,1700000000\n", {}, 1),
}


@pytest.mark.parametrize("name", FINE)
def test_what_only_looks_broken_is_read(gallery: Gallery, name: str) -> None:
    content, options, rows = FINE[name]
    account, bad = gallery.run({"path": gallery.put("e.csv", content)} | options)
    assert (account["accepted"], bad) == (rows, [])
    ids = Lake(gallery.settings.lake).interactions().column("user_id").to_pylist()
    assert ids[0] == ("00196" if name == "leading zeros" else "u1")


JSON_GOOD = b'{"user": "u1", "item": "a", "stars": 4, "when": 1700000000}\n'
JSON_ROWS: dict[str, tuple[bytes, str]] = {
    "a cut line": (b'{"user": "u3", "item"\n', "line.json"),
    "a list": (b"[1, 2]\n", "line.json"),
    "an object for an id": (
        *(b'{"user": {"id": 1}, "item": "a", "stars": 4, "when": 1700000001}\n', "user_id.text"),
    ),
    "a float for an id": (
        *(b'{"user": 196.0, "item": "a", "stars": 4, "when": 1700000001}\n', "user_id.text"),
    ),
    "a null id": (
        *(b'{"user": null, "item": "a", "stars": 4, "when": 1700000001}\n', "user_id.required"),
    ),
    "NaN for an id": (
        *(b'{"user": NaN, "item": "a", "stars": 4, "when": 1700000001}\n', "user_id.placeholder"),
    ),
    "a control character": (b'{"user": "u\x01"}\n', "line.too_many_columns"),
    "mixed types": (
        *(b'{"user": "u3", "item": "a", "stars": "good", "when": 1700000001}\n', "value.number"),
    ),
}


@pytest.mark.parametrize("name", JSON_ROWS)
def test_a_bad_line_of_json_goes_to_quarantine(gallery: Gallery, name: str) -> None:
    line, rule = JSON_ROWS[name]
    account, rows = gallery.run({"path": gallery.put("e.jsonl", JSON_GOOD + line)})
    assert (account["read"], account["accepted"]) == (2, 1)
    assert [row["expectation"] for row in rows] == [rule]
    assert rows[0]["original"] == line.decode().strip("\n")


ITEMS: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "a negative price": (b"id,price\na,-1\nb,2\n", {"price": "price"}, "price.not_negative"),
    "a word for a price": (b"id,price\na,cheap\nb,2\n", {"price": "price"}, "price.number"),
    "circular categories": (
        b"id,tags\na,Toys > Games > Toys\nb,Toys > Games\n",
        {"categories": "tags"},
        "categories.no_circle",
    ),
    "a date that is none": (
        b"id,year\na,soon\nb,1995\n",
        {"published_at": "year"},
        "published_at.readable",
    ),
    "a date out of range": (
        b"id,year\na,9999\nb,1995\n",
        {"published_at": "year"},
        "published_at.range",
    ),
    "a flag that is none": (b"id,on\na,perhaps\nb,yes\n", {"available": "on"}, "available.flag"),
    "one id for two items": (
        b"id,name\nb,B\na,One\na,Other\n",
        {"title": "name"},
        "item_id.once",
    ),
}


@pytest.mark.parametrize("name", ITEMS)
def test_a_bad_item_takes_its_events_along(gallery: Gallery, name: str) -> None:
    content, columns, rule = ITEMS[name]
    items = {
        "path": gallery.put("items.csv", content),
        "columns": {"item_id": "id"} | columns,
        "category_separator": ">",
    }
    path = gallery.put("e.csv", HEAD + GOOD)
    account, rows = gallery.run({"path": path}, items=items)
    found = {(row["table"], row["item_id"], row["expectation"]) for row in rows}
    assert found == {("items", "a", rule), ("interactions", "a", "item_id.known")}
    assert (account["accepted"], account["quarantined"]) == (1, 1)


def test_there_are_enough_pictures_in_the_gallery() -> None:
    assert sum(map(len, (REFUSED, ROWS, FINE, JSON_ROWS, ITEMS))) >= 60
