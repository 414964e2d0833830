"""The items that were chosen after a search: by user, time, and the list that showed them."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from shortlist.contracts import INTERACTIONS, check
from shortlist.lake.searches import MINUTES, chosen_after_search

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def events(*rows: dict) -> pa.Table:
    """Return events; `at` is in seconds after START, and the other columns are optional."""
    base = {"event_type": "click", "source": "test", "event_order": 0}
    full = [
        base
        | {name: value for name, value in row.items() if name != "at"}
        | {
            "event_id": f"e{number}-{row.get('query')}",
            "event_timestamp": START + timedelta(seconds=row["at"]),
            "ingested_at": START + timedelta(days=1),
        }
        for number, row in enumerate(rows)
    ]
    names = {name for row in full for name in row}
    schema = pa.schema([field for field in INTERACTIONS if field.name in names])
    return check(pa.Table.from_pylist(full, schema=schema), INTERACTIONS, where="test")


def pairs(tmp_path, searches: list[dict], chosen: list[dict]) -> list[tuple[str, str]]:
    given = events(*({"event_type": "search"} | row for row in searches))
    found = chosen_after_search(given, events(*chosen), temporary=tmp_path)
    return list(
        zip(*(found.column(name).to_pylist() for name in ("query", "item_id")), strict=True)
    )


LONG = MINUTES * 60
CASES = {
    "the last search before it": (
        [{"user_id": "a", "at": 0, "query": "tea"}, {"user_id": "a", "at": 9, "query": "cup"}],
        [{"user_id": "a", "item_id": "x", "at": 5}, {"user_id": "a", "item_id": "y", "at": 10}],
        [("tea", "x"), ("cup", "y")],
    ),
    "another user's search": (
        [{"user_id": "b", "at": 0, "query": "tea"}],
        [{"user_id": "a", "item_id": "x", "at": 5}],
        [],
    ),
    "too late, and just in time": (
        [{"user_id": "a", "at": 0, "query": "tea"}],
        [
            {"user_id": "a", "item_id": "x", "at": LONG},
            {"user_id": "a", "item_id": "y", "at": LONG + 1},
        ],
        [("tea", "x")],
    ),
    "before the search": (
        [{"user_id": "a", "at": 10, "query": "tea"}],
        [{"user_id": "a", "item_id": "x", "at": 9}],
        [],
    ),
    "from another list": (
        [{"user_id": "a", "at": 0, "query": "tea", "request_id": "r1"}],
        [
            {"user_id": "a", "item_id": "x", "at": 1, "request_id": "r1"},
            {"user_id": "a", "item_id": "y", "at": 2, "request_id": "r2"},
            {"user_id": "a", "item_id": "z", "at": 3},
        ],
        [("tea", "x"), ("tea", "z")],
    ),
    "a search without words": (
        [{"user_id": "a", "at": 0, "query": "  "}, {"user_id": "a", "at": 0, "query": None}],
        [{"user_id": "a", "item_id": "x", "at": 1}],
        [],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_pairs(tmp_path, name):
    searches, chosen, expected = CASES[name]
    assert pairs(tmp_path, searches, chosen) == expected
