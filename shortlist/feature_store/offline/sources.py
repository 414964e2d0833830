"""DuckDB relations for the Parquet files of a feature view."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
from feast.data_source import DataSource
from feast.repo_config import RepoConfig

from shortlist.feature_store.states.snapshots import Snapshots, sql_path
from shortlist.feature_store.store import FeatureStoreError

EPOCH = datetime.fromtimestamp(0, UTC)


def relation(source: DataSource | None, config: RepoConfig) -> str:
    """Return an SQL relation of all rows of a source, which is a Parquet file or a folder of parts.

    Raises:
        FeatureStoreError: the file does not exist, or the folder has no parts.
    """
    path = _path(source, config)
    if not path.exists() or (path.is_dir() and not any(path.glob("*.parquet"))):
        raise FeatureStoreError(f"{path}: no snapshots there; run `shortlist refresh`")
    return _read(path / "*.parquet" if path.is_dir() else path)


def relation_from(
    connection: duckdb.DuckDBPyConnection,
    source: DataSource | None,
    config: RepoConfig,
    *,
    at: datetime | None,
) -> str:
    """Return an SQL relation of the rows that are needed for joins as of `at` or later.

    If no row is newer than `at`, the newest row of each key is sufficient. These rows are stored
    separately, in far fewer rows: for 100,000 items one row each instead of one for each day.
    Otherwise all rows are returned.

    Args:
        at: earliest time of the joins; None: all rows are needed.

    Raises:
        FeatureStoreError: as for `relation`.
    """
    everything = relation(source, config)
    path = _path(source, config)
    snapshots = Snapshots.read(path.parent) if path.is_dir() else None
    if at is None or snapshots is None:
        return everything
    newest = path.parent / "current" / str(snapshots.part) / f"{path.name}.parquet"
    if not newest.is_file():
        return everything
    ((last,),) = connection.execute(
        f"SELECT epoch_us(max(event_timestamp)) FROM {_read(newest)}"
    ).fetchall()
    return _read(newest) if last is not None and last <= microseconds(at) else everything


def microseconds(moment: datetime) -> int:
    """Convert a datetime to microseconds since 1970; without a time zone it is UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - EPOCH) // timedelta(microseconds=1)


def _path(source: DataSource | None, config: RepoConfig) -> Path:
    path = Path(str(getattr(source, "path", "")))
    return path if path.is_absolute() or not config.repo_path else Path(config.repo_path) / path


def _read(pattern: Path) -> str:
    return f"read_parquet('{sql_path(pattern)}')"
