"""Upgrade: rebuilds features and release for this version of the code, then switches to them.

A home is the folder SHORTLIST_HOME of one deployment.

    <home>/upgrade/          separate home for the build; it shares the lake's files by hard links
    <home>/before-upgrade/   the features that were served before the last upgrade

During the build the earlier version can keep serving. The switch renames folders, promotes the new
release and runs a refresh, which ingests events posted meanwhile. After a crash the switch can be
repeated.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.featurize import featurize
from flows.refresh import refresh
from flows.runtime.configuration import RunConfig
from flows.training.release import at_home, train_release
from shortlist.config import Settings
from shortlist.feature_store import OfflineReader, latest_pack
from shortlist.feature_store.store import FeatureStoreError
from shortlist.features.finalize import schema_hash
from shortlist.features.pack import PackError
from shortlist.files.plain_json import write_json
from shortlist.home.audit import write_audit
from shortlist.home.home_lock import REFRESH_WAIT, home_lock
from shortlist.home.workers import live_workers
from shortlist.releases.promotion import LOCK_SECONDS
from shortlist.releases.release import ReleaseError, ReleaseStore

REPLACED = ("features", "feast", "packs")
READY = "ready.json"


class UpgradeError(RuntimeError):
    """The upgrade can't continue; the earlier version can keep serving."""


def upgrade(settings: Settings, config: RunConfig) -> dict[str, Any]:
    """Upgrade a home to this version, if necessary.

    Returns:
        {"outdated": reasons for the upgrade, "release_id": the release to serve, "trained": whether
        the upgrade trained it, "switched": False if the service must be stopped first}.

    Raises:
        UpgradeError: the new release failed a gate, or another release was promoted meanwhile.
            Nothing was changed.
    """
    staged = settings.model_copy(
        update={"home": settings.home / "upgrade", "online_store": "sqlite"}
    )
    ready = staged.home / READY
    if built_now := not _is_ready(ready):
        outdated = find_outdated(settings)
        if not outdated:
            serving = ReleaseStore(settings.releases).current_id()
            return {"outdated": [], "release_id": serving, "trained": False, "switched": True}
        for reason in outdated:
            print(f"upgrade: {reason}")
        with home_lock(settings, "train", what="shortlist upgrade"):
            built = build(settings, staged, config)
        write_json(ready, {"schema": schema_hash(), "outdated": outdated} | built)
    done = require_champion(settings, staged)
    result = {
        "outdated": done["outdated"],
        "release_id": done["release_id"] or ReleaseStore(settings.releases).current_id(),
        "trained": done["release_id"] is not None,
    }
    # Services of versions without heartbeats can't be detected. Without any heartbeat folder the
    # switch therefore waits for a second call of this command.
    unseen = built_now and not (settings.home / "workers").is_dir()
    if (workers := live_workers(settings)) or unseen:
        names = ", ".join(worker.name for worker in workers) or "if one runs"
        print(
            f"upgrade: everything is built in {staged.home}. Stop the service ({names}), run"
            " `shortlist upgrade` again for the switch, and start the service with this version"
        )
        return result | {"switched": False}
    switch(settings, staged, config)
    return result | {"switched": True}


def find_outdated(settings: Settings) -> list[str]:
    """Return the reasons why this version can't serve the home's features and release, or [].

    Raises:
        ReleaseError: a release was changed or is incomplete.
    """
    reasons = []
    states = settings.features / "manifest.json"
    if states.is_file() and (schema := json.loads(states.read_text())["schema"]) != schema_hash():
        reasons.append(f"states have feature schema {schema}, this version has {schema_hash()}")
    try:
        latest_pack(settings.packs)
    except PackError as error:
        reasons.append(f"item features: {error}")
    return [*reasons, *_unservable(settings)]


def _unservable(settings: Settings) -> list[str]:
    """Return the reasons why the promoted release can't be loaded; [] if there are none."""
    store = ReleaseStore(settings.releases)
    if store.current_id() is None:
        return []
    release = store.open()
    try:
        from models.recommend.recommender import Recommender

        Recommender.load(release, OfflineReader(settings), pack=latest_pack(settings.packs))
    except (PackError, FeatureStoreError):  # features aren't built yet: compare only the schema
        if release.about["feature_schema"] == schema_hash():
            return []
        return [
            f"release {release.release_id} has feature schema {release.about['feature_schema']}"
        ]
    except (ReleaseError, ValidationError, KeyError) as error:
        return [f"release {release.release_id}: {error}"]
    return []


