"""From a file's columns to the contract's, as SQL: one pass, nothing is refused, faults are named.

A cell that cannot be what the contract wants becomes NULL and its rule is noted in `faults`;
validation decides what happens to the row. The row as it was rides along in `original`.
"""

from dataclasses import dataclass

from shortlist import columns as c
from shortlist.contracts import INTERACTIONS
from shortlist.datasets.config import (
    OPERATION,
    Decimal,
    FileTable,
    InteractionFile,
    ItemFile,
    UserFile,
)
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.identity import derived_id
from shortlist.datasets.lists import categories_sql
from shortlist.datasets.readers import Raw
from shortlist.ids import FRACTION
from shortlist.lake.engine import name, quoted

FACTORS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0.001}
EXCEL = "excel"
EXCEL_EPOCH = 25_569
"""1970-01-01 in the days of a spreadsheet."""
NOTHING = "'nan', 'null', 'none', 'n/a', '-', '—'"
MAX_MICROSECONDS = 253_402_300_800_000_000
"""The year 10000: beyond it there is no time. Validation judges those before."""
NUMERIC = ("BIGINT", "INTEGER", "SMALLINT", "TINYINT", "UBIGINT", "UINTEGER", "USMALLINT")
FLOATING = ("DOUBLE", "FLOAT", "DECIMAL", "HUGEINT")
THOUSANDS = r"^[+-]?\d{1,3}(\.\d{3})+$"
WHOLE = r"^[+-]?\d+\.0*$"
TEXTS = (c.TEXT, c.QUERY, c.SESSION_ID, c.REQUEST_ID, c.SURFACE, c.DEVICE)


@dataclass(frozen=True)
class Column:
    """SQL of one contract column, and of the fault that its cell may have."""

    sql: str
    rule: str | None = None
    bad: str | None = None


def events_sql(raw: Raw, table: InteractionFile, *, source: str, where: str, now: int) -> str:
    """SELECT of the staged interactions, in the order of the file (without `event_order`)."""
    given, columns = table.columns, {}
    for key in (c.USER_ID, c.ITEM_ID):
        columns[key] = _id(raw, given[key], key, where, exact=table.exact_ids)
    if table.no_user:
        user = columns[c.USER_ID]
        words = ", ".join(quoted(one) for one in table.no_user)
        alone = "NULL"
        if c.SESSION_ID in given:
            alone = f"'session:' || {_text(raw, given[c.SESSION_ID], where)}"
        nobody = f"coalesce({user.sql}, '') IN ({words})"
        columns[c.USER_ID] = Column(
            f"CASE WHEN {nobody} THEN {alone} ELSE {user.sql} END", user.rule, user.bad
        )
    kind = f"'{table.event_type}'" if table.event_type else "NULL"
    if c.EVENT_TYPE in given:
        word = _text(raw, given[c.EVENT_TYPE], where)
        cases = " ".join(f"WHEN {quoted(a)} THEN {quoted(b)}" for a, b in table.event_types.items())
        mapped = f"CASE {word} {cases} ELSE {word} END" if cases else word
        kind = f"coalesce({mapped}, {kind})"
    columns[c.EVENT_TYPE] = Column(kind)
    columns[c.EVENT_TIMESTAMP] = time_sql(raw, given[c.EVENT_TIMESTAMP], table, where)
    if c.INGESTED_AT in given:
        received = time_sql(raw, given[c.INGESTED_AT], table, where).sql
        columns[c.INGESTED_AT] = Column(f"coalesce({received}, make_timestamptz({now}))")
    else:
        columns[c.INGESTED_AT] = Column(f"make_timestamptz({now}::BIGINT)")
    columns[c.VALUE] = (
        _number(raw, given[c.VALUE], "value.number", table)
        if c.VALUE in given
        else Column("NULL::DOUBLE")
    )
    if table.unrated is not None:
        value, kind = columns[c.VALUE], columns[c.EVENT_TYPE].sql
        without = f"({kind}) = 'rating' AND ({value.sql}) = {table.unrated}"
        columns[c.EVENT_TYPE] = Column(
            f"CASE WHEN {without} THEN {quoted(table.unrated_type)} ELSE {kind} END"
        )
        rated = f"CASE WHEN {without} THEN NULL ELSE {value.sql} END"
        columns[c.VALUE] = Column(rated, value.rule, value.bad)
    for key in TEXTS:
        columns[key] = Column(_text(raw, given[key], where) if key in given else "NULL::VARCHAR")
    columns[c.POSITION] = (
        _number(raw, given[c.POSITION], "position.number", table, kind="INTEGER")
        if c.POSITION in given
        else Column("NULL::INTEGER")
    )
    columns[c.SOURCE] = Column(quoted(source))
    operation = "'insert'"
    if OPERATION in given:
        operation = f"coalesce(lower({_text(raw, given[OPERATION], where)}), 'insert')"
    columns[OPERATION] = Column(operation)
    id_sql = derived_id()
    if c.EVENT_ID in given:
        columns["given_id"] = Column(_text(raw, given[c.EVENT_ID], where))
        id_sql = f"coalesce(given_id, {id_sql})"
    names = [one for one in INTERACTIONS.names if one not in (c.EVENT_ID, c.EVENT_ORDER)]
    listed = ", ".join([f"{id_sql} AS {c.EVENT_ID}", *names, OPERATION, "faults", "original"])
    return f"SELECT {listed} FROM ({_mapped(raw, columns)})"


