"""DuckDB as a data source of Great Expectations: importing this module makes its type known.

During `shortlist validate` the source stands on the run's own connection, so that Great
Expectations judges the relations that validation has prepared. Opened from a file context at
another time it stands on the lake: the same relations, with the rows that were published.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import duckdb
import sqlalchemy as sa
from duckdb_engine import ConnectionWrapper
from great_expectations.datasource.fluent.sql_datasource import SQLDatasource
from great_expectations.execution_engine.sqlalchemy_execution_engine import (
    SqlAlchemyExecutionEngine,
)
from pydantic.v1 import Field, PrivateAttr
from sqlalchemy.pool import StaticPool

from flows.validation import duckdb_dialect


class DuckDBExecutionEngine(SqlAlchemyExecutionEngine):
    """Keeps one connection: closed before its result is read, DuckDB drops the result."""

    @contextmanager
    def get_connection(self) -> Iterator[sa.Connection]:
        if self._connection is None:
            self._connection = self.engine.connect()
        assert self._connection is not None
        yield self._connection


class _Borrowed(ConnectionWrapper):
    """A connection of somebody else's, who closes it. Nothing is written, so that SQLAlchemy's
    transactions, several of which may be open at a time, need not reach DuckDB.
    """

    def close(self) -> None:
        pass

    begin = commit = rollback = close


class DuckDBDatasource(SQLDatasource):
    """Data source of type `duckdb`."""

    execution_engine_override: ClassVar = DuckDBExecutionEngine
    type: Literal["duckdb"] = "duckdb"  # pyright: ignore[reportIncompatibleVariableOverride]
    views: dict[str, str] = Field(default_factory=dict)
    """{name: SQL} of the views that stand for the run's relations at other times. The SQL is in
    hexadecimal, because GX replaces `$` in its configuration, which regular expressions have.
    """

    _borrowed: duckdb.DuckDBPyConnection | None = PrivateAttr(None)

    def borrow(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Stand on this connection from now on."""
        self._borrowed = connection
        self._engine = self._execution_engine = None

    def release(self) -> None:
        """Give the connection back without an open transaction."""
        if self._execution_engine is not None and self._execution_engine._connection is not None:
            self._execution_engine._connection.close()
        self._borrowed = self._engine = self._execution_engine = None

    def _create_engine(self) -> sa.Engine:
        connection = self._borrowed
        if connection is None:
            connection = duckdb.connect()
            connection.execute("SET TimeZone = 'UTC'")
            for name, query in self.views.items():
                sql = bytes.fromhex(query).decode()
                connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {sql}")
        return sa.create_engine(
            "duckdb://", creator=lambda: _Borrowed(connection), poolclass=StaticPool
        )

    def get_execution_engine(self) -> SqlAlchemyExecutionEngine:
        if self._execution_engine is None:
            # No temporary table: it would hold the whole relation, and the relation is a view.
            made = DuckDBExecutionEngine(engine=self.get_engine(), create_temp_table=False)
            made.dialect_module = duckdb_dialect
            self._execution_engine = made
        assert isinstance(self._execution_engine, DuckDBExecutionEngine)
        return self._execution_engine

    def _get_exec_engine_excludes(self) -> set[Any]:
        return super()._get_exec_engine_excludes() | {"views"}
