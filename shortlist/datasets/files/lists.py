"""SQL that reads lists of category names: texts in any of several notations, and typed columns.

Typed columns of Parquet files may be lists, lists in lists, structs and maps.
"""

from typing import Any

import duckdb

from shortlist.datasets.config import ALL_KEYS, ItemFile
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.files.list_texts import text_list_sql, truthy_sql
from shortlist.datasets.files.readers import Raw
from shortlist.lake.engine import name, quoted

NO_CATEGORY = "'', '(no genres listed)', 'nan', 'null', 'none', 'n/a', '\\n'"
"""Words for a missing category, in lower case."""
NESTED = ("list", "array", "struct", "map")
"""DuckDB's names of types that hold other values."""
FLAGS = (
    *("boolean", "tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger"),
    *("ubigint", "hugeint", "float", "double", "decimal"),
)
"""DuckDB's names of types that can say whether, or how much, an item belongs to a category."""


def categories_sql(raw: Raw, column: str, table: ItemFile, where: str) -> tuple[str, str]:
    """Return SQL of a cell's list of category names, and of whether the cell can't be read.

    If the list has objects, a name is an object's value of `category_key`. The names of a map of
    flags or weights, such as {"Drama": true, "War": 0}, are its keys whose value isn't false, 0 or
    missing. White space around names is removed. Repeated names are removed too, unless the
    categories are a path from general to specific.

    Raises:
        DatasetError: the column's type can't hold categories, or its objects have no such key.
    """
    expression, bad = raw.expressions[column], "false"
    sql_type = value_type(raw, column)
    if sql_type.id in NESTED:
        parts = _typed(expression, sql_type, table.category_key, f"{where}: '{column}'")
    elif sql_type.id == "blob":
        raise DatasetError(f"{where}: column '{column}' is blob, want text or a list")
    else:
        read = text_list_sql(f"trim(coalesce({expression}::VARCHAR, ''))", table)
        parts, bad = f"coalesce({read}, [])", f"({read}) IS NULL"
    trimmed = f"list_transform({parts}, lambda x: trim(x))"
    kept = f"list_filter({trimmed}, lambda x: lower(x) NOT IN ({NO_CATEGORY}))"
    if table.category_separator == ">":
        return kept, bad
    # A lambda parameter hides a column of the same name, so no column may stand in its body.
    first = "list_filter(x, lambda y, i: list_position(x, y) = i)"
    return f"list_transform([{kept}], lambda x: {first})[1]", bad


def value_type(raw: Raw, column: str) -> Any:
    """Return the type of a column as an object of DuckDB, with `id` and `children`."""
    return duckdb.sqltype(raw.types[column])


def _typed(value: str, sql_type: Any, key: str, where: str, *, depth: int = 0) -> str:
    """Return SQL of the list of category names in a typed value.

    Args:
        value: SQL of the value.
        sql_type: its type, as DuckDB describes it.
        key: `category_key`.
        where: file and column for error messages.
        depth: number of lists around the value; it makes names of lambda parameters unique.
    """
    if sql_type.id in ("list", "array"):
        inner = _typed(f"x{depth}", sql_type.children[0][1], key, where, depth=depth + 1)
        return (
            f"CASE WHEN ({value}) IS NULL THEN []::VARCHAR[]"
            f" ELSE flatten(list_transform({value}, lambda x{depth}: {inner})) END"
        )
    if sql_type.id == "struct":
        return _struct(value, dict(sql_type.children), key, where, depth=depth)
    if sql_type.id == "map":
        (_, key_type), (_, value_type) = sql_type.children
        if key == ALL_KEYS or value_type.id in FLAGS:
            chosen = f"lambda y{depth}: {truthy_sql(f'(y{depth}).value::VARCHAR')}"
            entries = f"list_filter(map_entries({value}), {chosen})"
            names = f"list_transform({entries}, lambda y{depth}: (y{depth}).key::VARCHAR)"
            return f"coalesce({names}, []::VARCHAR[])"
        if key_type.id != "varchar" or value_type.id in NESTED:
            raise DatasetError(f"{where} is {sql_type}: want names, or a map of names to weights")
        return f"coalesce(element_at({value}, {quoted(key)})::VARCHAR[], []::VARCHAR[])"
    return f"[({value})::VARCHAR]"


def _struct(value: str, fields: dict[str, Any], key: str, where: str, *, depth: int) -> str:
    listed = ", ".join(fields)
    if key in fields:
        inside = f"({value}).{name(key)}"
        return _typed(inside, fields[key], key, f"{where}, its '{key}'", depth=depth)
    if key == ALL_KEYS and all(field.id in FLAGS for field in fields.values()):
        flags = ", ".join(
            f"CASE WHEN {truthy_sql(f'(({value}).{name(field)})::VARCHAR')} THEN {quoted(field)}"
            " END"
            for field in fields
        )
        return f"list_filter([{flags}], lambda y{depth}: y{depth} IS NOT NULL)"
    raise DatasetError(f"{where} has objects without '{key}'; set category_key to one of {listed}")
