"""Options of validation: policies, changed rules, user-defined expectations, corrections."""

import json
from typing import Any

import pytest

from flows.validate import ValidateConfig, ValidationFailed, validate_batch
from shortlist.config import ConfigError
from shortlist.datasets import DataConfig, stage_source
from shortlist.lake import LakeError
from tests.flows.conftest import DAY, GENEROUS, GOOD_EVENTS, START, House, event, item


def test_corrections_deletions_and_exclusions_are_accounted_for(house: House) -> None:
    house.validate()
    changes = [
        event(0, operation="delete"),
        event(1, operation="correct", value=5.0),
        event(77, operation="delete"),  # this event doesn't exist
        event(40, user_id="test-robot"),
        event(41),
        event(41),
        event(42, operation="frobnicate"),
    ]
    result = house.validate(changes, exclude=["user_id LIKE 'test-%'"])
    parts = ("accepted", "quarantined", "duplicates", "excluded", "applied")
    assert [result[part] for part in parts] == [1, 2, 1, 1, 2]
    assert result["read"] == 7
    assert house.reasons("interactions") == {"e77": "operation.target", "e42": "operation.known"}
    rows = {row["event_id"]: row for row in house.lake.interactions().to_pylist()}
    assert "e0" not in rows
    assert rows["e1"]["value"] == 5.0


def test_of_an_event_to_delete_its_id_is_enough(house: House) -> None:
    house.validate()
    nothing = dict.fromkeys(("user_id", "item_id", "event_type", "event_timestamp"))
    changes = [event(0, operation="delete", **nothing), event(1, operation="correct", **nothing)]
    result = house.validate(changes)
    assert (result["read"], result["applied"], result["quarantined"]) == (2, 1, 1)
    ids = house.lake.interactions().column("event_id").to_pylist()
    assert ("e0" in ids, "e1" in ids) == (False, True)
    assert None not in house.lake.users().column("user_id").to_pylist()


def test_items_are_corrected_and_taken_off_the_shelf(house: House) -> None:
    house.validate()
    house.validate([event(50)], [item(0, title="New"), item(1, operation="delete")])
    rows = {row["item_id"]: row for row in house.lake.items().to_pylist()}
    assert (rows["i0"]["title"], rows["i0"]["available"]) == ("New", True)
    assert (rows["i1"]["available"], rows["i2"]["available"]) == (False, True)


@pytest.mark.parametrize(
    ("policy", "figures", "catalogue"),
    [("quarantine", (20, 1), 5), ("keep", (21, 0), 5), ("create", (21, 0), 6)],
)
def test_policies_for_unknown_items(
    house: House, policy: str, figures: tuple[int, int], catalogue: int
) -> None:
    config = ValidateConfig.model_validate({"failure_budget": 0.5, "unknown_items": policy})
    assert ValidateConfig().unknown_items == "keep"
    result = house.validate([*GOOD_EVENTS, event(20, item_id="new")], config=config)
    assert (result["accepted"], result["quarantined"]) == figures
    assert house.lake.items().num_rows == catalogue


OWN = [
    {"name": "no low ratings", "row": "value >= 2", "action": "warn"},
    {"name": "titles", "table": "items", "row": "title IS NOT NULL", "budget": 0.0},
    {"name": "mean", "batch": "avg(value)", "min": 2, "max": 4, "action": "warn"},
]


def test_expectations_of_ones_own(house: House) -> None:
    config = ValidateConfig.model_validate({"expectations": OWN})
    result = house.validate(config=config)
    assert result["accepted"] == 20
    assert result["warnings"] == [
        "interactions: no low ratings: 4 of 20 rows (20.0%): no low ratings: want value >= 2,"
        " the budget is 0.0%"
    ]
    low = [event(i, value=1.0) for i in range(20, 24)]
    with pytest.raises(ValidationFailed, match=r"items: titles: 1 of 2 rows \(50.0%\)"):
        house.validate(low, [item(0), {"item_id": "i9"}], config=config)
    result = house.validate(low, config=config)
    assert (
        result["warnings"][1] == "batch: mean: avg(value): found 1, want at least 2 and at most 4"
    )
    wrong = ValidateConfig.model_validate({"expectations": [{"name": "x", "row": "vale > 2"}]})
    with pytest.raises(ConfigError, match=r"'x': .*vale.* want an SQL condition on the columns"):
        house.validate([event(60)], config=wrong)
    wrong = ValidateConfig.model_validate(
        {"expectations": [{"name": "x", "batch": "avg(vale)", "min": 0}]}
    )
    with pytest.raises(ConfigError, match=r"'x': .*vale.* want an SQL aggregate"):
        house.validate([event(60)], config=wrong)


