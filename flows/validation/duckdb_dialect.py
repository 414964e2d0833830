"""SQLAlchemy dialect module of DuckDB for Great Expectations: its types, and the SQL flavour.

Great Expectations doesn't support DuckDB. It chooses the SQL of regular expressions and LIKE by the
names of attributes in a dialect module. Because this module has a `DremioDialect`, it generates
Dremio's SQL, which DuckDB accepts. Its REGEXP_MATCHES finds a match anywhere in the text.
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
