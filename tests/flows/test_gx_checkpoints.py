"""Checkpoints that a user has edited, and user-defined expectations with equal names."""

from typing import Any

import pytest

from flows.validate import ValidationFailed
from shortlist.config import ConfigError
from tests.flows.conftest import House, add, event, opened


def add_definition(house: House, name: str, **arguments: Any) -> None:
    """Add a validation definition with one expectation to the checkpoint of interactions."""
    import great_expectations as gx
    from great_expectations import expectations

    context = opened(house)
    suite = context.suites.add(gx.ExpectationSuite(name))
    suite.add_expectation(expectations.ExpectColumnMaxToBeBetween(column="value", **arguments))
    asset = context.data_sources.get("shortlist").get_asset("interactions")
    rows = asset.get_batch_definition("rows")
    made = gx.ValidationDefinition(name=name, data=rows, suite=suite)
    checkpoint = context.checkpoints.get("interactions")
    checkpoint.validation_definitions.append(context.validation_definitions.add(made))
    checkpoint.save()


def test_definitions_that_a_user_adds_to_a_checkpoint_warn_or_stop(house: House) -> None:
    house.validate()
    add_definition(house, "mine", max_value=2, severity="warning", description="low values")
    result = house.validate([event(30, value=9.0), event(34)])
    assert (result["accepted"], result["quarantined"]) == (1, 1)
    assert result["warnings"] == ["mine: low values: found 9.0"]
    add_definition(house, "strict", max_value=2, description="very low values")
    with pytest.raises(ValidationFailed, match=r"unchanged: strict: very low values: found 5.0"):
        house.validate([event(39)])
    add_definition(house, "unset", max_value={"$PARAMETER": "limit"})
    with pytest.raises(ValidationFailed, match=r"unset: checkpoint 'interactions': no result: "):
        house.validate([event(40)])
    (house.settings.great_expectations / "gx" / "expectations" / "strict.json").unlink()
    with pytest.raises(ConfigError, match=r"interactions.json: Great Expectations cannot read it"):
        house.validate([event(41)])


def test_the_checkpoint_of_a_user_keeps_its_result_format_and_rows_are_counted(
    house: House,
) -> None:
    house.validate()
    context = opened(house)
    checkpoint = context.checkpoints.get("interactions")
    checkpoint.result_format = "BOOLEAN_ONLY"
    checkpoint.save()
    result = house.validate([event(30, value=9.0), event(34)])
    assert (result["accepted"], result["quarantined"], result["warnings"]) == (1, 1, [])
    assert house.counted("interactions")["value.rating_range"] == 1
    assert opened(house).checkpoints.get("interactions").result_format == "BOOLEAN_ONLY"


def test_two_queries_of_one_description_are_counted_apart(house: House) -> None:
    house.validate()
    for limit in (2, 4):
        add(
            house,
            "interactions",
            "UnexpectedRowsExpectation",
            unexpected_rows_query=f"SELECT * FROM {{batch}} WHERE value > {limit}",
            description="too much",
            meta={"severity": "quarantine"},
        )
    twice = "SELECT * FROM {batch} WHERE value = 1 UNION ALL SELECT * FROM {batch} WHERE value = 1"
    add(
        house,
        "interactions",
        "UnexpectedRowsExpectation",
        unexpected_rows_query=twice,
        description="value.finite",
        meta={"severity": "quarantine"},
    )
    result = house.validate([event(i) for i in (20, 21, 21 + 5, 31, 22, 24)])
    assert (result["accepted"], result["quarantined"]) == (3, 3)
    assert house.reasons("interactions") == {
        "e20": "value.finite (2)",
        "e22": "too much",
        "e24": "too much; too much (2)",
    }
