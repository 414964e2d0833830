"""Broken source files give one clear error each; unusual but valid files are read.

Broken rows are tested in test_broken_rows.py.
"""

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shortlist.datasets import DatasetError
from shortlist.lake import Lake

HEAD = b"user,item,stars,when\n"
GOOD = b"u1,a,4,1700000000\nu2,b,5,1700000001\n"
Broken = bytes | Callable[[Path], None]


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
    "JSON list": (
        "e.jsonl",
        b'[{"user": 1}]\n',
        {},
        r"e\.jsonl: no key 'item' in its first 1 lines",
    ),
    "list of lists": ("e.jsonl", b"[[1, 2]]\n", {}, "is a JSON array of arrays"),
    "no JSON at all": ("e.jsonl", b"<html>\n", {}, r"e\.jsonl: .*line 1 is no object: '<html>'"),
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
def test_a_file_that_is_broken_as_a_whole_is_one_sentence(gallery: Any, name: str) -> None:
    file, content, options, complaint = REFUSED[name]
    path = gallery.put(file, content)
    with pytest.raises(DatasetError, match=complaint) as error:
        gallery.run({"path": path} | options)
    assert "\n" not in str(error.value)
    assert not gallery.settings.lake.exists()


def test_a_file_that_may_not_be_read_is_named(gallery: Any) -> None:
    path = gallery.put("e.csv", HEAD + GOOD)
    path.chmod(0)
    if os.access(path, os.R_OK):  # root ignores permissions, so use a file that can't be read
        path = Path("/proc/self/mem")
    complaint = "may not be read|cannot be read|is empty"
    with pytest.raises(DatasetError, match=complaint):
        gallery.run({"path": path, "format": "csv"})


FINE: dict[str, tuple[bytes, dict[str, Any], int]] = {
    "a byte order mark": (b"\xef\xbb\xbf" + HEAD + GOOD, {}, 2),
    "Windows line ends": ((HEAD + GOOD).replace(b"\n", b"\r\n"), {}, 2),
    "mixed line ends": (HEAD + GOOD + b"u3,a,4,1700000002\r\nu4,a,4,1700000003\n", {}, 4),
    "lines ended by \\r alone": ((HEAD + GOOD).replace(b"\n", b"\r"), {}, 2),
    "no line end at the end": ((HEAD + GOOD)[:-1], {}, 2),
    "empty lines": (HEAD + b"\n" + GOOD + b"\n\n", {}, 2),
    "semicolons": ((HEAD + GOOD).replace(b",", b";"), {}, 2),
    "quoted line breaks": (
        HEAD[:-1] + b',note\nu1,a,4,1700000000,"x\ny"\nu2,b,3,1700000001,"\n"\n',
        {},
        2,
    ),
    "spaces around cells": (HEAD + GOOD + b" u3 , a , 4 , 1700000002\n", {}, 3),
    "missing values": (HEAD + GOOD + b"u3,a,,1700000002\nu3,b,NaN,1700000002\n", {}, 4),
    "declared latin-1": (HEAD + GOOD + b"u3,caf\xe9,4,1700000002\n", {"encoding": "latin-1"}, 3),
    "declared utf-16": ((HEAD + GOOD).decode().encode("utf-16"), {"encoding": "utf-16"}, 2),
    "leading zeros": (HEAD + b"00196,007,4,1700000000\n", {}, 1),
}


@pytest.mark.parametrize("name", FINE)
def test_what_only_looks_broken_is_read(gallery: Any, name: str) -> None:
    content, options, rows = FINE[name]
    account, bad = gallery.run({"path": gallery.put("e.csv", content)} | options)
    assert (account["accepted"], bad) == (rows, [])
    ids = Lake(gallery.settings.lake).interactions().column("user_id").to_pylist()
    assert ids[0] == ("00196" if name == "leading zeros" else "u1")
