"""Real Great Expectations runs: what is bad goes to quarantine, what is too bad stops the batch."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.validate import ValidateConfig, ValidationFailed, validate_batch
from flows.validate_suites import Validator, user_expectations
from shortlist.config import Settings
from shortlist.contracts import INTERACTIONS, ITEMS, TIMESTAMP, USERS
from shortlist.lake import Lake, LakeError

DAY = 86_400_000_000
START = 10_000 * DAY  # microseconds
GENEROUS = ValidateConfig(failure_budget=0.5)


def event(i: int, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{i}",
        "user_id": f"u{i % 4}",
        "item_id": f"i{i % 5}",
        "event_type": "rating",
        "event_timestamp": START + i * DAY,
        "event_order": i,
        "ingested_at": START,
        "value": float(1 + i % 5),
        "source": "test",
    } | changes


def item(i: int, **changes: Any) -> dict[str, Any]:
    return {"item_id": f"i{i}", "title": f"T{i}", "categories": [], "available": True} | changes


GOOD_EVENTS = [event(i) for i in range(20)]
GOOD_ITEMS = [item(i) for i in range(5)]
GOOD_USERS = [{"user_id": f"u{i}"} for i in range(4)]


def table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        plain = pa.int64() if field.type == TIMESTAMP else field.type
        columns.append(pa.array([row.get(field.name) for row in rows], plain).cast(field.type))
    return pa.table(columns, schema=schema)


class House:
    """A home with a staged batch."""

    def __init__(self, home: Path):
        self.settings = Settings(home=home)
        self.lake = Lake(self.settings.lake)

    def validate(
        self,
        events: list[dict[str, Any]] = GOOD_EVENTS,
        items: list[dict[str, Any]] = GOOD_ITEMS,
        users: list[dict[str, Any]] = GOOD_USERS,
        *,
        config: ValidateConfig = GENEROUS,
        batch_id: str = "b1",
    ) -> dict[str, Any]:
        self.lake.stage(
            batch_id, table(events, INTERACTIONS), table(items, ITEMS), table(users, USERS)
        )
        return validate_batch(self.settings, batch_id, config, clock="replay")

    def quarantined(self, name: str, *, batch_id: str = "b1") -> list[dict[str, Any]]:
        return pq.read_table(self.settings.quarantine / batch_id / f"{name}.parquet").to_pylist()

    def files(self) -> dict[Path, bytes]:
        published = [self.lake.root / "items.parquet", self.lake.root / "users.parquet"]
        paths = [*published, *self.lake.interaction_files()]
        return {path: path.read_bytes() for path in paths if path.is_file()}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_a_good_batch_joins_the_lake_and_is_documented(house: House) -> None:
    result = house.validate(config=ValidateConfig())
    assert (result["read"], result["accepted"]) == (20, 20)
    assert (result["quarantined"], result["duplicates"], result["quarantine"]) == (0, 0, None)
    assert house.lake.interactions().num_rows == 20
    assert not house.lake.incoming("b1").exists()
    docs = house.settings.data_docs
    index = (docs / "index.html").read_text()
    for name in ("interactions", "items", "users"):
        assert (docs / "expectations" / f"{name}.html").is_file()
        pages = list((docs / "validations" / name).rglob("*.html"))
        assert len(pages) == 1
        assert "Succeeded" in pages[0].read_text()
        link = pages[0].relative_to(docs).as_posix()
        rows = {"interactions": 20, "items": 5, "users": 4}[name]
        assert f'<td><a href="{link}">{name}</a></td><td>succeeded</td><td>{rows}</td>' in index


def test_bad_events_are_quarantined_with_the_reason(house: House) -> None:
    bad = {
        "type": event(20, event_type="stare"),
        "high": event(21, value=11.0),
        "item": event(22, item_id="nowhere"),
        "user": event(23, user_id=""),
        "old": event(24, event_timestamp=-DAY),
        "both": event(25, event_type="stare", item_id="nowhere"),
    }
    # A value beyond the range of ratings is right for another type.
    fine = event(26, event_type="watch", value=3_600.0)
    result = house.validate([*GOOD_EVENTS, *bad.values(), fine])
    assert (result["read"], result["accepted"], result["quarantined"]) == (27, 21, 6)
    assert result["quarantine"] == str(house.settings.quarantine / "b1")
    rows = {row["event_id"]: row for row in house.quarantined("interactions")}
    assert {id_: row["reason"] for id_, row in rows.items()} == {
        "e20": "event types of the contract",
        "e21": "range of ratings",
        "e22": "the item of an event is in the items table",
        "e23": "the user of an event is in the users table",
        "e24": "neither before the earliest time nor in the future",
        "e25": "event types of the contract; the item of an event is in the items table",
    }
    assert rows["e21"]["expectation"] == "expect_column_values_to_be_between(rating)"
    assert rows["e21"]["value"] == 11.0
    assert set(INTERACTIONS.names) < set(rows["e21"])
    kept = house.lake.interactions().column("event_id").to_pylist()
    assert set(kept) == {row["event_id"] for row in [*GOOD_EVENTS, fine]}
    docs = house.settings.data_docs
    page = next((docs / "validations" / "interactions").rglob("*.html")).read_text()
    assert "Failed" in page
    assert page.index("shortlist-docs") < page.index("bootstrap")  # whose style wins online
    assert "interactions</a></td><td>failed</td><td>27</td>" in (docs / "index.html").read_text()


def test_ids_that_are_there_twice_are_quarantined(house: House) -> None:
    twice = item(4, title="Another")
    events = [*GOOD_EVENTS, event(3, value=1.0)]
    users = [*GOOD_USERS, {"user_id": ""}, {"user_id": "u9"}, {"user_id": "u9"}]
    result = house.validate(events, [*GOOD_ITEMS, twice], users)
    assert [row["title"] for row in house.quarantined("items")] == ["T4", "Another"]
    assert [row["user_id"] for row in house.quarantined("users")] == ["", "u9", "u9"]
    # Which of two films i4 is, nobody knows: its four events cannot be used either.
    gone = {row["event_id"] for row in house.quarantined("interactions")}
    assert gone == {"e3", "e4", "e9", "e14", "e19"}
    assert (result["quarantined_items"], result["quarantined_users"]) == (2, 3)
    assert (result["read"], result["accepted"], result["quarantined"]) == (21, 15, 6)


def test_over_budget_stops_and_the_lake_is_untouched(house: House) -> None:
    house.validate()
    before = house.files()
    bad = [event(30, value=0.5), event(31, value=9.0)]
    events = [*(event(i) for i in range(20, 29)), *bad]
    with pytest.raises(ValidationFailed) as error:
        house.validate(events, batch_id="b2", config=ValidateConfig(failure_budget=0.1))
    message = str(error.value)
    assert "interactions: 2 of 11 rows are bad (18.2%), the budget is 10.0%" in message
    assert "2 by expect_column_values_to_be_between(rating): range of ratings" in message
    assert "found [0.5, 9.0], want at least 1" in message
    assert str(house.settings.quarantine / "b2") in message
    assert str(house.settings.data_docs / "index.html") in message
    assert [row["event_id"] for row in house.quarantined("interactions", batch_id="b2")] == [
        *("e30", "e31")
    ]
    assert house.files() == before
    # With a budget it is accepted, and the quarantine is that of the last try.
    result = house.validate(events, batch_id="b2")
    assert (result["accepted"], result["quarantined"]) == (9, 2)


def test_volume_stops_the_batch(house: House) -> None:
    with pytest.raises(ValidationFailed, match=r"interactions: volume .*found 20, want at least"):
        house.validate(config=ValidateConfig(min_rows=21))
    with pytest.raises(ValidationFailed, match="found 20, want at least 1, want at most 19"):
        house.validate(config=ValidateConfig(max_rows=19))
    with pytest.raises(ValidationFailed, match=r"items: volume .*interactions: volume .*found 0"):
        house.validate([], [])
    assert house.files() == {}


def test_a_stale_batch_is_judged_by_the_newest_event_there_is(house: House) -> None:
    config = ValidateConfig(max_age_days=30)
    house.validate(config=config)
    late = [event(i, event_timestamp=START + 100 * DAY) for i in range(20, 22)]
    house.validate(late, batch_id="b2", config=config)
    with pytest.raises(ValidationFailed, match="freshness against the data's own clock"):
        house.validate([event(i) for i in range(22, 30)], batch_id="b3", config=config)


def test_the_second_time_everything_is_a_duplicate(house: House) -> None:
    house.validate()
    before = house.lake.interactions(), house.lake.items(), house.lake.users()
    result = house.validate(batch_id="b2")
    assert (result["read"], result["accepted"], result["duplicates"]) == (20, 0, 20)
    after = house.lake.interactions(), house.lake.items(), house.lake.users()
    assert all(a.equals(b) for a, b in zip(before, after, strict=True))


def test_a_batch_that_is_not_there_is_named(house: House) -> None:
    with pytest.raises(LakeError, match="batch 'b7' was not ingested"):
        validate_batch(house.settings, "b7", GENEROUS, clock="replay")
    house.lake.stage(
        "b8",
        table(GOOD_EVENTS, INTERACTIONS),
        table(GOOD_ITEMS, ITEMS),
        table(GOOD_USERS, USERS),
    )
    path = house.lake.incoming("b8") / "items.parquet"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(LakeError, match=r"items\.parquet.*ingest it again"):
        validate_batch(house.settings, "b8", GENEROUS, clock="replay")


def test_an_expectation_that_cannot_be_judged_stops(tmp_path: Path) -> None:
    validator = Validator(tmp_path)
    frame = pd.DataFrame({"user": ["u1"]})  # no column user_id
    findings = validator.run("users", frame, user_expectations(), batch_id="b1")
    assert len(findings) == 4  # not null, text, not empty, unique
    assert {finding.action for finding in findings} == {"stop"}
    assert all(finding.figures.startswith("no result: ") for finding in findings)
    assert 'column "user_id" in BatchData does not exist' in findings[0].figures
