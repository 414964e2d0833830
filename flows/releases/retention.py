"""Retention: which releases, runs, Bentos and files of a home may be removed.

Nothing is removed here; flows/releases/collect.py does that. A home is the folder SHORTLIST_HOME.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from flows.releases.served_releases import newest_day, response_times
from flows.runtime.configuration import CONFIGS
from shortlist.config import Config, Settings
from shortlist.feature_store.packs import PUBLISHED, current_pack_id
from shortlist.features.pack import PackError
from shortlist.home.workers import live_workers
from shortlist.lake.leases import lease_holders
from shortlist.lake.snapshot import current_manifest
from shortlist.releases.pins import read_pins
from shortlist.releases.release import ReleaseStore

DAY = 86_400
RETENTION = CONFIGS / "retention.toml"
RUN_MODELS = ("release", "trial", "backtest")
"""Folders of a run with models."""


class RetentionConfig(Config):
    """What garbage collection keeps beside releases that are served, pinned, leased or in use."""

    releases: int = Field(default=5, ge=1)
    """Number of newest releases."""
    promoted: int = Field(default=3, ge=2)
    """Number of newest promoted releases, for `shortlist rollback`."""
    runs_days: float = Field(default=30, gt=0)
    """Days that a run is kept whose release is gone."""
    run_models_days: float = Field(default=7, gt=0)
    """Days that the model files in a completed run's folder are kept."""
    logs_days: float = Field(default=30, gt=0)
    """Days that log files of commands are kept."""
    reports_days: float = Field(default=90, gt=0)
    """Days that monitoring reports are kept; the newest always is."""
    quarantine_days: float = Field(default=90, gt=0)
    """Days that quarantined rows are kept."""
    inbox_days: float = Field(default=90, gt=0)
    """Days that posted events are kept in the inbox after a refresh has added them to the lake."""
    results_days: float = Field(default=30, gt=0)
    """Days that stored results of Prefect tasks are kept."""


@dataclass(frozen=True)
class Removable:
    """A file or folder that may be removed."""

    kind: str
    path: Path
    why: str

    @property
    def size(self) -> int:
        """Size in bytes; a file with several hard links counts fully."""
        return size_of(self.path)


def removable(settings: Settings, config: RetentionConfig) -> list[Removable]:
    """Return everything that may be removed from a home."""
    kept = kept_releases(settings, config)
    return [
        *_releases(settings, kept),
        *_partial_releases(settings),
        *_runs(settings, config, kept),
        *_bentos(settings, kept),
        *_packs(settings),
        *_logs(settings, config),
        *_reports(settings, config),
        *_quarantine(settings, config),
        *_inbox(settings, config),
        *_results(settings, config),
    ]


def kept_releases(settings: Settings, config: RetentionConfig) -> dict[str, str]:
    """Return {release to keep: why}."""
    store = ReleaseStore(settings.releases)
    ids, history = store.ids(), list(store.history())
    leased = lease_holders(settings.lake)
    kept = {
        release_id: f"its run {run_id} is leased"
        for release_id in ids
        if (run_id := _run_of(store, release_id)) in leased
    }
    kept |= dict.fromkeys(ids[-config.releases :], "among the newest")
    kept |= dict.fromkeys(history[-config.promoted :], "among the newest promoted")
    answered = newest_day(response_times(settings.serving_log))
    kept |= dict.fromkeys(answered, "answered in the last day of the serving log")
    kept |= {id_: f"pinned: {pin['reason']}" for id_, pin in read_pins(settings).items()}
    kept |= {worker.release_id: f"worker {worker.name} has it" for worker in live_workers(settings)}
    if (current := store.current_id()) is not None:
        kept[current] = "served"
    return kept


def size_of(path: Path) -> int:
    """Return the total size of a file or folder in bytes; 0 if it doesn't exist."""
    if path.is_file():
        return path.stat().st_size
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:  # removed meanwhile
                continue
    return total