def items_sql(raw: Raw, table: ItemFile, *, where: str) -> str:
    given, columns = table.columns, {}
    columns[c.ITEM_ID] = _id(raw, given[c.ITEM_ID], c.ITEM_ID, where)
    for key in (c.TITLE, c.DESCRIPTION):
        text = _joined(raw, given[key], where) if key in given else "NULL::VARCHAR"
        columns[key] = Column(text)
    columns[c.CATEGORIES] = Column("[]::VARCHAR[]")
    if c.CATEGORIES in given:
        listed, bad = categories_sql(raw, given[c.CATEGORIES], table, where)
        columns[c.CATEGORIES] = Column(listed, "categories.readable", bad)
    for key in (c.BRAND, c.IMAGE):
        columns[key] = Column(_text(raw, given[key], where) if key in given else "NULL::VARCHAR")
    columns[c.PRICE] = (
        _number(raw, given[c.PRICE], "price.number", table)
        if c.PRICE in given
        else Column("NULL::DOUBLE")
    )
    columns[c.PUBLISHED_AT] = Column("NULL::TIMESTAMPTZ")
    if c.PUBLISHED_AT in given:
        from_title = given[c.PUBLISHED_AT] == given.get(c.TITLE)
        columns[c.PUBLISHED_AT] = _date(raw, given[c.PUBLISHED_AT], where, from_title=from_title)
    columns[c.AVAILABLE] = Column("true")
    if c.AVAILABLE in given:
        text = _text(raw, given[c.AVAILABLE], where)
        flag = f"try_cast(coalesce({text}, 'true') AS BOOLEAN)"
        columns[c.AVAILABLE] = Column(flag, "available.flag", f"{flag} IS NULL")
    if OPERATION in given:
        text = f"coalesce(lower({_text(raw, given[OPERATION], where)}), 'insert')"
        columns[OPERATION] = Column(text)
        # An item that events speak of is never taken out: it is not recommended any more.
        still = f"({columns[c.AVAILABLE].sql}) AND {text} <> 'delete'"
        columns[c.AVAILABLE] = Column(still, columns[c.AVAILABLE].rule, columns[c.AVAILABLE].bad)
    else:
        columns[OPERATION] = Column("'insert'")
    columns[c.ATTRIBUTES] = Column(_attributes(raw, table.attributes, where))
    columns[c.UPDATED_AT] = Column("NULL::TIMESTAMPTZ")
    if c.UPDATED_AT in given:
        columns[c.UPDATED_AT] = time_sql(
            raw, given[c.UPDATED_AT], table, where, rule="updated_at.readable"
        )
    for key in given:
        if key.startswith("vector_"):
            vector = f"try_cast({raw.expressions[given[key]]} AS FLOAT[])"
            bad = f"{vector} IS NULL AND {raw.expressions[given[key]]} IS NOT NULL"
            columns[key] = Column(vector, f"{key}.numbers", bad)
    return _mapped(raw, columns)


def users_sql(raw: Raw, table: UserFile, *, where: str) -> str:
    given, columns = table.columns, {}
    columns[c.USER_ID] = _id(raw, given[c.USER_ID], c.USER_ID, where)
    columns[c.ATTRIBUTES] = Column(_attributes(raw, table.attributes, where))
    columns[c.CREATED_AT] = Column("NULL::TIMESTAMPTZ")
    if c.CREATED_AT in given:
        columns[c.CREATED_AT] = _date(raw, given[c.CREATED_AT], where, from_title=False)
    columns[OPERATION] = Column("'insert'")
    return _mapped(raw, columns)