def build(settings: Settings, staged: Settings, config: RunConfig) -> dict[str, Any]:
    """Build features, and a release if the promoted one can't be loaded, in the home `staged`.

    Returns:
        {"champion": the serving release, "release_id": the new one or None if the champion stays,
        "spent": the loss budget used after the new release's promotion}.
    """
    shutil.rmtree(staged.home, ignore_errors=True)
    staged.home.mkdir(parents=True)
    with home_lock(settings, "refresh", what="shortlist upgrade", wait_seconds=REFRESH_WAIT):
        _link(settings.lake, staged.lake)
        until = _built_until(settings, config)
    with home_lock(settings, "release", what="shortlist upgrade", wait_seconds=LOCK_SECONDS):
        _link(settings.releases, staged.releases)
    settings.cache.mkdir(exist_ok=True)
    staged.cache.symlink_to(settings.cache.absolute())
    with at_home(staged.home):
        data = config.data
        featurize(staged, data.target_events, until=until, tick=config.tick, lists=data.lists)
        store = ReleaseStore(staged.releases)
        champion = store.current_id()
        release_id = train_anew(staged, config) if _unservable(staged) else None
        spent = store.history().get(release_id or "", 0.0)
    return {"champion": champion, "release_id": release_id, "spent": spent}


def _link(source: Path, target: Path) -> None:
    """Copy a folder by hard links. This is safe, as files of lakes and releases never change."""
    if source.is_dir():
        shutil.copytree(
            source,
            target,
            symlinks=True,
            copy_function=os.link,
            ignore=shutil.ignore_patterns(".lock", "leases", "incoming"),
        )


def _built_until(settings: Settings, config: RunConfig) -> int:
    """Return the time in microseconds up to which the home's feature states contain all events.

    Without states, this is the time of the home's clock.
    """
    try:
        return int(json.loads((settings.features / "manifest.json").read_text())["until"])
    except FileNotFoundError:
        return config.clock(settings).now()


def train_anew(staged: Settings, config: RunConfig) -> str:
    """Train a release in the staged home and judge it by the gates; return its id.

    Raises:
        UpgradeError: it failed a gate.
    """
    _, promoted = train_release(staged, config)
    release_id = promoted["release_id"]
    if not promoted["promoted"]:
        failed = "; ".join(g["reason"] for g in promoted["gates"] if not g["passed"])
        raise UpgradeError(
            f"release {release_id}, trained by this version, didn't pass a gate: {failed}. Nothing"
            " was changed: the earlier version can keep serving"
        )
    return release_id


def require_champion(settings: Settings, staged: Settings) -> dict[str, Any]:
    """Read the result of the build, and check that no other release was promoted since.

    Raises:
        UpgradeError: another release was promoted. The next upgrade builds again.
    """
    ready = staged.home / READY
    built = json.loads(ready.read_text())
    serving = ReleaseStore(settings.releases).current_id()
    if serving not in (built["champion"], built["release_id"]):
        ready.unlink()
        raise UpgradeError(
            f"release {serving} serves now, but during the upgrade's build"
            f" {built['champion'] or 'no release'} served and was compared with the new release."
            " Nothing was changed: run `shortlist upgrade` again while the earlier version serves;"
            " it repeats the build"
        )
    return built


def switch(settings: Settings, staged: Settings, config: RunConfig) -> None:
    """Move the built features and release into the home, then refresh. No service may run.

    Each folder is moved once, so an interrupted switch can be completed by the next call.

    Raises:
        UpgradeError: as for `require_champion`.
    """
    before = settings.home / "before-upgrade"
    with (
        home_lock(settings, "refresh", what="shortlist upgrade", wait_seconds=REFRESH_WAIT),
        home_lock(settings, "release", what="shortlist upgrade", wait_seconds=LOCK_SECONDS),
    ):
        built = require_champion(settings, staged)
        if all((staged.home / name).exists() for name in REPLACED):
            shutil.rmtree(before, ignore_errors=True)
        before.mkdir(exist_ok=True)
        for name in REPLACED:
            new, live = staged.home / name, settings.home / name
            if new.exists():
                if live.exists():
                    live.rename(before / name)
                new.rename(live)
        if built["release_id"] is not None:
            take_release(settings, staged, built["release_id"], spent=built["spent"])
        refresh(settings, config)
    shutil.rmtree(staged.home)
    print(f"upgrade: done; the previous features are in {before}")


def take_release(settings: Settings, staged: Settings, release_id: str, *, spent: float) -> None:
    """Move the new release and its run into the home, and promote the release.

    Args:
        spent: loss budget used after this promotion.
    """
    store = ReleaseStore(settings.releases)
    if (staged.releases / release_id).exists():
        (staged.releases / release_id).rename(settings.releases / release_id)
    if staged.runs.exists():
        settings.runs.mkdir(exist_ok=True)
        for run in staged.runs.iterdir():
            run.rename(settings.runs / run.name)
    serving = store.current_id()
    if serving != release_id:
        store.promote(release_id, spent=spent)
        reason = "made by another version of the code"
        write_audit(settings, "upgrade", before=serving, after=release_id, reason=reason)


def _is_ready(path: Path) -> bool:
    """Return whether an earlier call has completed the build for this version."""
    try:
        built = json.loads(path.read_text())
        return "champion" in built and built["schema"] == schema_hash()
    except (FileNotFoundError, ValueError, KeyError):
        return False
