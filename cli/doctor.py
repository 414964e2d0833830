"""Checks what is installed, reachable and up to date, without changing anything.

Each problem is reported with the command that fixes it.
"""

import importlib.metadata
import json
import os
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime

import httpx

from shortlist.config import Settings
from shortlist.lake import Lake
from shortlist.releases.release import ReleaseStore

PACKAGES = (
    "prefect",
    "feast",
    "torch",
    "pandas",
    "faiss-cpu",
    "bentoml",
    "evidently",
    "great-expectations",
    "lightgbm",
    "fastapi",
)
TIMEOUT = 2.0

Check = dict[str, str]


def examine() -> list[Check]:
    """Run all checks; return one {"name", "status": ok | warn | fail, "found"} for each.

    An exception in a check is reported as a failure of that check.
    """
    settings = Settings()
    checks: list[tuple[str, Callable[[Settings], tuple[str, str]]]] = [
        ("packages", _packages),
        ("lake", _lake),
        ("features", _features),
        ("feature pack", _pack),
        ("online store", _online_store),
        ("release", _release),
        ("report", _report),
        ("sizes", _sizes),
        ("service", _service),
        ("Prefect server", _prefect),
    ]
    out = []
    for name, check in checks:
        try:
            status, found = check(settings)
        except Exception as error:
            status, found = "fail", f"{type(error).__name__}: {error}"
        out.append({"name": name, "status": status, "found": found})
    return out


def _packages(settings: Settings) -> tuple[str, str]:
    versions, missing = [], []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return "fail", f"missing: {', '.join(missing)}; run `make setup`"
    return "ok", ", ".join(versions)


def _lake(settings: Settings) -> tuple[str, str]:
    if not settings.lake.is_dir():
        return "fail", f"{settings.lake} does not exist; run `shortlist run`"
    manifest = Lake(settings.lake).manifest
    if manifest.latest is None:
        return "fail", f"{settings.lake} has no events; run `shortlist run`"
    newest = datetime.fromtimestamp(manifest.latest / 1e6, UTC)
    return "ok", (
        f"{manifest.rows:,} events in {len(manifest.partitions)} partitions of a"
        f" {manifest.granularity}, the newest event at {newest:%Y-%m-%d %H:%M} UTC"
    )


def _features(settings: Settings) -> tuple[str, str]:
    files = sorted(settings.features.rglob("*.parquet"))
    if not files:
        return "fail", f"no snapshots in {settings.features}; run `shortlist refresh`"
    newest = max(file.stat().st_mtime for file in files)
    return "ok", f"{len(files)} snapshot files, written {_age(newest)}"


def _pack(settings: Settings) -> tuple[str, str]:
    from shortlist.feature_store import latest_pack

    pack = latest_pack(settings.packs)
    as_of = datetime.fromtimestamp(pack.as_of / 1e6, UTC)
    return "ok", f"{pack.pack_id}: {len(pack.item_ids):,} items as of {as_of:%Y-%m-%d %H:%M} UTC"


def _online_store(settings: Settings) -> tuple[str, str]:
    if settings.online_store != "sqlite":
        import redis

        url = settings.online_store
        redis.Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT).ping()
        return "ok", f"Redis answers at {url.rsplit('@', 1)[-1]}"
    files = sorted(settings.feast.glob("*online*.db"))
    if not files:
        return "fail", f"no SQLite file in {settings.feast}; run `shortlist refresh`"
    with sqlite3.connect(f"file:{files[0]}?mode=ro", uri=True) as connection:
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        query = "SELECT count(*) FROM sqlite_master WHERE type='table'"
        tables = connection.execute(query).fetchone()
    return "ok", f"{files[0].name}: {tables[0]} tables, journal {mode}"


def _release(settings: Settings) -> tuple[str, str]:
    store = ReleaseStore(settings.releases)
    release = store.open()
    figure = release.about["metrics"]["chain"]["ndcg@10"]["mean"]
    return "ok", (
        f"{release.release_id} serves ({release.about['dataset']}, nDCG@10 {figure:.4f});"
        f" all {len(release.files)} hashes match; {len(store.ids())} in the store"
    )


def _report(settings: Settings) -> tuple[str, str]:
    pointer = settings.reports / "latest.json"
    if not pointer.is_file():
        return "warn", "no report yet; run `shortlist monitor`"
    latest = json.loads(pointer.read_text())
    return "ok", f"verdict {latest['verdict']}, written {_age(pointer.stat().st_mtime)}"


def _sizes(settings: Settings) -> tuple[str, str]:
    from cli.show import size
    from flows.releases.collect import sizes

    found = sizes(settings)
    parts = ", ".join(f"{name} {size(number)}" for name, number in found.items())
    return "ok", f"{size(sum(found.values()))}: {parts}; `shortlist releases gc` removes old files"


def _service(settings: Settings) -> tuple[str, str]:
    try:
        answer = httpx.get(f"{settings.service_url}/readyz", timeout=TIMEOUT)
    except httpx.HTTPError:
        return "warn", f"nothing answers at {settings.service_url}; start it with `shortlist serve`"
    return ("ok" if answer.status_code == 200 else "warn"), (
        f"{settings.service_url} answers {answer.status_code}"
    )


def _prefect(settings: Settings) -> tuple[str, str]:
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return "warn", (
            "PREFECT_API_URL is not set: runs start their own server;"
            " schedules need `prefect server start`"
        )
    try:
        answer = httpx.get(f"{url.rstrip('/')}/health", timeout=TIMEOUT)
    except httpx.HTTPError:
        return "warn", f"nothing answers at {url}; start it with `prefect server start`"
    return ("ok" if answer.status_code == 200 else "warn"), f"{url} answers {answer.status_code}"


def _age(timestamp: float) -> str:
    minutes = (datetime.now(UTC).timestamp() - timestamp) / 60
    if minutes < 120:
        return f"{minutes:.0f} minutes ago"
    return f"{minutes / 60:.0f} hours ago" if minutes < 2880 else f"{minutes / 1440:.0f} days ago"
