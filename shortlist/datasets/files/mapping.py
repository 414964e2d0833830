"""SQL that maps the columns of a file to those of the contract (table schema), in one pass.

No row is refused. A cell that can't be converted becomes NULL, and the name of the broken rule is
added to the column `faults`; validation decides what happens to the row. The column `original`
holds the unchanged row.
"""

from collections.abc import Sequence

from shortlist import columns as c
from shortlist.behaviour.counting import LIKE_ID
from shortlist.contracts import INTERACTIONS
from shortlist.datasets.config import OPERATION, DataConfig, InteractionFile, ItemFile, UserFile
from shortlist.datasets.files.cells import (
    Column,
    attributes_sql,
    date_sql,
    id_sql,
    joined_sql,
    number_sql,
    text_sql,
    time_sql,
)
from shortlist.datasets.files.lists import categories_sql
from shortlist.datasets.files.readers import Raw
from shortlist.datasets.identity import derived_id
from shortlist.lake.engine import name, quoted

TEXTS = (c.TEXT, c.QUERY, c.SESSION_ID, c.REQUEST_ID, c.SURFACE, c.DEVICE)


def staged_events_sql(
    raw: Raw,
    table: InteractionFile,
    config: DataConfig,
    *,
    source: str,
    where: str,
    now: int,
    between: tuple[int, int] | None = None,
) -> str:
    """Return a SELECT of the rows of one file as they are staged.

    The rows are mapped to the contract. The column `excluded` marks those that match `[data]
    exclude` or are outside of `between`, and likes derived from ratings are added.
    """
    query = events_sql(raw, table, source=source, where=where, now=now)
    excluded = excluded_sql(config.exclude)
    if between is not None:
        time = f"epoch_us({c.EVENT_TIMESTAMP})"
        # A row without a valid time is outside.
        inside = f"coalesce({time} >= {between[0]} AND {time} < {between[1]}, false)"
        excluded = f"{excluded} OR NOT {inside}"
    query = f"SELECT *, {excluded} AS excluded FROM ({query})"
    if config.like_threshold is not None:
        query = _with_likes(query, config.like_threshold)
    return query


def excluded_sql(exclude: Sequence[str]) -> str:
    """Return an SQL condition that is true if a row meets a condition of `exclude`.

    A condition that is NULL counts as false.
    """
    rules = " OR ".join(f"coalesce(({condition}), false)" for condition in exclude)
    return f"({rules})" if rules else "false"


def _with_likes(query: str, threshold: float) -> str:
    """Return a query that adds a `like` after every rating of at least `threshold`.

    It is the SQL counterpart of `counting.with_like`.
    """
    liked = (
        f"event_type = 'rating' AND value >= {threshold} AND faults IS NULL"
        f" AND {OPERATION} = 'insert'"
    )
    return f"""
        SELECT * EXCLUDE (copy_number) REPLACE (
            CASE copy_number WHEN 1 THEN 'like' ELSE event_type END AS event_type,
            CASE copy_number WHEN 1 THEN event_id || '{LIKE_ID}' ELSE event_id END AS event_id
        ) FROM (
            SELECT *, unnest(CASE WHEN {liked} THEN [0, 1] ELSE [0] END) AS copy_number
            FROM ({query})
        )
    """


def events_sql(raw: Raw, table: InteractionFile, *, source: str, where: str, now: int) -> str:
    """Return a SELECT of the interactions in the order of the file, without `event_order`.

    Args:
        source: value of the column `source`.
        where: name of the file for error messages.
        now: microseconds, `ingested_at` of rows without one.

    Raises:
        DatasetError: a mapped column has an unsuitable type.
    """
    given, columns = table.columns, {}
    for key in (c.USER_ID, c.ITEM_ID):
        columns[key] = id_sql(raw, given[key], key, where, exact=table.exact_ids)
    if table.no_user:
        user = columns[c.USER_ID]
        words = ", ".join(quoted(column) for column in table.no_user)
        alone = "NULL"
        if c.SESSION_ID in given:
            alone = f"'session:' || {text_sql(raw, given[c.SESSION_ID], where)}"
        nobody = f"coalesce({user.sql}, '') IN ({words})"
        columns[c.USER_ID] = Column(
            f"CASE WHEN {nobody} THEN {alone} ELSE {user.sql} END", user.rule, user.bad
        )
    kind = f"'{table.event_type}'" if table.event_type else "NULL"
    if c.EVENT_TYPE in given:
        word = text_sql(raw, given[c.EVENT_TYPE], where)
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
        number_sql(raw, given[c.VALUE], "value.number", table)
        if c.VALUE in given
        else Column("NULL::DOUBLE")
    )
    if table.return_if_negative is not None:
        value, kind = columns[c.VALUE], columns[c.EVENT_TYPE].sql
        quantity = number_sql(raw, table.return_if_negative, "value.number", table).sql
        returned = f"({kind}) = 'purchase' AND ({quantity}) < 0"
        columns[c.EVENT_TYPE] = Column(f"CASE WHEN {returned} THEN 'return' ELSE {kind} END")
        paid_back = f"CASE WHEN {returned} THEN abs({value.sql}) ELSE {value.sql} END"
        columns[c.VALUE] = Column(paid_back, value.rule, value.bad)
    if table.unrated is not None:
        value, kind = columns[c.VALUE], columns[c.EVENT_TYPE].sql
        without = f"({kind}) = 'rating' AND ({value.sql}) = {table.unrated}"
        columns[c.EVENT_TYPE] = Column(
            f"CASE WHEN {without} THEN {quoted(table.unrated_type)} ELSE {kind} END"
        )
        rated = f"CASE WHEN {without} THEN NULL ELSE {value.sql} END"
        columns[c.VALUE] = Column(rated, value.rule, value.bad)
    for key in TEXTS:
        columns[key] = Column(text_sql(raw, given[key], where) if key in given else "NULL::VARCHAR")
    columns[c.POSITION] = (
        number_sql(raw, given[c.POSITION], "position.number", table, column_type="INTEGER")
        if c.POSITION in given
        else Column("NULL::INTEGER")
    )
    columns[c.SOURCE] = Column(quoted(source))
    operation = "'insert'"
    if OPERATION in given:
        operation = f"coalesce(lower({text_sql(raw, given[OPERATION], where)}), 'insert')"
    columns[OPERATION] = Column(operation)
    event_id = derived_id()
    if c.EVENT_ID in given:
        columns["given_id"] = Column(text_sql(raw, given[c.EVENT_ID], where))
        event_id = f"coalesce(given_id, {event_id})"
    names = [column for column in INTERACTIONS.names if column not in (c.EVENT_ID, c.EVENT_ORDER)]
    listed = ", ".join([f"{event_id} AS {c.EVENT_ID}", *names, OPERATION, "faults", "original"])
    return f"SELECT {listed} FROM ({_mapped(raw, columns)})"


