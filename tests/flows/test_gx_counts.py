"""For each rule, Great Expectations counts as many bad rows as the quarantine contains."""

import json
from collections import Counter
from typing import Any

import duckdb
import pytest

from flows.validate import ValidateConfig, validate_batch
from tests.flows.conftest import DAY, GOOD_EVENTS, GOOD_ITEMS, GOOD_USERS, START, House, event, item

MANY = "m" * 300
NOBODY = ("NaN", "null", "Undefined", "<NA>", "N/A", "none")
NO_LINES = ("no json at all", '{"user_id": "u1", ')


def numbered(*changes: dict[str, Any], start: int) -> list[dict[str, Any]]:
    return [event(start + i, **change) for i, change in enumerate(changes)]


BAD_EVENTS = [
    *NO_LINES,
    *numbered(*({"user_id": word} for word in NOBODY), start=100),
    *numbered(*({"item_id": word} for word in NOBODY), start=110),
    *numbered({"user_id": ""}, {"user_id": None}, {"user_id": "  "}, start=120),
    *numbered({"item_id": ""}, {"item_id": None, "event_type": "click"}, start=130),
    *numbered({"user_id": MANY}, {"user_id": "u" * 257}, {"item_id": MANY}, start=140),
    *numbered({"user_id": 1.5}, {"user_id": [1]}, {"item_id": 2.5}, {"item_id": "7.25"}, start=150),
    *numbered({"user_id": "u\n1"}, {"user_id": "\u200bu1"}, {"item_id": "i\t1"}, start=156),
    *numbered({"event_type": "stare"}, {"event_type": "RATING!"}, {"event_type": None}, start=160),
    *numbered(
        {"event_timestamp": None},
        {"event_timestamp": "yesterday"},
        {"event_timestamp": "2024-13-45"},
        {"event_timestamp": 0},
        {"event_timestamp": -1},
        {"event_timestamp": -9 * DAY},
        {"event_timestamp": 60_000 * DAY},
        {"event_timestamp": 90_000 * DAY},
        {"event_timestamp": 5 * DAY},  # before the configured earliest time
        {"event_timestamp": 9 * DAY},
        start=170,
    ),
    *numbered(
        {"value": "four"},
        {"value": "4,5"},
        {"value": -1},
        {"value": -1.0, "user_id": "u2"},
        {"value": 0},
        {"value": 5.5},
        {"value": -7.0},
        {"value": 1e13, "event_type": "watch"},
        {"value": -1e300, "event_type": "click"},
        {"value": "inf", "event_type": "purchase"},
        {"value": -3.0, "event_type": "purchase"},
        {"value": -0.5, "event_type": "watch"},
        start=190,
    ),
    *numbered(
        {"position": "first"}, {"position": 1.5}, {"position": -1}, {"position": -9}, start=210
    ),
    *numbered(
        {"text": "t" * 60}, {"text": "ü" * 51}, {"query": "q" * 51}, {"query": MANY}, start=220
    ),
    *numbered({"operation": "upsert"}, {"operation": "?"}, start=230),
    *numbered({"operation": "delete"}, {"operation": "correct", "value": 2.0}, start=240),
    *numbered({"item_id": "nowhere"}, {"item_id": "i99"}, {"user_id": "nobody"}, start=250),
    *(event(i, value=2.0) for i in (3, 4)),
    event(260, event_id="e" * 600),
    event(261, event_id="x" * 513),
    *(event(300 + i, user_id="u3", event_timestamp=START) for i in range(12)),
    # Each of these events breaks two rules.
    event(400, event_type="stare", item_id="nowhere"),
    event(401, value=77.0, position=-2),
]
BAD_ITEMS = [
    *NO_LINES,
    *(item(0, item_id=one) for one in ("", None, "NaN", "undefined", MANY, "i" * 257, 1.5, [3])),
    *(item(0, item_id=one) for one in ("i\n1", "\u2028i1", "i\x00")),
    *(item(20 + i, price=price) for i, price in enumerate((-1, -0.01, 1e13, "inf", "dear", "1,5"))),
    *(item(30 + i, published_at=at) for i, at in enumerate(("soon", "1x", "1066", "2999-01-01"))),
    *(item(40 + i, available=flag) for i, flag in enumerate(("perhaps", "2"))),
    *(item(50 + i, categories=["a", "b", "a"]) for i in range(2)),
    *(item(60 + i, categories=text) for i, text in enumerate(('["a", ', "[{'id': 1}]"))),
    *(item(70 + i, operation=one) for i, one in enumerate(("upsert", "drop"))),
    *(item(80 + i, updated_at=at) for i, at in enumerate(("soon", "never"))),
    *(item(4, title=title) for title in ("One", "Another")),
]
BAD_USERS = [
    *NO_LINES,
    *({"user_id": one} for one in ("", None, "NaN", "none", MANY, 2.5, [1])),
    *({"user_id": one} for one in ("u\r\n1", "u1\ufeff")),
    *({"user_id": f"v{i}", "created_at": at} for i, at in enumerate(("soon", "x-1"))),
    {"user_id": "u0", "created_at": "2020-01-01"},
]


