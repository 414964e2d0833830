"""The service refuses exactly the posted changes of items that validation would quarantine."""

import json
from pathlib import Path
from typing import Any

import great_expectations as gx
import numpy as np
import pytest

from flows.validate import ValidateConfig, validate_batch
from services.events.event_limits import EventLimits
from shortlist.datasets import DataConfig, stage_source
from shortlist.datasets.service.item_commands import rows_after
from shortlist.http.api import ItemChange
from shortlist.items.commands import CommandInbox
from tests.flows.conftest import DAY, START, House, item

NOW = START + 1_000 * DAY
CHEAP = {"name": "cheap", "table": "items", "row": "price IS NULL OR price < 50"}
NAMED = {"name": "named", "table": "items", "row": "title IS NOT NULL", "action": "stop"}
CONFIGS: dict[str, dict[str, Any]] = {
    "own conditions": {"expectations": [CHEAP, NAMED]},
    "conditions that only warn": {"expectations": [CHEAP, NAMED | {"action": "warn"}]},
    "an earliest date": {"earliest_published": "1950-01-01"},
    "rules that only warn": {"rules": {"published_at.range": {"action": "warn"}}},
    "a column that only a batch has": {
        "expectations": [NAMED, {"name": "x", "table": "items", "row": "faults IS NULL"}]
    },
}


def random_changes(count: int) -> list[ItemChange]:
    rng = np.random.default_rng(1)
    changes = []
    for number in range(count):
        content: dict[str, Any] = {"item_id": f"{'n' if number % 2 else 'i'}{number}"}
        if rng.random() < 0.7:
            content["price"] = float(rng.choice([0.0, 49.0, 50.0, 90.0]))
        if rng.random() < 0.7:
            content["title"] = rng.choice(["A", ""]) or None
        if rng.random() < 0.5:
            content["published_at"] = int(rng.choice([-50, -10, 5])) * 365 * DAY
        if rng.random() < 0.3:
            content["available"] = bool(rng.random() < 0.5)
        changes.append(ItemChange.model_validate(content))
    return changes


def both(house: House, config: ValidateConfig) -> tuple[set[str], set[str]]:
    """Return the ids of the changes that the service refuses, and of those quarantined."""
    changes = random_changes(60)
    given = [one.given for one in changes]
    rows = rows_after(house.settings, given, received_at=NOW)
    refused = set(EventLimits.read(house.settings.event_rules).item_complaints(rows))
    CommandInbox.of(house.settings).append(given, received_at=NOW)
    batch = stage_source(DataConfig(source="commands"), house.settings, now=NOW)
    house.batch_id = batch.batch_id
    limits = config.model_copy(update={"failure_budget": 1.0})
    result = validate_batch(house.settings, batch.batch_id, limits, clock="replay")
    quarantined = set(house.reasons("items")) if result["quarantined_items"] else set()
    withdrawn = {one.item_id for one in changes if not one.available}
    return refused, quarantined - withdrawn


@pytest.mark.parametrize("name", CONFIGS)
def test_the_service_refuses_what_validation_quarantines(name: str, house: House) -> None:
    config = ValidateConfig.model_validate({"failure_budget": 0.5} | CONFIGS[name])
    house.validate(items=[item(i) for i in range(60)], config=config)
    refused, quarantined = both(house, config)
    assert refused == quarantined
    assert bool(refused) == (name != "rules that only warn")


def test_a_limit_edited_in_the_suite_of_great_expectations_applies_to_posts(house: House) -> None:
    config = ValidateConfig(failure_budget=0.5)
    house.validate(items=[item(i) for i in range(60)], config=config)
    assert EventLimits.read(house.settings.event_rules).items_sql == ()
    context = gx.get_context(mode="file", project_root_dir=str(house.settings.great_expectations))
    suite = context.suites.get("items")
    (price,) = [
        one
        for one in suite.expectations
        if (one.meta or {}).get("shortlist", {}).get("rule") == "price.not_negative"
    ]
    price.max_value = 49
    suite.save()
    house.validate(items=[item(i, title="new") for i in range(60)], config=config)
    refused, quarantined = both(house, config)
    assert refused == quarantined
    assert refused


def test_a_change_is_judged_with_the_changes_before_it(house: House) -> None:
    """A change of the price alone is judged with the title that a pending change has set."""
    config = ValidateConfig.model_validate({"expectations": [NAMED], "failure_budget": 1.0})
    house.validate(items=[item(i) for i in range(5)], config=config)
    limits = EventLimits.read(house.settings.event_rules)

    def complaints(change: dict[str, Any]) -> dict[str, str]:
        return limits.item_complaints(rows_after(house.settings, [change], received_at=NOW))

    assert complaints({"item_id": "i1", "price": 3.0}) == {}
    assert set(complaints({"item_id": "new", "price": 3.0})) == {"new"}
    CommandInbox.of(house.settings).append([{"item_id": "new", "title": "N"}], received_at=NOW)
    assert complaints({"item_id": "new", "price": 3.0}) == {}
    assert complaints({"item_id": "i1", "title": None, "available": False}) == {}
    assert complaints({"item_id": "i1", "deleted": True}) == {}


def test_limits_of_an_older_file_are_read(tmp_path: Path) -> None:
    content = {"enforced": [], "earliest": 0, "latest": None, "rating_range": [1, 5]}
    path = tmp_path / "event_rules.json"
    path.write_text(json.dumps(content | {"max_text": 9, "sql": []}))
    assert EventLimits.read(path).items_sql == ()
