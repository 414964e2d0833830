"""Builds Feast's RepoConfig from Settings; opens the store and applies the definitions."""

import contextlib
import os
import runpy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortlist.config import Settings
from shortlist.feature_store.registry_summary import RegistrySummary

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView, RepoConfig

PROJECT = "shortlist"
"""Feast's project name; it prefixes the names of online tables and keys."""
OFFLINE_STORE = "shortlist.feature_store.offline.store.AsofOfflineStore"
SQLITE_STORE = "shortlist.feature_store.online.store.WideSqliteOnlineStore"
BATCH_ENGINE = "shortlist.feature_store.online.engine.ArrowComputeEngine"
REDIS_OPTIONS = ("username", "password", "db", "socket_timeout", "socket_connect_timeout")
"""Parts of a Redis URI that are passed on to Feast."""
REGISTRY = "registry.db"
ONLINE_STORE = "online_store.db"
REGISTRY_TTL_SECONDS = 3600
"""How long a process caches the registry. It can be long, since definitions change only with code.
"""
REPO = Path(__file__).resolve().parents[2] / "feature_repo"
ONLINE_VIEWS = (
    "user_stats",
    "user_history",
    "user_profile",
    "user_event_groups",
    "user_searches",
    "user_refusals",
    "context_trend",
)


class FeatureStoreError(RuntimeError):
    """The requested part of the feature store is missing. The message says how to create it."""


def repo_config(settings: Settings) -> "RepoConfig":
    """Return the configuration of `feature_repo/feature_store.yaml`, for the home and online store
    of `settings`.
    """
    from feast import RepoConfig

    feast_home = settings.feast.absolute()
    return RepoConfig(
        project=project_of(settings),
        provider="local",
        registry={
            "registry_type": "file",
            "path": str(feast_home / REGISTRY),
            "cache_ttl_seconds": REGISTRY_TTL_SECONDS,
        },
        offline_store={"type": OFFLINE_STORE},
        online_store=_online_config(settings, feast_home),
        batch_engine={"type": BATCH_ENGINE},
        entity_key_serialization_version=3,
        repo_path=REPO,
    )


def project_of(settings: Settings) -> str:
    """Return Feast's project name.

    With Redis it contains the home's name, because several homes may share a Redis. With SQLite it
    doesn't, because the file is inside the home, and a home can be moved.
    """
    if settings.online_store == "sqlite":
        return PROJECT
    return f"{PROJECT}_{settings.home_name}"


def _online_config(settings: Settings, feast_home: Path) -> dict[str, Any]:
    if settings.online_store == "sqlite":
        return {
            "type": SQLITE_STORE,
            "path": str(feast_home / ONLINE_STORE),
            "clock": settings.clock or "wall",
        }
    from redis.connection import parse_url

    try:
        parts = parse_url(settings.online_store)
    except ValueError as error:
        raise FeatureStoreError(
            f"online_store {settings.online_store!r}: {error};"
            " want 'sqlite' or a URI like redis://127.0.0.1:6379/0"
        ) from None
    address = f"{parts.get('host', 'localhost')}:{parts.get('port', 6379)}"
    options = {name: parts[name] for name in REDIS_OPTIONS if name in parts}
    if settings.online_store.startswith("rediss://"):
        options["ssl"] = "true"
    connection = ",".join([address, *(f"{k}={v}" for k, v in options.items())])
    # skip_dedup: always overwrite the stored row. By default, Feast keeps it unless the new row has
    # a later timestamp, but a rebuilt row may have the same timestamp as the old one. Overwriting
    # is safe: only a refresh writes rows, so the stored row is never newer.
    return {"type": "redis", "connection_string": connection, "skip_dedup": True}


def with_deadline(settings: Settings) -> Settings:
    """Return settings with which calls of Redis fail after `online_timeout_ms`."""
    if settings.online_store == "sqlite":
        return settings
    seconds = settings.online_timeout_ms / 1e3
    joint = "&" if "?" in settings.online_store else "?"
    limits = f"socket_timeout={seconds:g}&socket_connect_timeout={seconds:g}"
    return settings.model_copy(update={"online_store": f"{settings.online_store}{joint}{limits}"})