def items_sql(raw: Raw, table: ItemFile, *, where: str) -> str:
    given, columns = table.columns, {}
    columns[c.ITEM_ID] = id_sql(raw, given[c.ITEM_ID], c.ITEM_ID, where)
    for key in (c.TITLE, c.DESCRIPTION):
        text = joined_sql(raw, given[key], where) if key in given else "NULL::VARCHAR"
        columns[key] = Column(text)
    columns[c.CATEGORIES] = Column("[]::VARCHAR[]")
    if c.CATEGORIES in given:
        listed, bad = categories_sql(raw, given[c.CATEGORIES], table, where)
        columns[c.CATEGORIES] = Column(listed, "categories.readable", bad)
    for key in (c.BRAND, c.IMAGE):
        columns[key] = Column(text_sql(raw, given[key], where) if key in given else "NULL::VARCHAR")
    columns[c.PRICE] = (
        number_sql(raw, given[c.PRICE], "price.number", table)
        if c.PRICE in given
        else Column("NULL::DOUBLE")
    )
    columns[c.PUBLISHED_AT] = Column("NULL::TIMESTAMPTZ")
    if c.PUBLISHED_AT in given:
        from_title = given[c.PUBLISHED_AT] == given.get(c.TITLE)
        columns[c.PUBLISHED_AT] = date_sql(raw, given[c.PUBLISHED_AT], where, from_title=from_title)
    columns[c.AVAILABLE] = Column("true")
    if c.AVAILABLE in given:
        text = text_sql(raw, given[c.AVAILABLE], where)
        flag = f"try_cast(coalesce({text}, 'true') AS BOOLEAN)"
        columns[c.AVAILABLE] = Column(flag, "available.flag", f"{flag} IS NULL")
    if OPERATION in given:
        text = f"coalesce(lower({text_sql(raw, given[OPERATION], where)}), 'insert')"
        columns[OPERATION] = Column(text)
        # A deleted item becomes unavailable. Its row remains, because events may refer to it.
        still = f"({columns[c.AVAILABLE].sql}) AND {text} <> 'delete'"
        columns[c.AVAILABLE] = Column(still, columns[c.AVAILABLE].rule, columns[c.AVAILABLE].bad)
    else:
        columns[OPERATION] = Column("'insert'")
    columns[c.ATTRIBUTES] = Column(attributes_sql(raw, table.attributes, where))
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
    columns[c.USER_ID] = id_sql(raw, given[c.USER_ID], c.USER_ID, where)
    columns[c.ATTRIBUTES] = Column(attributes_sql(raw, table.attributes, where))
    columns[c.CREATED_AT] = Column("NULL::TIMESTAMPTZ")
    if c.CREATED_AT in given:
        columns[c.CREATED_AT] = date_sql(raw, given[c.CREATED_AT], where, from_title=False)
    columns[OPERATION] = Column("'insert'")
    return _mapped(raw, columns)


def _mapped(raw: Raw, columns: dict[str, Column]) -> str:
    faults = [
        f"CASE WHEN {column.bad} THEN '{column.rule}' END"
        for column in columns.values()
        if column.bad
    ]
    found = f"list_filter([{', '.join(faults)}], lambda x: x IS NOT NULL)" if faults else "[]"
    any_bad = " OR ".join(f"({column.bad})" for column in columns.values() if column.bad) or "false"
    listed = ", ".join(f"{column.sql} AS {name(key)}" for key, column in columns.items())
    return (
        f"SELECT {listed}, CASE WHEN {raw.broken} THEN ['line.json']"
        f" WHEN {any_bad} THEN {found} END::VARCHAR[] AS faults, {raw.original} AS original"
        f" FROM {raw.relation}"
    )
