"""Reads tables or queries of a database through SQLAlchemy, in chunks.

A watermark is the largest value of an increasing column that was read so far. The next run reads
from it on.
"""

import decimal
import json
import os
import string
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from shortlist.datasets.config import DatabaseConfig, DatabaseItems, DatabaseTable, DatabaseUsers
from shortlist.datasets.errors import DatasetError, SourceUnavailable
from shortlist.datasets.files.locate import SourceFile
from shortlist.datasets.files.mapping import items_sql, users_sql
from shortlist.datasets.files.readers import open_raw
from shortlist.datasets.staging import Stager


def stage_database(stager: Stager) -> None:
    """Stage the rows at or above the watermarks; tables without a watermark are read as a whole.

    Raises:
        SourceUnavailable: the database can't be reached.
        DatasetError: a table or column is missing.
    """
    config = stager.config.database
    assert config is not None, "checked by DataConfig"
    tables = (
        ("interactions", config.interactions),
        ("items", config.items),
        ("users", config.users),
    )
    how_far = {name: {"look_back"} for name, table in tables if table is not None}
    key = stager.key(config.model_dump(mode="json", exclude=how_far))
    marks: dict[str, Any] = dict(stager.known(key).get("watermarks", {}))
    engine = open_engine(config)
    try:
        with engine.connect():
            pass
    except SQLAlchemyError as error:
        engine.dispose()
        raise SourceUnavailable(f"{_shown(engine)}: {_first_line(error)}") from None
    try:
        for name, table in tables:
            if table is not None and (name == "interactions" or stager.between is None):
                marks[name] = _stage(
                    stager, engine, name, table, marks.get(name), config.chunk_rows
                )
    except SQLAlchemyError as error:
        lost = getattr(error, "connection_invalidated", False)
        error_type = SourceUnavailable if lost else DatasetError
        raise error_type(f"{_shown(engine)}: {_first_line(error)}") from None
    finally:
        engine.dispose()
    stager.remember(key, {"watermarks": marks})
    stager.batch.unchanged = int(not stager.fresh)
    stager.batch.create = ("users",) if config.items is not None else ("items", "users")


def open_engine(config: DatabaseConfig) -> sqlalchemy.Engine:
    """Create the engine of a database.

    Raises:
        DatasetError: the URL is invalid, an environment variable in it is not set, or its driver is
            not installed.
    """
    try:
        url = string.Template(config.url).substitute(os.environ)
    except (KeyError, ValueError) as error:
        raise DatasetError(
            f"database url: ${error.args[0]} is not set in the environment"
        ) from None
    try:
        return sqlalchemy.create_engine(url)
    except (SQLAlchemyError, ImportError) as error:
        raise DatasetError(
            f"database url: {_first_line(error)}; want e.g. sqlite:///shop.db or"
            " postgresql+psycopg://user:$PASSWORD@host/name, and its driver installed"
        ) from None


def _stage(
    stager: Stager,
    engine: sqlalchemy.Engine,
    name: str,
    table: DatabaseTable,
    mark: Any,
    chunk_rows: int,
) -> Any:
    """Stage one table of the database; return its new watermark.

    Args:
        name: the contract's table that it is mapped to: interactions, items or users.
        mark: watermark after the last run, as `_kept` returns it; None: read all rows.
    """
    where = f"{_shown(engine)}: {table.table or 'query'}"
    for number, (columns, rows) in enumerate(_chunks(engine, table, mark, chunk_rows, where)):
        if table.watermark is not None:
            mark = _newest(rows, columns.index(table.watermark), mark, where, table.watermark)
        if not rows:
            continue
        path = stager.staged.folder / f"chunk-{name}.parquet"
        cells = [[_cell(row[i]) for row in rows] for i in range(len(columns))]
        pq.write_table(
            pa.table(
                {
                    column: pa.array(values, pa.string())
                    for column, values in zip(columns, cells, strict=True)
                }
            ),
            path,
        )
        file = SourceFile(where, path, "parquet", None)
        stager.fresh.append(f"{name}:{number}:{file.fingerprint()}")
        raw = open_raw(file, table)
        if name == "interactions":
            stager.events(raw, table, file=file)  # pyright: ignore[reportArgumentType]
        elif isinstance(table, DatabaseItems):
            stager.rows(name, items_sql(raw, table, where=f"{where}: items"), file=file)
        elif isinstance(table, DatabaseUsers):
            stager.rows(name, users_sql(raw, table, where=f"{where}: users"), file=file)
        path.unlink()
    return mark


