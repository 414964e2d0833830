"""DuckDB as Great Expectations sees a database: the names of its types, and a marker of its SQL.

Great Expectations chooses regular expressions and LIKE by attributes of the dialect's module, and
knows no DuckDB. Dremio's SQL is what DuckDB takes: REGEXP_MATCHES finds a match anywhere.
"""

from duckdb_engine import Dialect as DremioDialect
from sqlalchemy.types import BigInteger as BIGINT
from sqlalchemy.types import Boolean as BOOLEAN
from sqlalchemy.types import Date as DATE
from sqlalchemy.types import DateTime as TIMESTAMP
from sqlalchemy.types import Float as DOUBLE
from sqlalchemy.types import Float as FLOAT
from sqlalchemy.types import Integer as INTEGER
from sqlalchemy.types import String as VARCHAR

__all__ = [
    "BIGINT",
    "BOOLEAN",
    "DATE",
    "DOUBLE",
    "FLOAT",
    "INTEGER",
    "TIMESTAMP",
    "VARCHAR",
    "DremioDialect",
]
