"""Feast's RepoConfig built from Settings, and what is done to a store: open, apply, materialize."""

import contextlib
import os
import runpy
import sqlite3
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shortlist.config import Settings
from shortlist.contracts import TIMESTAMP

if TYPE_CHECKING:
    from feast import FeatureStore, RepoConfig
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

PROJECT = "shortlist"
OFFLINE_STORE = "shortlist.feature_store.offline.AsofOfflineStore"
SQLITE_STORE = "shortlist.feature_store.online.WalSqliteOnlineStore"
REGISTRY = "registry.db"
ONLINE_STORE = "online_store.db"
REGISTRY_TTL_SECONDS = 3600
"""How long a process trusts its copy of the registry: definitions change with the code."""
REPO = Path(__file__).resolve().parents[2] / "feature_repo"
ONLINE_VIEWS = ("user_stats", "user_history", "user_profile", "context_trend")
PUSHED_VIEWS = ("user_stats", "user_history")


class FeatureStoreError(RuntimeError):
    """The feature store lacks what was asked for; the message says which command makes it."""


def repo_config(settings: Settings) -> "RepoConfig":
    """What `feature_repo/feature_store.yaml` says, for the home and online store of `settings`."""
    from feast import RepoConfig

    feast_home = settings.feast.absolute()
    return RepoConfig(
        project=PROJECT,
        provider="local",
        registry={
            "registry_type": "file",
            "path": str(feast_home / REGISTRY),
            "cache_ttl_seconds": REGISTRY_TTL_SECONDS,
        },
        offline_store={"type": OFFLINE_STORE},
        online_store=_online_config(settings, feast_home),
        entity_key_serialization_version=3,
        repo_path=REPO,
    )


def _online_config(settings: Settings, feast_home: Path) -> dict[str, Any]:
    if settings.online_store == "sqlite":
        return {"type": SQLITE_STORE, "path": str(feast_home / ONLINE_STORE)}
    from redis.connection import parse_url

    try:
        parts = parse_url(settings.online_store)
    except ValueError as error:
        raise FeatureStoreError(
            f"online_store {settings.online_store!r}: {error};"
            " want 'sqlite' or a URI like redis://127.0.0.1:6379/0"
        ) from None
    address = f"{parts.get('host', 'localhost')}:{parts.get('port', 6379)}"
    options = {k: parts[k] for k in ("username", "password", "db") if k in parts}
    if settings.online_store.startswith("rediss://"):
        options["ssl"] = "true"
    connection = ",".join([address, *(f"{k}={v}" for k, v in options.items())])
    return {"type": "redis", "connection_string": connection}


_opened: dict[tuple[Path, str], "FeatureStore"] = {}


def open_store(settings: Settings) -> "FeatureStore":
    """The store of this home, opened once a process.

    Raises:
        FeatureStoreError: nothing was featurized there yet.
    """
    registry = settings.feast / REGISTRY
    if not registry.is_file():
        raise FeatureStoreError(f"{registry}: no feature registry; run `shortlist featurize`")
    if settings.online_store == "sqlite" and not (settings.feast / ONLINE_STORE).is_file():
        raise FeatureStoreError(
            f"{settings.feast / ONLINE_STORE}: no online store; run `shortlist featurize`"
        )
    key = (settings.feast.absolute(), settings.online_store)
    if key not in _opened:
        from feast import FeatureStore

        _opened[key] = FeatureStore(config=repo_config(settings))
    return _opened[key]


def apply(settings: Settings) -> "FeatureStore":
    """Register feature_repo/definitions.py, like `feast apply`, with the snapshots of this home."""
    from feast import Entity, FeatureService, FeatureStore, FeatureView, OnDemandFeatureView
    from feast.data_source import DataSource

    settings.feast.mkdir(parents=True, exist_ok=True)
    with _home(settings):
        namespace = runpy.run_path(str(REPO / "definitions.py"))
    kinds = (Entity, DataSource, FeatureView, OnDemandFeatureView, FeatureService)
    store = FeatureStore(config=repo_config(settings))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="On demand feature view is an experimental")
        store.apply([value for value in namespace.values() if isinstance(value, kinds)])
    _opened[settings.feast.absolute(), settings.online_store] = store
    return store


@contextlib.contextmanager
def _home(settings: Settings) -> Iterator[None]:
    """SHORTLIST_HOME as the definitions read it."""
    before = os.environ.get("SHORTLIST_HOME")
    os.environ["SHORTLIST_HOME"] = str(settings.home.absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ["SHORTLIST_HOME"]
        else:
            os.environ["SHORTLIST_HOME"] = before


def materialize(settings: Settings, *, until: int) -> None:
    """Bring the online store to the snapshots' newest states stamped at or before `until`.

    In SQLite whoever the snapshots do not know is removed: users that only posted events made, who
    left the lake, or contexts of a later `until`. The store then says what the lake says, and
    events from `until` on are to be pushed again. Redis keeps such rows, and what is stamped later.

    Args:
        until: microseconds, the one the states were built with.

    Raises:
        FeatureStoreError: nothing was applied yet.
    """
    store = open_store(settings)
    with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet):
        store.materialize(
            start_date=datetime.fromtimestamp(0, UTC) - timedelta(days=1),
            end_date=datetime.fromtimestamp(0, UTC) + timedelta(microseconds=until),
            feature_views=list(ONLINE_VIEWS),
        )
    if settings.online_store == "sqlite":
        _remove_unknown(settings, until=until)


def _remove_unknown(settings: Settings, *, until: int) -> None:
    """Delete the online rows whose user or context has no state in the snapshots by `until`."""
    from feast.infra.key_encoding_utils import serialize_entity_key

    stamped = pc.field("event_timestamp") <= pa.scalar(until, TIMESTAMP)
    with contextlib.closing(sqlite3.connect(settings.feast / ONLINE_STORE)) as connection:
        connection.execute("CREATE TEMP TABLE known (entity_key BLOB PRIMARY KEY)")
        for view in ONLINE_VIEWS:
            key = "context_id" if view == "context_trend" else "user_id"
            path = settings.features / f"{view}.parquet"
            column = pq.read_table(path, columns=[key], filters=stamped).column(key)
            known = [
                (serialize_entity_key(entity_key(key, value), entity_key_serialization_version=3),)
                for value in column.unique().to_pylist()
            ]
            connection.execute("DELETE FROM known")
            connection.executemany("INSERT INTO known VALUES (?)", known)
            connection.execute(f'DELETE FROM "{PROJECT}_{view}" WHERE entity_key NOT IN known')
        connection.commit()


def entity_key(name: str, value: str) -> "EntityKey":
    """A user or context as Feast's online stores key it; `name` is user_id or context_id."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    return EntityKey(join_keys=[name], entity_values=[Value(string_val=value)])
