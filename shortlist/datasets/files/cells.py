"""SQL expressions that convert source cells to contract values: texts, ids, numbers and times.

A cell is a value of a source's file or table. The contract is the schema of the table that it is
mapped to. `raw` gives the SQL expression and the type of each source column.
"""

from dataclasses import dataclass

from shortlist.datasets.config import Decimal, FileTable
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.files.readers import Raw
from shortlist.ids import FRACTION
from shortlist.lake.engine import quoted

FACTORS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0.001}
TENTHS = {"ticks": 62_135_596_800_000_000, "filetime": 11_644_473_600_000_000}
"""{unit of 100 nanoseconds: microseconds from its start to 1970}. Ticks (.NET) count from the year
1, FILETIME (Windows) from 1601.
"""
EXCEL = "excel"
EXCEL_EPOCH = 25_569
"""1970-01-01 as a spreadsheet's day number."""
MISSING_WORDS = ("nan", "null", "none", "n/a", "-", "—")
"""Words for a missing value, in lower case."""
NOTHING = ", ".join(quoted(word) for word in MISSING_WORDS)
MAX_MICROSECONDS = 253_402_300_800_000_000
"""Start of the year 10000. Later times count as unreadable; validation judges all earlier ones."""
NUMERIC = ("BIGINT", "INTEGER", "SMALLINT", "TINYINT", "UBIGINT", "UINTEGER", "USMALLINT")
FLOATING = ("DOUBLE", "FLOAT", "DECIMAL", "HUGEINT")
THOUSANDS = r"^[+-]?\d{1,3}(\.\d{3})+$"
WHOLE = r"^[+-]?\d+\.0*$"


@dataclass(frozen=True)
class Column:
    """SQL of one contract column, and of the fault (unreadable value) that its cell may have."""

    sql: str
    rule: str | None = None
    """Validation rule that reports the fault."""
    bad: str | None = None
    """SQL condition: true for a cell with the fault."""


def text_sql(raw: Raw, column: str, where: str) -> str:
    """Return SQL of a cell's text without surrounding white space; NULL if it is empty.

    Raises:
        DatasetError: the column's type is a list, struct, map or blob.
    """
    column_type = raw.types[column]
    if any(mark in column_type for mark in ("[]", "STRUCT", "MAP", "BLOB")):
        raise DatasetError(f"{where}: column '{column}' is {column_type.lower()}, want text")
    return f"nullif(trim({raw.expressions[column]}::VARCHAR), '')"


def joined_sql(raw: Raw, column: str, where: str) -> str:
    """Return SQL of a cell's text; if it is a list of texts, they are joined with spaces."""
    if raw.types[column] == "VARCHAR[]":
        return f"nullif(trim(array_to_string({raw.expressions[column]}, ' ')), '')"
    text = text_sql(raw, column, where)
    if raw.types[column] != "JSON":
        return text
    is_list = f"{text}[1] = '[' AND json_valid({text})"
    joined = f"nullif(array_to_string(from_json({text}, '[\"VARCHAR\"]'), ' '), '')"
    return f"CASE WHEN {is_list} THEN {joined} ELSE {text} END"


def id_sql(raw: Raw, column: str, key: str, where: str, *, exact: bool = False) -> Column:
    """Return the SQL and the possible fault of an id, read as text.

    Some programs write the id 196 as 196.0 if a column has missing values. It is read as 196,
    unless `exact` is True.

    Args:
        key: name of the id column in the contract.
        where: name of the source for error messages.

    Raises:
        DatasetError: the column's type can't hold ids.
    """
    column_type, expression = raw.types[column], raw.expressions[column]
    if column_type.startswith(FLOATING) and not column_type.endswith("]"):
        whole = f"try_cast({expression} AS HUGEINT)"
        bad = f"isfinite({expression}::DOUBLE) AND coalesce({whole} <> {expression}"
        bad += f" OR abs({expression}) > 9007199254740992, true)"
        text = f"CASE WHEN isfinite({expression}::DOUBLE) THEN {whole}::VARCHAR END"
        return Column(text, f"{key}.text", f"coalesce({bad}, false)")
    if column_type not in ("VARCHAR", "JSON", "UUID", *NUMERIC):
        raise DatasetError(
            f"{where}: column '{column}' is {column_type.lower()}, want text or whole numbers"
        )
    # Exact ids (posted events) are not trimmed: blanks around them are a fault of the client.
    text = f"nullif({expression}::VARCHAR, '')" if exact else text_sql(raw, column, where)
    if column_type in NUMERIC:
        return Column(text)
    bad = f"(contains({text}, '.') OR contains(upper({text}), 'E+')) AND "
    bad += f"regexp_matches({text}, '{FRACTION}')"
    if not exact:
        bad = f"NOT regexp_matches({text}, '{WHOLE}') AND {bad}"
    if column_type == "JSON":
        bad = f"({bad}) OR ({text}[1] IN ('[', '{{') AND json_valid({text}))"
    if exact:
        return Column(text, f"{key}.text", f"coalesce({bad}, false)")
    digits = f"CASE WHEN regexp_matches({text}, '{WHOLE}') THEN split_part({text}, '.', 1)"
    return Column(f"{digits} ELSE {text} END", f"{key}.text", f"coalesce({bad}, false)")


