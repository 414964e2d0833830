"""Broken rows are quarantined unchanged, each with the reason; no row is lost."""

import json
from typing import Any

import pytest

HEAD = b"user,item,stars,when\n"
GOOD = b"u1,a,4,1700000000\nu2,b,5,1700000001\n"

# {case: (lines after the good ones, options, {broken rule: number of rows})}
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
        b"196.5,a,4,1700000002\nu3,1.5,4,1700000003\n",
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
    "negative times": (
        b"u3,a,4,-5\nu3,b,4,-86400.5\n",
        {},
        {"event_timestamp.negative": 2},
    ),
    "the epoch for a missing time": (
        b"u3,a,4,0\nu3,b,4,0.0\n",
        {},
        {"event_timestamp.epoch_zero": 2},
    ),
    "times beyond 2100": (
        b"u3,a,4,4102444800\nu3,b,4,9999999999\n",
        {},
        {"event_timestamp.beyond_2100": 2},
    ),
    "a line break in an id": (b'u3,"a\nb",4,1700000002\n', {}, {"item_id.characters": 1}),
    "words for nobody": (
        b"undefined,a,4,1700000002\nNil,b,4,1700000003\nanonymous,b,4,1700000003\n",
        {},
        {"user_id.placeholder": 3},
    ),
    "a rating of -1": (b"u3,a,-1,1700000002\nu3,b,-1.0,1700000003\n", {}, {"value.unrated": 2}),
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
def test_a_bad_row_goes_to_quarantine(gallery: Any, name: str) -> None:
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
    for row in rows:  # the quarantine keeps the original, as the line or as its cells
        cells = row["original"]
        cells = json.loads(cells).values() if cells.startswith("{") else cells.split(",")
        assert all(str(cell) in content for cell in cells if cell)


JSON_GOOD = b'{"user": "u1", "item": "a", "stars": 4, "when": 1700000000}\n'
JSON_ROWS: dict[str, tuple[bytes, str]] = {
    "a cut line": (b'{"user": "u3", "item"\n', "line.json"),
    "a list": (b"[1, 2]\n", "line.json"),
    "an object for an id": (
        *(b'{"user": {"id": 1}, "item": "a", "stars": 4, "when": 1700000001}\n', "user_id.text"),
    ),
    "a float for an id": (
        *(b'{"user": 196.5, "item": "a", "stars": 4, "when": 1700000001}\n', "user_id.text"),
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
def test_a_bad_line_of_json_goes_to_quarantine(gallery: Any, name: str) -> None:
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
def test_events_of_a_bad_item_wait_for_it(gallery: Any, name: str) -> None:
    """A broken item is quarantined alone; events about it are accepted and wait for a valid row."""
    content, columns, rule = ITEMS[name]
    items = {
        "path": gallery.put("items.csv", content),
        "columns": {"item_id": "id"} | columns,
        "category_separator": ">",
    }
    path = gallery.put("e.csv", HEAD + GOOD)
    account, rows = gallery.run({"path": path}, items=items)
    found = {(row["table"], row["item_id"], row["expectation"]) for row in rows}
    assert found == {("items", "a", rule)}
    assert (account["accepted"], account["quarantined"]) == (2, 0)