def _run_of(store: ReleaseStore, release_id: str) -> str | None:
    """Return the run that made a release, without verifying the release's files."""
    try:
        manifest = json.loads((store.root / release_id / "manifest.json").read_text())
        return manifest["about"]["run_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _releases(settings: Settings, kept: dict[str, str]) -> Iterator[Removable]:
    for release_id in ReleaseStore(settings.releases).ids():
        if release_id not in kept:
            yield Removable("release", settings.releases / release_id, "no rule keeps it")


def _partial_releases(settings: Settings) -> Iterator[Removable]:
    for path in settings.releases.glob(".partial-*"):
        pid = re.search(r"-(\d+)(?:-[0-9a-f]+)?$", path.name)
        if pid is None or not Path(f"/proc/{pid[1]}").exists() or _age(path) > DAY:
            yield Removable("partial release", path, "its writer died")
    for path in settings.releases.glob(".removed-*"):
        yield Removable("partial release", path, "a removal was interrupted")


def _runs(settings: Settings, config: RetentionConfig, kept: dict[str, str]) -> Iterator[Removable]:
    leased = lease_holders(settings.lake)
    store = ReleaseStore(settings.releases)
    needed = {_run_of(store, release_id) for release_id in kept}
    for path in sorted(settings.runs.glob("[!.]*")):
        age = _age(path)
        if path.name in leased or not path.is_dir():
            continue
        if path.name not in needed and age > config.runs_days * DAY:
            yield Removable("run", path, f"older than {config.runs_days:g} days")
        elif (path / "summary.json").is_file() and age > config.run_models_days * DAY:
            for name in RUN_MODELS:
                if (path / name).is_dir():
                    why = f"completed more than {config.run_models_days:g} days ago"
                    yield Removable("models of a run", path / name, why)


def _bentos(settings: Settings, kept: dict[str, str]) -> Iterator[Removable]:
    tags = {release_id.lower() for release_id in kept}
    for path in (settings.home / "bentoml" / "bentos" / "shortlist").glob("*/"):
        if path.name not in tags:
            yield Removable("Bento", path, "its release isn't kept")


def _packs(settings: Settings) -> Iterator[Removable]:
    """Yield item-feature files that no publication names; publishing removes all others itself."""
    try:
        used = {current_pack_id(settings.packs)}
        used |= set(json.loads((settings.packs / PUBLISHED).read_text()))
    except (PackError, OSError, ValueError):
        return
    used |= {worker.pack_id for worker in live_workers(settings)}
    for path in settings.packs.glob("*.parquet"):
        if path.name.split(".")[0] not in used and _age(path) > DAY:
            yield Removable("item features", path, "never published")


def _logs(settings: Settings, config: RetentionConfig) -> Iterator[Removable]:
    for path in settings.logs.rglob("*.log"):
        if _age(path) > config.logs_days * DAY:
            yield Removable("log", path, f"older than {config.logs_days:g} days")


def _reports(settings: Settings, config: RetentionConfig) -> Iterator[Removable]:
    try:
        newest = json.loads((settings.reports / "latest.json").read_text())["report"]
    except (OSError, ValueError, KeyError):
        newest = ""
    for path in settings.reports.glob("[0-9]*/"):
        if path.name not in newest and _age(path) > config.reports_days * DAY:
            yield Removable("report", path, f"older than {config.reports_days:g} days")


def _quarantine(settings: Settings, config: RetentionConfig) -> Iterator[Removable]:
    for path in settings.quarantine.glob("[!.]*/"):
        if _age(path) > config.quarantine_days * DAY:
            yield Removable("quarantine", path, f"older than {config.quarantine_days:g} days")


def _inbox(settings: Settings, config: RetentionConfig) -> Iterator[Removable]:
    """Yield files of the inbox that the lake contains; the service no longer writes to old ones."""
    sources = current_manifest(settings.lake).sources.values()
    read = {name for source in sources if "shown" in source for name in source["files"]}
    for path in settings.events.glob("date=*/*.jsonl"):
        if path.relative_to(settings.events).as_posix() not in read:
            continue
        if _age(path) > config.inbox_days * DAY:
            yield Removable("posted events", path, f"older than {config.inbox_days:g} days")


def _results(settings: Settings, config: RetentionConfig) -> Iterator[Removable]:
    for path in (settings.home / "prefect" / "storage").glob("*"):
        if path.is_file() and _age(path) > config.results_days * DAY:
            yield Removable("task result", path, f"older than {config.results_days:g} days")


def _age(path: Path) -> float:
    """Return the seconds since a file, or the newest file directly in a folder, was changed."""
    try:
        times = [path.stat().st_mtime]
        times += [inner.stat().st_mtime for inner in path.iterdir()] if path.is_dir() else []
    except FileNotFoundError:
        return 0.0
    return time.time() - max(times)