def number_sql(
    raw: Raw, column: str, rule: str, table: FileTable, *, column_type: str = "DOUBLE"
) -> Column:
    """Return the SQL and the possible fault of a number.

    NaN and words for a missing value (NOTHING) become NULL.

    Args:
        rule: validation rule that reports a text that isn't a number.
        column_type: SQL type of the number.
    """
    expression = raw.expressions[column]
    if raw.types[column].startswith((*NUMERIC, *FLOATING)):
        if column_type == "DOUBLE":
            return Column(
                f"CASE WHEN isnan({expression}::DOUBLE) THEN NULL ELSE {expression}::DOUBLE END"
            )
        return Column(f"try_cast({expression} AS {column_type})")
    text = f"nullif(trim({expression}::VARCHAR), '')"
    if rule == "price.number":
        text = f"nullif(regexp_replace({text}, '^(from )?[$€£¥]?\\s*(\\d|$)', '\\2'), '')"
        text = f"nullif(regexp_replace({text}, '(\\d)\\s*[$€£¥]$', '\\1'), '')"
    text = f"CASE WHEN lower({text}) IN ({NOTHING}) THEN NULL ELSE {text} END"
    number = f"try_cast({decimal_text(signed_text(text), table.decimal)} AS {column_type})"
    return Column(number, rule, f"({text}) IS NOT NULL AND {number} IS NULL")


def signed_text(text: str) -> str:
    """Return SQL of a number's text with its minus in front; some write 12.50- or (12.50)."""
    return f"regexp_replace({text}, '^(?:([\\d.,]*\\d)\\s*-|\\(([\\d.,]*\\d)\\))$', '-\\1\\2')"


def decimal_text(text: str, decimal: Decimal) -> str:
    """Return SQL of a number's text with a decimal point.

    With a decimal comma, points that separate thousands are removed (1.234 becomes 1234). Other
    texts with a point and without a comma are unchanged.
    """
    if decimal == ".":
        return text
    with_comma = f"contains({text}, ',') OR regexp_matches({text}, '{THOUSANDS}')"
    return (
        f"CASE WHEN {with_comma} THEN replace(replace({text}, '.', ''), ',', '.') ELSE {text} END"
    )