def _chunks(
    engine: sqlalchemy.Engine, table: DatabaseTable, mark: Any, chunk_rows: int, where: str
) -> Iterator[tuple[list[str], list[Any]]]:
    """Yield (column names, rows) with at most `chunk_rows` rows, in order of the watermark.

    The first chunk has no rows. It gives the columns even if the table is empty.
    """
    inner = (
        f"({table.query}) AS source" if table.query is not None else _quoted(engine, table.table)
    )
    statement = f"SELECT * FROM {inner}"
    parameters = {}
    if table.watermark is not None:
        column = _quoted(engine, table.watermark)
        if mark is not None:
            # `>=`: rows with this value are read again, because more may have been added since.
            statement += f" WHERE {column} >= :mark"
            parameters["mark"] = _read_from(_typed(mark), table, where)
        statement += f" ORDER BY {column}"
    with engine.connect().execution_options(
        stream_results=True, yield_per=chunk_rows
    ) as connection:
        result = connection.execute(sqlalchemy.text(statement), parameters)
        columns = list(result.keys())
        if table.watermark is not None and table.watermark not in columns:
            raise DatasetError(
                f"{where}: no column '{table.watermark}' (watermark);"
                f" there are {', '.join(columns)}"
            )
        yield columns, []
        for rows in result.partitions(chunk_rows):
            yield columns, list(rows)


def _quoted(engine: sqlalchemy.Engine, name: str | None) -> str:
    assert name is not None, "checked by DatabaseTable"
    quote = engine.dialect.identifier_preparer.quote
    return ".".join(quote(part) for part in name.split("."))


def _newest(rows: list[Any], at: int, mark: Any, where: str, column: str) -> Any:
    """Return the watermark after these rows in the form in which it is stored as JSON.

    Raises:
        DatasetError: the watermark column is null in a row.
    """
    for row in rows:
        if row[at] is None:
            raise DatasetError(
                f"{where}: column '{column}' (watermark) is null in a row; want none"
            )
    return mark if not rows else _kept(rows[-1][at])


def _kept(value: Any) -> dict[str, Any]:
    if isinstance(value, datetime):
        return {"datetime": value.isoformat()}
    if isinstance(value, date):
        return {"date": value.isoformat()}
    if isinstance(value, Decimal):
        return {"decimal": str(value)}  # a float would be rounded, which skips or repeats rows
    return {"plain": value}


def _typed(mark: dict[str, Any]) -> Any:
    if "datetime" in mark:
        return datetime.fromisoformat(mark["datetime"])
    if "decimal" in mark:
        return Decimal(mark["decimal"])
    return date.fromisoformat(mark["date"]) if "date" in mark else mark["plain"]


def _read_from(mark: Any, table: DatabaseTable, where: str) -> Any:
    """Return the watermark minus `look_back`, in the type of the column.

    Raises:
        DatasetError: one of the two is a time and the other a number.
    """
    distance: Any = table.look_back_distance
    if not distance:
        return mark
    try:
        if isinstance(mark, str):  # SQLite stores times as text
            return (datetime.fromisoformat(mark) - distance).isoformat(sep=mark[10:11] or " ")
        if isinstance(mark, date) and not isinstance(mark, datetime) and mark - distance == mark:
            return mark - timedelta(days=1)  # `look_back` is less than a day
        with decimal.localcontext(prec=100):  # the default of 28 digits would round numeric(38, 10)
            return mark - distance
    except (TypeError, ValueError):
        raise DatasetError(
            f"{where}: look_back is {table.look_back!r} and column '{table.watermark}' (watermark)"
            f' holds {mark!r}; want a time such as "1 hour" for times, a number for ids'
        ) from None


def _cell(value: Any) -> str | None:
    """Convert a cell to the text that is staged and that the quarantine shows."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return (value.astimezone(UTC) if value.tzinfo else value).isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict | list):
        return json.dumps(value)
    return str(value)


def _shown(engine: sqlalchemy.Engine) -> str:
    return engine.url.render_as_string(hide_password=True)


def _first_line(error: BaseException) -> str:
    origin = getattr(error, "orig", None) or error
    return str(origin).strip().splitlines()[0]
