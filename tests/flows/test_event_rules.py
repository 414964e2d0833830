"""The service refuses exactly the posted events that validation would quarantine."""

import json
import time
from pathlib import Path
from typing import Any

import great_expectations as gx
import numpy as np
import pytest

from flows.validate import ValidateConfig, validate_batch
from services.events.event_limits import EventLimits, EventLimitsFile
from services.events.intake import stored
from shortlist.datasets import DataConfig, stage_source
from shortlist.http.api import Event
from shortlist.lake.staging import StagedBatch, finish_batch, staging
from tests.flows.conftest import GOOD_EVENTS, GOOD_ITEMS, GOOD_USERS, House

NOW = time.time_ns() // 1_000
DAY = 86_400_000_000
TYPES = ("rating", "watch", "purchase", "view", "return", "search")
VALUES = (None, -1e13, -3.0, -1.0, 0.0, 0.5, 1.0, 3.0, 5.0, 9.0, 11.0, 1e12, 2e12)
AGES = (0.1, 30, 400, 3_000)
CONFIGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "other limits": {
        "rating_range": (0, 10),
        "max_text": 20,
        "earliest": "2024-01-01",
        "unknown_users": "quarantine",
        "unknown_items": "quarantine",
    },
    "rules that only warn": {
        "earliest": "2024-01-01",
        "rules": {
            "value.rating_range": {"action": "warn"},
            "value.unrated": {"action": "warn"},
            "text.length": {"action": "warn"},
            "event_timestamp.range": {"action": "warn"},
        },
        "max_text": 20,
    },
    "own conditions": {
        "expectations": [
            {"name": "a watch takes less than 6", "row": "event_type <> 'watch' OR value < 6"},
            {"name": "home only", "row": "surface = 'home'", "action": "warn"},
        ]
    },
}


def random_events(count: int) -> list[Event]:
    rng = np.random.default_rng(4)

    def one(number: int) -> Event:
        event_type = str(rng.choice(TYPES))
        return Event(
            event_id=f"p{number}",
            user_id=f"u{rng.integers(8)}",
            item_id=None if event_type == "search" else f"i{rng.integers(8)}",
            event_type=event_type,
            event_timestamp=NOW - int(rng.choice(AGES) * DAY),
            value=VALUES[rng.integers(len(VALUES))],
            text="x" * int(rng.choice([0, 20, 21])) or None,
            query="y" * int(rng.choice([0, 20, 21])) or None,
            surface=str(rng.choice(["home", "search"])),
            position=int(rng.integers(3)),
        )

    return [one(number) for number in range(count)]


def post(house: House, events: list[Event]) -> dict[str, dict[str, Any]]:
    """Write events to the inbox as the service does; return its lines by event_id."""
    rows = [stored(event, received=NOW, wall=True) for event in events]
    path = house.settings.events / "date=2026-01-01" / "1-1.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {row["event_id"]: row for row in rows}


def refused(limits: EventLimits, events: list[Event], rows: dict[str, dict[str, Any]]) -> set[str]:
    builtin = {e.event_id for e in events if limits.complaint(e, now=NOW) is not None}
    return {str(event_id) for event_id in builtin} | set(limits.complaints(list(rows.values())))


def quarantined(house: House, config: ValidateConfig) -> set[str]:
    """Stage and validate the inbox as a refresh does; return the ids of the quarantined events."""
    kept = {"unknown_items": "keep", "unknown_users": "create", "failure_budget": 1.0}
    batch = stage_source(DataConfig(source="service"), house.settings, now=NOW)
    house.batch_id = batch.batch_id
    result = validate_batch(
        house.settings, batch.batch_id, config.model_copy(update=kept), clock="wall"
    )
    return set(house.reasons("interactions")) if result["quarantined"] else set()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_service_refuses_what_validation_quarantines(name: str, house: House) -> None:
    config = ValidateConfig.model_validate({"failure_budget": 0.5} | CONFIGS[name])
    recent = [one | {"event_timestamp": NOW - 10 * DAY} for one in GOOD_EVENTS]
    house.validate(recent, GOOD_ITEMS, GOOD_USERS, config=config)
    limits = EventLimits.read(house.settings.event_rules)
    events = random_events(300)
    rows = post(house, events)
    expected = refused(limits, events, rows)
    assert expected == quarantined(house, config)
    assert 0 < len(expected) < len(events)