def _mapped(raw: Raw, columns: dict[str, Column]) -> str:
    faults = [f"CASE WHEN {one.bad} THEN '{one.rule}' END" for one in columns.values() if one.bad]
    found = f"list_filter([{', '.join(faults)}], lambda x: x IS NOT NULL)" if faults else "[]"
    any_bad = " OR ".join(f"({one.bad})" for one in columns.values() if one.bad) or "false"
    listed = ", ".join(f"{one.sql} AS {name(key)}" for key, one in columns.items())
    return (
        f"SELECT {listed}, CASE WHEN {raw.broken} THEN ['line.json']"
        f" WHEN {any_bad} THEN {found} END::VARCHAR[] AS faults, {raw.original} AS original"
        f" FROM {raw.relation}"
    )


def _text(raw: Raw, column: str, where: str) -> str:
    """Text without the white space around it; empty is missing."""
    kind = raw.types[column]
    if any(mark in kind for mark in ("[]", "STRUCT", "MAP", "BLOB")):
        raise DatasetError(f"{where}: column '{column}' is {kind.lower()}, want text")
    return f"nullif(trim({raw.expressions[column]}::VARCHAR), '')"


def _joined(raw: Raw, column: str, where: str) -> str:
    """Text, or the texts of a JSON list one after the other."""
    text = _text(raw, column, where)
    if raw.types[column] != "JSON":
        return text
    is_list = f"{text}[1] = '[' AND json_valid({text})"
    joined = f"nullif(array_to_string(from_json({text}, '[\"VARCHAR\"]'), ' '), '')"
    return f"CASE WHEN {is_list} THEN {joined} ELSE {text} END"


def _id(raw: Raw, column: str, key: str, where: str, *, exact: bool = False) -> Column:
    """Ids as text. Some programs write 196 as 196.0 where a column has missing values: that is 196
    unless ids are `exact`.
    """
    kind, expression = raw.types[column], raw.expressions[column]
    if kind.startswith(FLOATING) and not kind.endswith("]"):
        whole = f"try_cast({expression} AS HUGEINT)"
        bad = f"isfinite({expression}::DOUBLE) AND coalesce({whole} <> {expression}"
        bad += f" OR abs({expression}) > 9007199254740992, true)"
        text = f"CASE WHEN isfinite({expression}::DOUBLE) THEN {whole}::VARCHAR END"
        return Column(text, f"{key}.text", f"coalesce({bad}, false)")
    if kind not in ("VARCHAR", "JSON", "UUID", *NUMERIC):
        raise DatasetError(
            f"{where}: column '{column}' is {kind.lower()}, want text or whole numbers"
        )
    # The inbox has ids as clients gave them: a blank around one is a fault, not a habit of a file.
    text = f"nullif({expression}::VARCHAR, '')" if exact else _text(raw, column, where)
    if kind in NUMERIC:
        return Column(text)
    bad = f"(contains({text}, '.') OR contains(upper({text}), 'E+')) AND "
    bad += f"regexp_matches({text}, '{FRACTION}')"
    if not exact:
        bad = f"NOT regexp_matches({text}, '{WHOLE}') AND {bad}"
    if kind == "JSON":
        bad = f"({bad}) OR ({text}[1] IN ('[', '{{') AND json_valid({text}))"
    if exact:
        return Column(text, f"{key}.text", f"coalesce({bad}, false)")
    digits = f"CASE WHEN regexp_matches({text}, '{WHOLE}') THEN split_part({text}, '.', 1)"
    return Column(f"{digits} ELSE {text} END", f"{key}.text", f"coalesce({bad}, false)")


def _number(raw: Raw, column: str, rule: str, table: FileTable, *, kind: str = "DOUBLE") -> Column:
    """A number; NaN and words for nothing are missing."""
    expression = raw.expressions[column]
    if raw.types[column].startswith((*NUMERIC, *FLOATING)):
        if kind == "DOUBLE":
            return Column(
                f"CASE WHEN isnan({expression}::DOUBLE) THEN NULL ELSE {expression}::DOUBLE END"
            )
        return Column(f"try_cast({expression} AS {kind})")
    text = f"nullif(trim({expression}::VARCHAR), '')"
    if rule == "price.number":
        text = f"nullif(regexp_replace({text}, '^(from )?[$€£¥]?\\s*(\\d|$)', '\\2'), '')"
        text = f"nullif(regexp_replace({text}, '(\\d)\\s*[$€£¥]$', '\\1'), '')"
    text = f"CASE WHEN lower({text}) IN ({NOTHING}) THEN NULL ELSE {text} END"
    number = f"try_cast({decimal_text(text, table.decimal)} AS {kind})"
    return Column(number, rule, f"({text}) IS NOT NULL AND {number} IS NULL")