def never_retry(store: "FeatureStore") -> None:
    """Turn off retries in redis-py, so that a request fails at its first timeout.

    By default, redis-py waits and retries three times.
    """
    from feast.infra.online_stores.redis import RedisOnlineStore
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    online = store._get_provider().online_store
    assert isinstance(online, RedisOnlineStore)
    config: Any = store.config.online_store
    online._get_client(config).set_retry(Retry(NoBackoff(), 0))


_opened: dict[tuple[Path, str], tuple[int, "FeatureStore"]] = {}
"""Open stores of this process: (folder, online store) -> (inode of the registry file, store). A
changed inode means that the registry file was replaced.
"""


def open_store(settings: Settings) -> "FeatureStore":
    """Return the feature store of this home.

    It is opened once per process, and again if an upgrade has replaced the registry file.

    Raises:
        FeatureStoreError: there is no registry or no online store yet.
    """
    check_files(settings)
    registry = settings.feast / REGISTRY
    opened = _opened.get(_key(settings))
    if opened is not None and opened[0] == registry.stat().st_ino:
        return opened[1]
    from feast import FeatureStore

    return _remember(settings, FeatureStore(config=repo_config(settings)))


def check_files(settings: Settings) -> None:
    """Raise FeatureStoreError if the home has no registry or no online store yet."""
    registry = settings.feast / REGISTRY
    if not registry.is_file():
        raise FeatureStoreError(f"{registry}: no feature registry; run `shortlist refresh`")
    if settings.online_store == "sqlite" and not (settings.feast / ONLINE_STORE).is_file():
        raise FeatureStoreError(
            f"{settings.feast / ONLINE_STORE}: no online store; run `shortlist refresh`"
        )


def _key(settings: Settings) -> tuple[Path, str]:
    return settings.feast.absolute(), settings.online_store


def _remember(settings: Settings, store: "FeatureStore") -> "FeatureStore":
    _opened[_key(settings)] = ((settings.feast / REGISTRY).stat().st_ino, store)
    return store


def apply(settings: Settings) -> "FeatureStore":
    """Register feature_repo/definitions.py, like `feast apply`, with the data paths of this home.

    Raises:
        FeatureStoreError: a view has a TTL and the online store is Redis.
    """
    from feast import Entity, FeatureService, FeatureStore, FeatureView, OnDemandFeatureView
    from feast.data_source import DataSource

    settings.feast.mkdir(parents=True, exist_ok=True)
    with _home(settings):
        namespace = runpy.run_path(str(REPO / "definitions.py"))
    feast_types = (Entity, DataSource, FeatureView, OnDemandFeatureView, FeatureService)
    check_ttl(settings, [view for view in namespace.values() if isinstance(view, FeatureView)])
    store = FeatureStore(config=repo_config(settings))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="On demand feature view is an experimental")
        store.apply([value for value in namespace.values() if isinstance(value, feast_types)])
    RegistrySummary.of(store).write(settings.feast / REGISTRY)
    return _remember(settings, store)


def check_ttl(settings: Settings, views: "list[FeatureView]") -> None:
    """Refuse views with a TTL (maximum age of a row) if the online store is Redis.

    Feast's Redis store ignores the TTL and returns expired rows.

    Raises:
        FeatureStoreError: a view has a TTL and the online store is Redis.
    """
    expiring = [view.name for view in views if view.ttl]
    if expiring and settings.online_store != "sqlite":
        raise FeatureStoreError(
            f"view {expiring[0]} has a TTL, which Feast ignores in Redis; want ttl=FOREVER in"
            " feature_repo/definitions.py, or SHORTLIST_ONLINE_STORE=sqlite"
        )


@contextlib.contextmanager
def _home(settings: Settings) -> Iterator[None]:
    """Set SHORTLIST_HOME, which the definitions read, during the block."""
    before = os.environ.get("SHORTLIST_HOME")
    os.environ["SHORTLIST_HOME"] = str(settings.home.absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ["SHORTLIST_HOME"]
        else:
            os.environ["SHORTLIST_HOME"] = before
