"""Checks of tables against their contracts, the sort key, and event codes."""

import pyarrow as pa
import pytest

from shortlist.contracts import (
    EVENT_CODE,
    EVENT_TYPES,
    INTERACTIONS,
    ITEMS,
    SERVING_LOG,
    TIMESTAMP,
    USERS,
    ContractError,
    check,
    event_codes,
    sort_by_time,
)


def users(**columns) -> pa.Table:
    return pa.table({"user_id": pa.array(["a", "b"]), **columns})


def test_missing_nullable_columns_become_null_in_the_order_of_the_contract():
    table = check(users(), USERS, where="users.parquet")
    assert table.schema.names == USERS.names
    assert table.column("created_at").null_count == 2


def test_floating_ids_are_refused_with_the_likely_reason():
    wrong = pa.table({"user_id": pa.array([196.0, None])})
    with pytest.raises(ContractError) as error:
        check(wrong, USERS, where="users.parquet")
    assert str(error.value) == (
        "users.parquet: column 'user_id' is double, want string (missing ids became NaN?)"
    )


def test_a_missing_required_column_names_what_is_there():
    with pytest.raises(ContractError, match="column 'user_id' is missing; the table has name"):
        check(pa.table({"name": ["a"]}), USERS, where="u")


def test_nulls_in_a_required_column_are_counted():
    with pytest.raises(ContractError, match="'user_id' has 1 nulls in 2 rows, want none"):
        check(pa.table({"user_id": pa.array(["a", None])}), USERS, where="u")


def test_unknown_columns_are_refused_but_vectors_of_items_are_kept():
    with pytest.raises(ContractError, match="unknown columns colour"):
        check(users(colour=["red", "blue"]), USERS, where="u")
    items = pa.table(
        {
            "item_id": ["i"],
            "categories": pa.array([["x"]], pa.list_(pa.string())),
            "available": [True],
            "vector_image": pa.array([[0.5, 1.0]], pa.list_(pa.float32())),
        }
    )
    kept = check(items, ITEMS, where="i")
    assert kept.column("vector_image").to_pylist() == [[0.5, 1.0]]


def test_other_time_units_are_refused():
    stamps = pa.array([1, 2], pa.timestamp("ns", tz="UTC"))
    with pytest.raises(ContractError, match=r"created_at.*\(UTC, microseconds\)"):
        check(users(created_at=stamps), USERS, where="u")


def test_the_sort_key_is_time_and_then_source_order():
    table = pa.table(
        {
            "event_timestamp": pa.array([5, 1, 5], pa.int64()).cast(TIMESTAMP),
            "event_order": [9, 2, 3],
        }
    )
    assert sort_by_time(table).column("event_order").to_pylist() == [2, 3, 9]


@pytest.mark.parametrize("schema", [INTERACTIONS, ITEMS, USERS, SERVING_LOG])
def test_every_time_is_utc_in_microseconds_and_every_id_is_text(schema):
    for field in schema:
        if pa.types.is_timestamp(field.type):
            assert field.type == TIMESTAMP
        if field.name.endswith("_id"):
            assert field.type == pa.string()


def test_every_event_type_has_a_number_of_its_own_and_the_unknown_is_0():
    types = pa.chunked_array([["dislike", None, "impression"], ["teleport", "survey"]])
    assert event_codes(types).tolist() == [10, 0, 1, 0, 14]
    assert event_codes(pa.chunked_array([list(EVENT_TYPES)])).tolist() == list(EVENT_CODE.values())
    assert event_codes(pa.chunked_array([], pa.string())).tolist() == []