def test_a_limit_edited_in_the_suite_of_great_expectations_applies_to_posts(house: House) -> None:
    config = ValidateConfig(failure_budget=0.5)
    house.validate(config=config)
    limits_file = EventLimitsFile(house.settings.event_rules)
    nine = Event(event_id="n", user_id="u1", item_id="i1", event_type="rating", value=9)
    assert "want 1 to 5" in str(limits_file.current().complaint(nine, now=NOW))
    context = gx.get_context(mode="file", project_root_dir=str(house.settings.great_expectations))
    suite = context.suites.get("interactions")
    (rule,) = [
        one
        for one in suite.expectations
        if (one.meta or {}).get("shortlist", {}).get("rule") == "value.rating_range"
    ]
    rule.max_value = 10
    (times,) = [
        one
        for one in suite.expectations
        if (one.meta or {}).get("shortlist", {}).get("rule") == "event_timestamp.range"
    ]
    times.min_value = "1990-01-01T00:00:00+00:00"
    suite.save()
    house.validate([*GOOD_EVENTS, GOOD_EVENTS[0] | {"event_id": "new"}], config=config)
    limits = limits_file.current()
    rows = [stored(nine, received=NOW, wall=True)]
    assert limits.complaint(nine, now=NOW) is None
    # The upper limit stays the present: this validation's time is no limit for later posts.
    assert limits.complaint(nine.model_copy(update={"event_timestamp": NOW}), now=NOW) is None
    old = nine.model_copy(update={"event_timestamp": 100 * DAY})
    assert "is before 1990-01-01" in str(limits.complaint(old, now=NOW))
    assert limits.complaints(rows) == {}
    (reason,) = limits.complaints([rows[0] | {"value": 10.5}]).values()
    assert "max_value = 10" in reason


def test_a_changed_limit_applies_to_posts_though_no_row_is_new(house: House) -> None:
    house.validate(config=ValidateConfig())
    nine = Event(event_id="n", user_id="u1", item_id="i1", event_type="rating", value=9)
    limits_file = EventLimitsFile(house.settings.event_rules)
    assert limits_file.current().complaint(nine, now=NOW) is not None
    empty = StagedBatch(batch_id="nothing", read={"interactions": 0}, unchanged=1)
    with staging(house.settings.lake) as staged:
        finish_batch(staged, house.settings.lake, empty)
    wider = ValidateConfig(rating_range=(1, 10))
    validate_batch(house.settings, "nothing", wider, clock="replay")
    assert limits_file.current().complaint(nine, now=NOW) is None


def test_a_rule_that_cannot_be_evaluated_for_one_event_is_left_to_validation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rule = {"name": "x", "column": "c", "value": "not_a_column", "bad": "c", "reason": "r"}
    good = {"name": "y", "column": None, "value": None, "bad": "user_id = 'u1'", "reason": "no u1"}
    path = tmp_path / "event_rules.json"
    content = {"enforced": [], "earliest": 0, "rating_range": [1, 5], "max_text": 9}
    path.write_text(json.dumps(content | {"latest": None, "sql": [rule, good]}))
    limits_file = EventLimitsFile(path)
    rows = [{"event_id": "e1", "user_id": "u1"}, {"event_id": "e2", "user_id": "u2"}]
    assert limits_file.current().complaints(rows) == {"e1": "no u1"}
    assert "can't be evaluated" in caplog.text
    path.write_text("{")
    assert limits_file.current().sql == (rule, good)  # an unreadable file changes nothing