def break_in_staging(house: House) -> None:
    """Change staged files so that they break rules which ingest never breaks.

    Ingest fills missing event ids and availability, splits categories only at a separator, and
    creates users from events.
    """
    folder = house.lake.incoming(house.batch_id)
    circle = "CASE WHEN item_id IN ('i50', 'i51') THEN ['a', 'b', 'a'] ELSE categories END"
    for table, changed in (
        ("interactions", "CASE WHEN event_id NOT IN ('e1', 'e2') THEN event_id END AS event_id"),
        ("items", "CASE WHEN item_id <> 'i1' THEN available END AS available"),
        ("items", f"{circle} AS categories"),
    ):
        (path,) = (folder / table).glob("*.parquet")
        with duckdb.connect() as connection:
            connection.execute(f"CREATE TABLE t AS SELECT * REPLACE ({changed}) FROM '{path}'")
            connection.execute(f"COPY t TO '{path}' (FORMAT parquet)")
    batch = json.loads((folder / "batch.json").read_text())
    (folder / "batch.json").write_text(json.dumps(batch | {"create": []}))


def test_each_rule_is_broken_and_counted_alike(house: House) -> None:
    config = ValidateConfig.model_validate(
        {
            "failure_budget": 1.0,
            "unknown_items": "quarantine",
            "unknown_users": "quarantine",
            "earliest": "1971-01-01",
            "max_text": 50,
            "burst_per_minute": 10,
            "rules": {"user_id.burst": {"action": "quarantine", "budget": 1.0}},
            "expectations": [
                {"name": "no 'threes'.", "row": "value <> 3"},
                {"name": "titles", "table": "items", "row": "title <> 'T2'", "budget": 1.0},
                {"name": "u1", "table": "users", "row": "user_id <> 'u1'"},
            ],
        }
    )
    events = [*GOOD_EVENTS, *BAD_EVENTS]
    house.stage(events, [*GOOD_ITEMS, *BAD_ITEMS], [*GOOD_USERS, *BAD_USERS])
    break_in_staging(house)
    result = validate_batch(house.settings, house.batch_id, config, clock="replay")
    assert result["quarantined"] > 0
    for table in ("interactions", "items", "users"):
        held = Counter[str]()
        for row in house.quarantined(table):
            held.update(row["expectation"].split("; "))
        found = house.counted(table)
        assert found == {rule: held[rule] for rule in found}
        assert set(held) <= set(found)
        assert {rule for rule, rows in found.items() if rows == 0} == set(), table
    assert house.counted("interactions")["user_id.placeholder"] == len(NOBODY)
    threes = sum(row.get("value") == 3 for row in events if isinstance(row, dict))
    assert house.counted("interactions")["no 'threes'."] == threes > 4


def test_a_rule_that_nothing_breaks_is_counted_too(house: House) -> None:
    house.validate()
    for table in ("interactions", "items", "users"):
        found = house.counted(table)
        assert len(found) > 5
        assert set(found.values()) == {0}


@pytest.mark.parametrize("low", [-1.0, -5.0])
def test_a_rating_of_minus_one_may_be_one(house: House, low: float) -> None:
    """If the range of ratings includes -1, -1 is a rating and not a mark for "unrated"."""
    config = ValidateConfig.model_validate({"rating_range": (low, 5), "failure_budget": 0.5})
    result = house.validate(
        [*GOOD_EVENTS, *(event(50 + i, value=-1) for i in range(3))], config=config
    )
    assert (result["accepted"], result["quarantined"]) == (23, 0)
    assert "value.unrated" not in house.counted("interactions")
