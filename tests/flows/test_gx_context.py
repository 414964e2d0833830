"""The Great Expectations context of a home: its contents, and which changes by users are kept."""

from pathlib import Path
from typing import Any

import pytest

from flows.validate import ValidateConfig, ValidationFailed
from shortlist.config import ConfigError
from tests.flows.conftest import GENEROUS, GOOD_EVENTS, GOOD_ITEMS, House, add, event, item, opened

SUITES = ["batch", "interactions", "items", "users"]


def of_rule(house: House, suite: str, rule: str) -> Any:
    """Return the stored expectation of a rule or batch figure."""
    stored = opened(house).suites.get(suite).expectations
    (found,) = (one for one in stored if (one.meta or {}).get("shortlist", {}).get("rule") == rule)
    return found


def change(house: House, suite: str, rule: str, **changes: Any) -> None:
    """Change the stored expectation of a rule or batch figure as a user would."""
    stored = opened(house).suites.get(suite)
    for one in stored.expectations:
        if (one.meta or {}).get("shortlist", {}).get("rule") == rule:
            for name, value in changes.items():
                setattr(one, name, value)
            one.save()


def test_a_home_has_all_that_belongs_to_a_context_and_it_runs_on_the_lake(house: House) -> None:
    house.validate([*GOOD_EVENTS, event(20, value=9.0)])
    context = opened(house)
    for stored in (context.suites, context.validation_definitions, context.checkpoints):
        assert sorted(one.name for one in stored.all()) == SUITES
    assert context.variables.progress_bars == {"globally": False}
    assert context.variables.analytics_enabled is False
    rating = of_rule(house, "interactions", "value.rating_range")
    assert (rating.column, rating.min_value, rating.max_value) == ("rating", 1, 5)
    assert rating.severity == "warning"
    assert of_rule(house, "interactions", "user_id.burst").severity == "info"
    assert of_rule(house, "batch", "volume.rows").severity == "critical"
    # The bad row was not published, so the lake meets every rule.
    for name in SUITES:
        outcome = context.checkpoints.get(name).run()
        assert outcome.success, outcome.describe()
    assert house.counted("interactions")["value.rating_range"] == 0
    assert len(list((house.settings.data_docs / "validations" / "items").rglob("*.html"))) == 2


def test_expectations_that_a_user_adds_are_kept_and_warn_or_stop(house: House) -> None:
    house.validate()
    limits = {"column": "value", "max_value": 2.5}
    kind = "ExpectColumnMeanToBeBetween"
    add(house, "interactions", kind, severity="warning", description="mean rating", **limits)
    meta = {"severity": "warn"}
    add(house, "items", "ExpectColumnValuesToNotBeNull", column="brand", mostly=0.5, meta=meta)
    result = house.validate([event(24), event(29)], [item(6), item(7)])
    assert result["warnings"] == [
        "interactions: mean rating: found 5.0",
        "items: expect_column_values_to_not_be_null (brand): 2 of 2 rows (100.0%)",
    ]
    before = house.files()
    kind = "ExpectColumnDistinctValuesToBeInSet"
    add(house, "interactions", kind, column="device", value_set=["tv"], description="only tv")
    with pytest.raises(ValidationFailed, match=r"interactions: only tv: is not met"):
        house.validate([event(30, device="phone")])
    assert house.files() == before
    assert house.validate([event(30, device="tv")])["accepted"] == 1
    names = [one.description for one in opened(house).suites.get("interactions").expectations[:2]]
    assert names == ["mean rating", "only tv"]


def test_a_users_query_quarantines_the_rows_that_it_finds(house: House) -> None:
    house.validate()
    query = "SELECT * FROM {batch} WHERE user_id = 'u1' AND value > 2"
    kind, meta = "UnexpectedRowsExpectation", {"severity": "quarantine"}
    add(house, "interactions", kind, unexpected_rows_query=query, meta=meta, description="no u1")
    query = "SELECT number FROM {batch} WHERE price > (SELECT avg(price) FROM {batch})"
    add(house, "items", kind, unexpected_rows_query=query, meta=meta, description="not dear")
    result = house.validate(
        [event(i) for i in range(20, 40)], [*GOOD_ITEMS, item(7, price=80.0), item(8, price=90)]
    )
    assert (result["accepted"], result["quarantined"], result["quarantined_items"]) == (17, 3, 2)
    assert house.reasons("interactions") == {"e29": "no u1", "e33": "no u1", "e37": "no u1"}
    assert house.reasons("items") == {"i7": "not dear", "i8": "not dear"}
    assert (house.counted("interactions")["no u1"], house.counted("items")["not dear"]) == (3, 2)
    with pytest.raises(ValidationFailed, match=r"3 of 4 rows are bad .* most of all 3 by no u1"):
        house.validate([event(i, user_id="u1", value=5.0) for i in (50, 51, 52)] + [event(54)])