def decimal_text(text: str, decimal: Decimal) -> str:
    """SQL of a number's text with a decimal point. With a decimal comma 1.234 is 1234; other texts
    with a point and no comma stay as they are.
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
    """A time in the table's unit; typed columns of Parquet and databases are taken as they are."""
    expression, kind, unit = raw.expressions[column], raw.types[column], table.timestamp_unit
    if kind == "TIMESTAMP WITH TIME ZONE":
        return Column(expression)
    if kind.startswith("TIMESTAMP") or kind == "DATE":
        return Column(f"timezone({quoted(table.time_zone)}, {expression}::TIMESTAMP)")
    plain = expression
    if kind in ("VARCHAR", "JSON"):
        plain = decimal_text(expression, table.decimal)
    if unit in FACTORS:
        number = f"try_cast({plain} AS DOUBLE) * {FACTORS[unit]}"
        if unit == "ns":  # more digits than a double has
            number = f"(try_cast({expression} AS HUGEINT) // 1000)::DOUBLE"
        inside = f"abs({number}) < {MAX_MICROSECONDS}"
        sql = f"CASE WHEN {inside} THEN make_timestamptz(round({number})::BIGINT) END"
        return Column(sql, rule, f"{expression} IS NOT NULL AND NOT coalesce({inside}, false)")
    text = _text(raw, column, where)
    zone = quoted(table.time_zone)
    if unit == EXCEL:  # to the millisecond: a double has no more of such a day
        number = f"round((try_cast({plain} AS DOUBLE) - {EXCEL_EPOCH}) * 86400000) * 1000"
        inside = f"abs({number}) < {MAX_MICROSECONDS}"
        moment = f"timezone({zone}, make_timestamp(({number})::BIGINT))"
        sql = f"CASE WHEN {inside} THEN {moment} END"
        return Column(sql, rule, f"{text} IS NOT NULL AND NOT coalesce({inside}, false)")
    if unit == "iso":
        # With a zone in the text that one counts; without, the table's.
        zoned = f"regexp_matches({text}, '([zZ]|[+-]\\d\\d:?(\\d\\d)?)$') AND length({text}) > 10"
        sql = (
            f"CASE WHEN {zoned} THEN try_cast({text} AS TIMESTAMPTZ)"
            f" ELSE timezone({zone}, try_cast({text} AS TIMESTAMP)) END"
        )
    elif "%z" in unit:
        sql = f"try_strptime({text}, {quoted(unit)})"
    else:
        sql = f"timezone({zone}, try_strptime({text}, {quoted(unit)})::TIMESTAMP)"
    return Column(sql, rule, f"{text} IS NOT NULL AND ({sql}) IS NULL")


def _date(raw: Raw, column: str, where: str, *, from_title: bool) -> Column:
    """A time, or a year alone; of a title like 'Toy Story (1995)' the year at its end."""
    kind, expression = raw.types[column], raw.expressions[column]
    if kind == "TIMESTAMP WITH TIME ZONE":
        return Column(expression)
    if kind.startswith("TIMESTAMP") or kind == "DATE":
        return Column(f"timezone('UTC', {expression}::TIMESTAMP)")
    text = _text(raw, column, where)
    if from_title:
        text = f"nullif(regexp_extract({text}, '\\((\\d{{4}})\\)\\s*$', 1), '')"
    year = f"CASE WHEN regexp_matches({text}, '^\\d{{4}}$') THEN {text} || '-01-01' ELSE {text} END"
    sql = f"try_cast({year} AS TIMESTAMPTZ)"
    rule = "created_at.readable" if where.endswith("users") else "published_at.readable"
    return Column(sql, rule, f"({text}) IS NOT NULL AND {sql} IS NULL")


def _attributes(raw: Raw, names: tuple[str, ...], where: str) -> str:
    """A map of the values that are there; NULL where no attribute is mapped."""
    if not names:
        return "NULL::MAP(VARCHAR, VARCHAR)"
    entries = ", ".join(f"{{'k': {quoted(one)}, 'v': {_text(raw, one, where)}}}" for one in names)
    return f"map_from_entries(list_filter([{entries}], lambda x: x.v IS NOT NULL))"
