"""Validation with Great Expectations: bad rows are quarantined, too many stop the batch."""

import json

import pytest

from flows.validate import ValidateConfig, ValidationFailed, summary_lines
from shortlist.contracts import INTERACTIONS
from tests.flows.conftest import DAY, GOOD_EVENTS, GOOD_ITEMS, GOOD_USERS, START, House, event, item


def test_a_good_batch_joins_the_lake_and_is_documented(house: House) -> None:
    result = house.validate(config=ValidateConfig())
    assert (result["read"], result["accepted"], result["items"], result["users"]) == (20, 20, 5, 4)
    assert (result["quarantined"], result["duplicates"], result["quarantine"]) == (0, 0, None)
    assert house.lake.interactions().num_rows == 20
    assert not house.lake.incoming(house.batch_id).exists()
    docs = house.settings.data_docs
    index = (docs / "index.html").read_text()
    for name in ("interactions", "items", "users", "batch"):
        assert (docs / "expectations" / f"{name}.html").is_file()
        (page,) = (docs / "validations" / name).rglob("*.html")
        assert "Succeeded" in page.read_text()
        assert page.relative_to(docs).as_posix() in index
    cells = (house.batch_id, "published", 20, 20, 0, 0, 0, 0, 0)
    assert f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" in index
    assert summary_lines(result)[0] == (
        "20 events read = 20 accepted + 0 quarantined + 0 duplicates + 0 excluded + 0 applied"
    )


def test_bad_events_are_quarantined_with_reason_and_original(house: House) -> None:
    bad = [
        event(20, event_type="stare"),
        event(21, value=11.0),
        event(22, item_id="nowhere"),
        event(23, user_id=""),
        event(24, event_timestamp=-DAY),
        event(25, event_type="stare", item_id="nowhere"),
        event(26, event_type="purchase", value=-3.0),
        event(27, value="four"),
        event(28, item_id="x" * 300),
        event(29, user_id="NaN"),
    ]
    # The range of ratings doesn't apply to other event types.
    fine = event(30, event_type="watch", value=3_600.0)
    result = house.validate([*GOOD_EVENTS, *bad, fine])
    assert (result["read"], result["accepted"], result["quarantined"]) == (31, 21, 10)
    assert result["quarantine"] == str(house.settings.quarantine / house.batch_id)
    assert house.reasons("interactions") == {
        "e20": "event_type.known",
        "e21": "value.rating_range",
        "e22": "item_id.known",
        "e23": "user_id.required",
        "e24": "event_timestamp.negative",
        "e25": "event_type.known; item_id.known",
        "e26": "value.not_negative",
        "e27": "value.number",
        "e28": "item_id.length; item_id.known",
        "e29": "user_id.placeholder",
    }
    rows = {row["event_id"]: row for row in house.quarantined("interactions")}
    assert json.loads(rows["e27"]["original"]) == bad[7]
    assert (rows["e27"]["file"], rows["e27"]["line"]) == ("interactions.jsonl", 28)
    assert rows["e21"]["reason"] == "range of ratings: want 1 to 5"
    assert set(INTERACTIONS.names) - {"event_order"} < set(rows["e21"])
    kept = house.lake.interactions().column("event_id").to_pylist()
    assert set(kept) == {row["event_id"] for row in [*GOOD_EVENTS, fine]}
    page = next((house.settings.data_docs / "validations" / "interactions").rglob("*.html"))
    text = page.read_text()
    assert "Failed" in text
    assert "value.rating_range: range of ratings: want 1 to 5" in text
    assert ">11.0<" in text  # the page lists unexpected values


def test_ids_that_stand_for_two_things_are_quarantined(house: House) -> None:
    twice = item(4, title="Another")
    events = [*GOOD_EVENTS, event(3, value=1.0), event(1)]
    users = [*GOOD_USERS, {"user_id": ""}, {"user_id": "u9"}, {"user_id": "u9"}]
    result = house.validate(events, [*GOOD_ITEMS, twice, item(0)], users)
    assert [row["title"] for row in house.quarantined("items")] == ["T4", "Another"]
    assert house.reasons("users") == {None: "user_id.required"}
    # The id i4 stands for two different items, so its four events are quarantined too.
    gone = [row["event_id"] for row in house.quarantined("interactions")]
    assert sorted(gone) == ["e14", "e19", "e3", "e3", "e4", "e9"]
    assert (result["quarantined_items"], result["quarantined_users"]) == (2, 1)
    assert (result["read"], result["accepted"], result["quarantined"]) == (22, 15, 6)
    assert result["duplicates"] == 1  # e1 occurs twice with the same content
    assert (result["items"], result["users"]) == (4, 5)


def test_over_budget_stops_and_the_lake_is_untouched(house: House) -> None:
    house.validate()
    before = house.files()
    bad = [event(30, value=0.5), event(31, value=9.0)]
    events = [*(event(i) for i in range(20, 29)), *bad]
    with pytest.raises(ValidationFailed) as error:
        house.validate(events, config=ValidateConfig(failure_budget=0.1))
    message = str(error.value)
    assert "interactions: 2 of 11 rows are bad (18.2%), the budget is 10.0%" in message
    assert "most of all 2 by value.rating_range: range of ratings: want 1 to 5" in message
    assert str(house.settings.quarantine / house.batch_id) in message
    assert str(house.settings.data_docs / "index.html") in message
    assert house.reasons("interactions") == {
        "e30": "value.rating_range",
        "e31": "value.rating_range",
    }
    assert house.files() == before
    # With a larger budget the batch is accepted, and its quarantine replaces that of the first try.
    result = house.validate(events)
    assert (result["accepted"], result["quarantined"]) == (9, 2)


def test_volume_stops_the_batch(house: House) -> None:
    with pytest.raises(ValidationFailed, match=r"volume.rows: .*found 20, want at least 21"):
        house.validate(config=ValidateConfig(min_rows=21))
    with pytest.raises(ValidationFailed, match="found 20, want at least 1 and at most 19"):
        house.validate(config=ValidateConfig(max_rows=19))
    assert house.files() == {}


def test_a_stale_batch_is_judged_by_the_newest_event_there_is(house: House) -> None:
    """The age of a batch counts from the newest event in the lake."""
    config = ValidateConfig(max_age_days=30)
    house.validate(config=config)
    late = [event(i, event_timestamp=START + 100 * DAY) for i in range(20, 22)]
    house.validate(late, config=config)
    with pytest.raises(ValidationFailed, match=r"time.age_days: days from .* want at most 30"):
        house.validate([event(i) for i in range(22, 30)], config=config)


def test_the_second_time_everything_is_a_duplicate(house: House) -> None:
    house.validate()
    before = house.lake.interactions(), house.lake.items(), house.lake.users()
    result = house.validate([*GOOD_EVENTS, event(0)])  # the file has one more, repeated row
    assert (result["read"], result["accepted"], result["duplicates"]) == (21, 0, 21)
    after = house.lake.interactions(), house.lake.items(), house.lake.users()
    assert all(a.equals(b) for a, b in zip(before, after, strict=True))