@pytest.mark.parametrize(
    ("suite", "query", "says"),
    [
        ("interactions", None, "only an UnexpectedRowsExpectation"),
        ("interactions", "SELECT user_id FROM {batch} WHERE value > 2", "'mine': .*event_order"),
        ("interactions", "SELECT * FROM {batch} WHERE vale > 2", "'mine': .*vale"),
        (
            "interactions",
            "SELECT * FROM {batch} WHERE regexp_matches(user_id, '^x{2}$')",
            "'mine': the query has a brace .* doubled",
        ),
        ("batch", None, "suite 'batch': 'mine' has the severity 'quarantine'"),
        ("batch", "SELECT * FROM {batch}", "suite 'batch': 'mine' has the severity 'quarantine'"),
    ],
)
def test_what_cannot_quarantine_rows_is_named(
    house: House, suite: str, query: str | None, says: str
) -> None:
    house.validate()
    mine: dict[str, Any] = {"meta": {"severity": "quarantine"}, "description": "mine"}
    if query is None:
        column = "text" if suite == "interactions" else "volume.rows"
        add(house, suite, "ExpectColumnValuesToBeNull", column=column, **mine)
    else:
        add(house, suite, "UnexpectedRowsExpectation", unexpected_rows_query=query, **mine)
    with pytest.raises(ConfigError, match=says):
        house.validate([event(50)])


def test_what_a_user_changes_of_a_rule_stays(house: House) -> None:
    house.validate()
    change(house, "interactions", "value.rating_range", mostly=0.75)
    change(house, "interactions", "event_type.known", severity="critical")
    change(house, "items", "price.not_negative", severity="info")
    change(house, "batch", "volume.rows", min_value=2.0)
    low = [event(30 + i, value=9.0) for i in range(2)]
    for _ in range(2):  # validation rewrites the suites, but keeps the changes
        with pytest.raises(
            ValidationFailed, match=r"value.rating_range: 2 of 4 .* budget is 25.0%"
        ):
            house.validate([*low, event(32), event(33)])
        with pytest.raises(ValidationFailed, match=r"event_type.known: 1 of 3 rows"):
            house.validate([event(32), event(33), event(34, event_type="stare")])
        with pytest.raises(ValidationFailed, match=r"volume.rows: .* found 1, want at least 2"):
            house.validate([event(32)])
    result = house.validate([*low, *(event(i) for i in range(40, 50))], [item(9, price=-1.0)])
    assert (result["accepted"], result["quarantined"], result["items"]) == (10, 2, 6)
    assert result["warnings"][0].startswith("items: price.not_negative: 1 of 1 rows")


def test_limits_that_a_user_changes_of_a_rule_stay_and_part_the_rows(house: House) -> None:
    """Limits that a user changes in a rule's expectation decide which rows are quarantined."""
    house.validate()
    change(house, "interactions", "value.rating_range", max_value=10, strict_max=True)
    change(house, "interactions", "event_type.known", value_set=["rating"])
    change(house, "interactions", "event_timestamp.beyond_2100", max_value="1997-06-24T00:00:00Z")
    change(house, "interactions", "event_id.length", max_value=3)
    change(house, "interactions", "position.not_negative", row_condition='col("value") > 3')
    events = [
        event(30, value=9.0),
        event(31, value=10.0),
        event(32, event_type="click", value=None),
        event(33, event_id="e3333"),
        event(33),
        event(50),
        event(51),
    ]
    config = GENEROUS.model_copy(update={"failure_budget": 1.0})
    result = house.validate(events, config=config)
    assert (result["accepted"], result["quarantined"]) == (2, 5)
    reasons = {
        "e31": "value.rating_range",
        "e32": "event_type.known",
        "e3333": "event_id.length",
        "e50": "event_timestamp.beyond_2100",
        "e51": "event_timestamp.beyond_2100",
    }
    assert house.reasons("interactions") == reasons
    assert {house.counted("interactions")[rule] for rule in reasons.values()} == {1, 2}
    assert [one for one in result["warnings"] if one.startswith("interactions")] == [
        "interactions: position.not_negative: the changed row_condition of this expectation can't"
        " be kept; add an expectation of your own for it"
    ]
    row = house.quarantined("interactions")[0]
    assert "max_value = 10.0" in row["reason"]
    result = house.validate([event(34, value=9.0), event(35, value=11.0)], config=config)
    assert (result["accepted"], result["quarantined"]) == (1, 1)
    assert not [one for one in result["warnings"] if one.startswith("interactions")]
    change(house, "interactions", "value.rating_range", max_value="2020-01-01")
    with pytest.raises(ConfigError, match=r"'value.rating_range': .*2020.*: want a number"):
        house.validate([event(36)])


