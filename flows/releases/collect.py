"""Garbage collection: removes what the retention rules allow, and records it in the audit log."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from flows.releases.retention import Removable, RetentionConfig, kept_releases, removable, size_of
from shortlist.config import Settings
from shortlist.home.audit import write_audit
from shortlist.home.home_lock import home_lock
from shortlist.releases.promotion import LOCK_SECONDS
from shortlist.releases.release import ReleaseStore

PARTS = {
    "lake": "lake",
    "quarantine": "quarantine",
    "states": "features",
    "online store": "feast",
    "item features": "packs",
    "posted events": "events",
    "serving log": "serving_log",
    "answer log": "answer_log",
    "runs": "runs",
    "releases": "releases",
    "Bentos": "bentoml",
    "reports": "reports",
    "validation results": "great_expectations",
    "logs": "logs",
    "Prefect": "prefect",
    "downloads": "cache",
    "forgotten people": "forgotten",
}
"""Name -> folder in the home, for `sizes`."""


def collect_garbage(
    settings: Settings, config: RetentionConfig, *, dry_run: bool = False
) -> dict[str, Any]:
    """Remove what the retention rules allow.

    The lock of the release pointer is held, so no promotion happens meanwhile.

    Args:
        dry_run: remove nothing, and only return what would be removed.

    Returns:
        {"removed": [{"what", "path", "bytes", "why"}], "bytes": sum, "kept": {release: why}}.
    """
    what = "shortlist releases gc"
    with home_lock(settings, "release", what=what, wait_seconds=LOCK_SECONDS):
        found = removable(settings, config)
        removed = [
            {
                "what": candidate.kind,
                "path": str(candidate.path),
                "bytes": candidate.size,
                "why": candidate.why,
            }
            for candidate in found
        ]
        if not dry_run:
            for entry in found:
                remove(settings, entry)
            if found:
                counts = dict(Counter(file.kind for file in found))
                write_audit(
                    settings,
                    "gc",
                    before=None,
                    after="",
                    reason="retention rules",
                    evidence={"removed": counts, "rules": config.model_dump()},
                )
        kept = kept_releases(settings, config)
    return {
        "removed": removed,
        "bytes": sum(entry["bytes"] for entry in removed),
        "kept": dict(sorted(kept.items())),
        "dry_run": dry_run,
    }


def remove(settings: Settings, file: Removable) -> None:
    """Remove a file or folder; a release disappears at once, by a rename, before it is deleted."""
    path = file.path
    if file.kind == "release":
        ReleaseStore(settings.releases).forget(path.name)
        path = path.rename(path.with_name(f".removed-{path.name}"))
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sizes(settings: Settings) -> dict[str, int]:
    """Return {part of the home: bytes}, largest first; parts that don't exist are left out."""
    found = {name: size_of(Path(settings.home / folder)) for name, folder in PARTS.items()}
    return dict(sorted(((k, v) for k, v in found.items() if v), key=lambda part: -part[1]))
