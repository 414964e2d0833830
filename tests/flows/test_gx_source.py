"""Expectation types of Great Expectations that the DuckDB data source supports."""

from typing import Any

import duckdb
import pytest

from shortlist.config import ConfigError
from tests.flows.conftest import House, add, event

ROWS = """
    SELECT * FROM (VALUES
        ('xa1', 1.0::DOUBLE, 1::BIGINT, TIMESTAMPTZ '2024-01-01', true),
        ('b', 2.0, 2, NULL, false),
        (NULL, 3.0, 3, NULL, NULL)
    ) rows(name, price, number, moment, flag)
"""


@pytest.fixture(scope="module")
def batch() -> Any:
    import great_expectations as gx

    import flows.validation.source  # noqa: F401

    connection = duckdb.connect()
    connection.execute(f"CREATE TABLE things AS {ROWS}")
    context: Any = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_duckdb(name="d", connection_string="duckdb:///:memory:")
    source.borrow(connection)
    asset = source.add_table_asset("things", table_name="things")
    return asset.add_batch_definition_whole_table("rows").get_batch()


@pytest.mark.parametrize(
    ("kind", "arguments", "unexpected"),
    [
        ("ExpectColumnValuesToMatchRegex", {"regex": "a[0-9]"}, 1),
        ("ExpectColumnValuesToNotMatchRegex", {"regex": "[ab]"}, 2),
        ("ExpectColumnValuesToMatchRegexList", {"regex_list": ["^x", "^b$"]}, 0),
        ("ExpectColumnValuesToMatchLikePattern", {"like_pattern": "x%"}, 1),
        ("ExpectColumnValuesToNotMatchLikePattern", {"like_pattern": "%z%"}, 0),
    ],
)
def test_patterns_are_judged(batch: Any, kind: str, arguments: dict, unexpected: int) -> None:
    from great_expectations import expectations

    result = batch.validate(getattr(expectations, kind)(column="name", **arguments))
    assert result.result["unexpected_count"] == unexpected
    assert result.success == (unexpected == 0)


@pytest.mark.parametrize(
    ("column", "is_type", "is_not"),
    [
        ("name", "VARCHAR", "BIGINT"),
        ("price", "DOUBLE", "VARCHAR"),
        ("number", "BIGINT", "DOUBLE"),
        ("moment", "TIMESTAMP", "DATE"),
        ("flag", "BOOLEAN", "INTEGER"),
    ],
)
def test_types_have_the_names_of_duckdb(batch: Any, column: str, is_type: str, is_not: str) -> None:
    from great_expectations import expectations as gxe

    def success(one: Any) -> bool:
        return batch.validate(one).success

    assert success(gxe.ExpectColumnValuesToBeOfType(column=column, type_=is_type))
    assert not success(gxe.ExpectColumnValuesToBeOfType(column=column, type_=is_not))
    assert success(gxe.ExpectColumnValuesToBeInTypeList(column=column, type_list=[is_type, is_not]))


def test_results_that_cannot_be_stored_are_one_sentence(house: House) -> None:
    house.validate()
    ranges = {"quantiles": [0.5], "value_ranges": [[1, 5]]}
    kind = "ExpectColumnQuantileValuesToBeBetween"
    add(house, "interactions", kind, column="value", quantile_ranges=ranges)
    with pytest.raises(ConfigError, match=r"suite 'interactions': no results: .*JSON"):
        house.validate([event(30)])