def test_a_changed_limit_waits_for_a_batch_that_has_the_figure(house: House) -> None:
    house.validate()
    house.validate([event(20)])  # the first batch with an earlier batch to compare with
    change(house, "batch", "volume.ratio", min_value=0.5)
    house.validate([event(20)], [item(9)])  # no new events, so no ratio
    result = house.validate([event(21 + i) for i in range(4)])
    assert of_rule(house, "batch", "volume.ratio").min_value == 0.5
    assert any("volume.ratio: " in one and "at least 0.5" in one for one in result["warnings"])


@pytest.mark.parametrize("rule", ["user_id.required", "event_timestamp.readable"])
def test_what_the_contract_needs_cannot_be_switched_off_there(house: House, rule: str) -> None:
    """The severity of a rule that the contract requires can't be lowered."""
    house.validate()
    change(house, "interactions", rule, severity="info")
    with pytest.raises(ConfigError, match=rf"{rule}: the contract requires it"):
        house.validate([event(50)])


def test_an_expectation_without_a_result_is_no_pass(house: House) -> None:
    house.validate()
    add(house, "interactions", "ExpectColumnValuesToNotBeNull", column="nowhere", severity="info")
    result = house.validate([event(50)])
    assert "expect_column_values_to_not_be_null (nowhere): no result: " in result["warnings"][0]
    add(house, "items", "ExpectColumnMaxToBeBetween", column="no_price", max_value=2)
    with pytest.raises(ValidationFailed, match=r"items: .*\(no_price\): no result: "):
        house.validate([event(51)], [item(9)])


@pytest.mark.parametrize(
    "content", ["{", '{"name": "interactions", "expectations": [{"type": 3}]}']
)
def test_a_suite_that_cannot_be_read_is_named_and_left_alone(house: House, content: str) -> None:
    house.validate()
    path = house.settings.great_expectations / "gx" / "expectations" / "interactions.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=rf"{path}: is no suite that Great Expectations can read"):
        house.validate([event(50)])
    assert path.read_text() == content


def test_some_rows_of_an_old_batch_are_not_measured_as_a_whole(house: House) -> None:
    """Expectations about a whole batch don't apply to rows restored from quarantine."""
    house.validate()
    arguments = {"min_value": 3, "description": "enough rows"}
    add(house, "interactions", "ExpectTableRowCountToBeBetween", **arguments)
    config = GENEROUS.model_copy(update={"failure_budget": 1.0})
    with pytest.raises(ValidationFailed, match="enough rows: found 2"):
        house.validate([event(60), event(61)], config=config)
    staged = house.lake.incoming(house.stage([event(60), event(61, value=9.0)]))
    text = (staged / "batch.json").read_text()
    (staged / "batch.json").write_text(text.replace('"replay_of": null', '"replay_of": "b0"'))
    from flows.validate import validate_batch

    result = validate_batch(house.settings, house.batch_id, ValidateConfig(), clock="replay")
    assert (result["accepted"], result["quarantined"]) == (1, 1)


def test_the_example_of_the_docs_runs(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "validation.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    house.validate()
    opened_at: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened_at.append)
    exec(code.replace("var/great_expectations", str(house.settings.great_expectations)), {})
    assert [Path(url.removeprefix("file://")).name for url in opened_at] == ["index.html"]
    dear = [event(30 + i, event_type="purchase", value=10_001.0 + i) for i in range(3)]
    result = house.validate([*dear, *(event(i, value=5.0) for i in range(40, 44))])
    assert (result["accepted"], result["quarantined"]) == (4, 3)
    assert result["warnings"][0].startswith("interactions: mean rating: found 4289.4")
    assert set(house.reasons("interactions").values()) == {"a purchase is below 10,000"}