def test_actions_and_budgets_of_rules_can_be_changed(house: House) -> None:
    events = [*GOOD_EVENTS, event(20, value=9.0)]

    def rule(**change: Any) -> ValidateConfig:
        rules = {"value.rating_range": change}
        return ValidateConfig.model_validate({"failure_budget": 0.5, "rules": rules})

    with pytest.raises(ValidationFailed, match=r"value.rating_range: 1 of 21 rows .* 4.0%"):
        house.validate(events, config=rule(budget=0.04))
    with pytest.raises(ValidationFailed, match=r"value.rating_range: 1 of 21 rows .* 0.0%"):
        house.validate(events, config=rule(action="stop"))
    result = house.validate(events, config=rule(budget=0.05))
    assert (result["quarantined"], result["warnings"]) == (1, [])
    result = house.validate([event(21, value=9.0)], config=rule(action="warn"))
    assert (result["accepted"], result["quarantined"]) == (1, 0)
    assert result["warnings"][0].startswith("interactions: value.rating_range: 1 of 1 rows")
    unknown = ValidateConfig.model_validate({"rules": {"value.range": {"action": "warn"}}})
    with pytest.raises(ConfigError, match=r"'value.range' is unknown, want one of available.flag"):
        house.validate([event(22)], config=unknown)


def test_a_batch_unlike_the_last_ones_is_warned_about(house: House) -> None:
    house.validate([event(i, surface="web") for i in range(100)], config=ValidateConfig())
    strange = [event(100 + i, surface="watch" if i else None, value=None) for i in range(5)]
    burst = [event(200 + i, user_id="u1", event_timestamp=START + 300 * DAY) for i in range(1_200)]
    result = house.validate([*strange, *burst])
    warned = [warning.split(": ")[1] for warning in result["warnings"]]
    assert warned == [
        *("user_id.burst", "volume.ratio", "nulls.change"),
        *("user_id.top_share", "user_id.bursts"),
    ]


def test_bots_can_be_quarantined(house: House) -> None:
    """With the action `quarantine`, the rule `user_id.burst` quarantines a burst of events."""
    burst = [event(200 + i, user_id="u1", event_timestamp=START) for i in range(12)]
    rules = {"user_id.burst": {"action": "quarantine", "budget": 1.0}}
    config = ValidateConfig.model_validate(
        {"failure_budget": 0.5, "burst_per_minute": 10, "rules": rules}
    )
    result = house.validate([*GOOD_EVENTS, *burst], config=config)
    assert (result["accepted"], result["quarantined"]) == (20, 12)


def test_a_batch_that_is_not_there_is_named(house: House) -> None:
    with pytest.raises(LakeError, match=r"batch 'b7' was not ingested .* ingested batches: none"):
        validate_batch(house.settings, "b7", GENEROUS, clock="replay")


def test_an_id_that_looks_like_a_date_is_judged_too(house: House) -> None:
    # dateutil parses this batch id as a date and overflows. That affects one in 2,500 batch ids.
    batch_id = "6449763540995043"
    staged = house.lake.incoming(house.stage())
    text = (staged / "batch.json").read_text().replace(house.batch_id, batch_id)
    (staged / "batch.json").write_text(text)
    staged.rename(staged.with_name(batch_id))
    result = validate_batch(house.settings, batch_id, GENEROUS, clock="replay")
    assert (result["accepted"], result["warnings"]) == (20, [])


def post(house: House, *events: dict[str, Any]) -> str:
    """Write events to the inbox as the service does and stage them; return the batch id."""
    house.settings.events.mkdir(parents=True)
    lines = [json.dumps(row | {"received_at": START + 400 * DAY}) + "\n" for row in events]
    (house.settings.events / "1998-07-12.jsonl").write_text("".join(lines))
    config = DataConfig.model_validate({"source": "service"})
    return stage_source(config, house.settings, now=START + 1_000 * DAY).batch_id


BAD_POSTS = [
    event(60, user_id="undefined"),
    event(61, user_id="  "),
    event(62, item_id="NaN"),
    event(63, event_timestamp=0),
    event(64, event_timestamp=-5),
    event(65, value=77.0),
]


@pytest.mark.parametrize(
    "limits",
    [
        {"failure_budget": 0.0},
        {"failure_budget": 0.0, "min_rows": 50},
        {"rules": {"value.rating_range": {"action": "stop"}}},
        {"rules": {"user_id.placeholder": {"budget": 0.0}, "item_id.placeholder": {"budget": 0.1}}},
    ],
)
def test_bad_rows_of_one_client_do_not_stop_those_of_all_others(
    house: House, limits: dict[str, Any]
) -> None:
    house.validate()
    batch_id = post(house, event(50), *BAD_POSTS, event(51))
    config = ValidateConfig.model_validate(limits)
    result = validate_batch(house.settings, batch_id, config, clock="replay")
    assert (result["read"], result["accepted"], result["quarantined"]) == (8, 2, 6)
    house.batch_id = batch_id
    assert set(house.reasons("interactions")) == {f"e{i}" for i in range(60, 66)}
