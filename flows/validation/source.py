"""DuckDB as a data source of Great Expectations. Importing this module registers the type `duckdb`.

During `shortlist validate` the source uses the connection of the validation, so that Great
Expectations judges the batch's prepared rows. If a user opens the context at another time, the
source has views of the lake under the same names: they show the published rows.
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
    """Execution engine that keeps one connection open.

    If DuckDB's connection were closed before a result is read, the result would be lost.
    """

    @contextmanager
    def get_connection(self) -> Iterator[sa.Connection]:
        if self._connection is None:
            self._connection = self.engine.connect()
        assert self._connection is not None
        yield self._connection


class _SharedConnection(ConnectionWrapper):
    """A DuckDB connection that SQLAlchemy may use but not close; its owner closes it.

    SQLAlchemy may open several transactions at a time, which DuckDB refuses. They are ignored,
    because nothing is written.
    """

    def close(self) -> None:
        pass

    begin = commit = rollback = close


class DuckDBDatasource(SQLDatasource):
    """Data source of type `duckdb`: uses a borrowed connection, otherwise views of the lake."""

    execution_engine_override: ClassVar = DuckDBExecutionEngine
    type: Literal["duckdb"] = "duckdb"  # pyright: ignore[reportIncompatibleVariableOverride]
    views: dict[str, str] = Field(default_factory=dict)
    """{name: SQL} of views of the lake, used when no connection is borrowed.

    The SQL is in hexadecimal: Great Expectations substitutes variables after each `$` in its
    configuration, and `$` occurs in regular expressions.
    """

    _borrowed: duckdb.DuckDBPyConnection | None = PrivateAttr(None)

    def borrow(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Use this connection until `release`."""
        self._borrowed = connection
        self._engine = self._execution_engine = None

    def release(self) -> None:
        """Stop using the borrowed connection."""
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
            "duckdb://", creator=lambda: _SharedConnection(connection), poolclass=StaticPool
        )

    def get_execution_engine(self) -> SqlAlchemyExecutionEngine:
        if self._execution_engine is None:
            # No temporary tables: they would copy the whole relation, which is a view.
            made = DuckDBExecutionEngine(engine=self.get_engine(), create_temp_table=False)
            made.dialect_module = duckdb_dialect
            self._execution_engine = made
        assert isinstance(self._execution_engine, DuckDBExecutionEngine)
        return self._execution_engine

    def _get_exec_engine_excludes(self) -> set[Any]:
        return super()._get_exec_engine_excludes() | {"views"}
