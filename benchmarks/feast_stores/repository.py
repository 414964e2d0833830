"""Feast repositories for benchmarks: one feature view, keyed by string user ids.

The stores can be chosen: OWN are Shortlist's, STOCK are Feast's own.
"""

import contextlib
import io
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb

START = 1_700_006_400_000_000  # 2023-11-15 00:00 UTC, microseconds
DAY = 86_400_000_000

OWN: dict[str, Any] = {
    "offline_store": {"type": "shortlist.feature_store.offline.store.AsofOfflineStore"},
    "online_store": {"type": "shortlist.feature_store.online.store.WideSqliteOnlineStore"},
    "batch_engine": {"type": "shortlist.feature_store.online.engine.ArrowComputeEngine"},
}
STOCK: dict[str, Any] = {
    "offline_store": {"type": "duckdb"},
    "online_store": {"type": "sqlite"},
    "batch_engine": {"type": "local"},
}


def write_snapshots(path: Path, *, users: int, per_user: int, features: int) -> None:
    """Write `per_user` daily snapshots per user with features f0, f1, ...

    They are sorted by user and time, like the files that featurize writes.
    """
    columns = ", ".join(f"hash(u * 31 + s * 7 + {i}) / 1.8e19 AS f{i}" for i in range(features))
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"""COPY (
                SELECT printf('user-%07d', u) AS user_id,
                    make_timestamptz({START} + s * {DAY} + (u * 7919) % {DAY}) AS event_timestamp,
                    {columns}
                FROM range({users}) users(u), range({per_user}) stamps(s)
                ORDER BY user_id, event_timestamp
            ) TO '{path}' (FORMAT parquet, COMPRESSION zstd)"""
        )


def make_store(
    folder: Path, snapshots: Path, *, features: int, stores: dict[str, Any], tag: str
) -> Any:
    """Return a FeatureStore with the view `stats` of double features f0, f1, ...

    Args:
        folder: the store's files are in `folder`/`tag`.
        snapshots: Parquet file from `write_snapshots`, the offline data.
        features: number of features.
        stores: store settings, such as OWN or STOCK.
    """
    from feast.types import Float64

    schema = {f"f{i}": Float64 for i in range(features)}
    return store_of(folder / tag, snapshots, schema=schema, stores=stores, view="stats")


def store_of(
    home: Path,
    snapshots: Path,
    *,
    schema: dict[str, Any],
    stores: dict[str, Any],
    view: str,
    ttl: timedelta = timedelta(0),
    created: str = "",
) -> Any:
    """Return a FeatureStore in `home` with one view of `schema`, keyed by string user ids.

    Args:
        created: name of the column with a row's creation time; "" if there is none.
    """
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.data_format import ParquetFormat
    from feast.types import String
    from feast.value_type import ValueType

    home.mkdir(parents=True, exist_ok=True)
    online = dict(stores["online_store"])
    if "connection_string" not in online:
        online["path"] = str(home / "online.db")
    config = RepoConfig(
        project="bench",
        provider="local",
        registry={"registry_type": "file", "path": str(home / "registry.db")},
        offline_store=stores["offline_store"],
        online_store=online,
        batch_engine=stores["batch_engine"],
        entity_key_serialization_version=3,
        repo_path=home,
    )
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    of_users = FeatureView(
        name=view,
        entities=[user],
        ttl=ttl,
        schema=[
            Field(name=name, dtype=dtype) for name, dtype in {"user_id": String, **schema}.items()
        ],
        source=FileSource(
            name=f"{view}_source",
            path=str(snapshots),
            file_format=ParquetFormat(),
            timestamp_field="event_timestamp",
            created_timestamp_column=created,
        ),
    )
    store = FeatureStore(config=config)
    with quiet():
        store.apply([user, of_users])
    return store


def refs(features: int) -> list[str]:
    return [f"stats:f{i}" for i in range(features)]


@contextlib.contextmanager
def quiet() -> Any:
    """Suppress Feast's progress bars and warnings."""
    sink = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(sink):
        warnings.simplefilter("ignore")
        with contextlib.redirect_stderr(sink):
            yield