def time_sql(
    raw: Raw,
    column: str,
    table: FileTable,
    where: str,
    *,
    rule: str = "event_timestamp.readable",
) -> Column:
    """Return the SQL and the possible fault of a time, given in the table's `timestamp_unit`.

    Columns of a date or time type need no unit.

    Args:
        rule: validation rule that reports an unreadable time.
    """
    expression, column_type, unit = raw.expressions[column], raw.types[column], table.timestamp_unit
    if column_type == "TIMESTAMP WITH TIME ZONE":
        return Column(expression)
    if column_type.startswith("TIMESTAMP") or column_type == "DATE":
        return Column(f"timezone({quoted(table.time_zone)}, {expression}::TIMESTAMP)")
    plain = expression
    if column_type in ("VARCHAR", "JSON"):
        plain = decimal_text(expression, table.decimal)
    if unit in FACTORS or unit in TENTHS:
        if unit in TENTHS:  # a double doesn't have enough digits; 0 is a missing time, as in 1970
            tenths = f"try_cast({expression} AS HUGEINT)"
            number = f"(CASE {tenths} WHEN 0 THEN 0 ELSE {tenths} // 10 - {TENTHS[unit]} END)"
            number += "::DOUBLE"
        elif unit == "ns":
            whole = f"try_cast({expression} AS HUGEINT)"  # `//` rounds -1 to 0, another fault
            number = f"(CASE WHEN {whole} < 0 THEN {whole} - 999 ELSE {whole} END // 1000)::DOUBLE"
        else:
            number = f"try_cast({plain} AS DOUBLE) * {FACTORS[unit]}"
        inside = f"abs({number}) < {MAX_MICROSECONDS}"
        sql = f"CASE WHEN {inside} THEN make_timestamptz(round({number})::BIGINT) END"
        return Column(sql, rule, f"{expression} IS NOT NULL AND NOT coalesce({inside}, false)")
    text = text_sql(raw, column, where)
    zone = quoted(table.time_zone)
    if unit == EXCEL:  # rounded to milliseconds: a double has no more digits for day numbers
        number = f"round((try_cast({plain} AS DOUBLE) - {EXCEL_EPOCH}) * 86400000) * 1000"
        inside = f"abs({number}) < {MAX_MICROSECONDS}"
        moment = f"timezone({zone}, make_timestamp(({number})::BIGINT))"
        sql = f"CASE WHEN {inside} THEN {moment} END"
        return Column(sql, rule, f"{text} IS NOT NULL AND NOT coalesce({inside}, false)")
    if unit == "iso":
        # A time zone in the text takes precedence over the table's. Words after the time are read
        # as names of time zones, since a cast to TIMESTAMP ignores them, also the one in "1:05 PM".
        zone_or_word = "([zZ]|[+-]\\d\\d:?(\\d\\d)?|\\d\\s+[A-Za-z].*)$"
        zoned = f"regexp_matches({text}, '{zone_or_word}') AND length({text}) > 10"
        sql = (
            f"CASE WHEN {zoned} THEN try_cast({text} AS TIMESTAMPTZ)"
            f" ELSE timezone({zone}, try_cast({text} AS TIMESTAMP)) END"
        )
    elif "%z" in unit:
        sql = f"try_strptime({text}, {quoted(unit)})"
    else:
        sql = f"timezone({zone}, try_strptime({text}, {quoted(unit)})::TIMESTAMP)"
    return Column(sql, rule, f"{text} IS NOT NULL AND ({sql}) IS NULL")


def date_sql(raw: Raw, column: str, where: str, *, from_title: bool) -> Column:
    """Return the SQL and the possible fault of a date, given as a time, a date or a year.

    Args:
        from_title: read the year at the end of a title such as 'Toy Story (1995)'.
    """
    column_type, expression = raw.types[column], raw.expressions[column]
    if column_type == "TIMESTAMP WITH TIME ZONE":
        return Column(expression)
    if column_type.startswith("TIMESTAMP") or column_type == "DATE":
        return Column(f"timezone('UTC', {expression}::TIMESTAMP)")
    text = text_sql(raw, column, where)
    if from_title:
        text = f"nullif(regexp_extract({text}, '\\((\\d{{4}})\\)\\s*$', 1), '')"
    year = f"CASE WHEN regexp_matches({text}, '^\\d{{4}}$') THEN {text} || '-01-01' ELSE {text} END"
    sql = f"try_cast({year} AS TIMESTAMPTZ)"
    rule = "created_at.readable" if where.endswith("users") else "published_at.readable"
    return Column(sql, rule, f"({text}) IS NOT NULL AND {sql} IS NULL")


def attributes_sql(raw: Raw, names: tuple[str, ...], where: str) -> str:
    """Return SQL of a map of a row's attributes, without missing values.

    Args:
        names: columns of the source that become attributes. Without any, the SQL is NULL.
    """
    if not names:
        return "NULL::MAP(VARCHAR, VARCHAR)"
    entries = ", ".join(
        f"{{'k': {quoted(attribute)}, 'v': {text_sql(raw, attribute, where)}}}"
        for attribute in names
    )
    return f"map_from_entries(list_filter([{entries}], lambda x: x.v IS NOT NULL))"
