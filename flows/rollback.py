"""Rollback: sets the release pointer back to the previously promoted release."""

from typing import Any

from flows.releases.acknowledge import wait_for_workers
from shortlist.audit import write_audit
from shortlist.config import Settings
from shortlist.home_lock import home_lock
from shortlist.release import ReleaseStore

LOCK_SECONDS = 60
"""How long to wait for another promotion or rollback. One takes as long as verifying a release."""


def roll_back(settings: Settings, *, reason: str) -> dict[str, Any]:
    """Set the pointer to the previous release and wait until the workers serve it.

    Args:
        reason: text for the audit log.

    Raises:
        ReleaseError: there is no previous release, or its verification fails.
        HomeLocked: another promotion or rollback did not end within LOCK_SECONDS.
    """
    store = ReleaseStore(settings.releases)
    with home_lock(settings, "release", what="shortlist rollback", wait_seconds=LOCK_SECONDS):
        before = store.current_id()
        release_id = store.roll_back()
        write_audit(settings, "rollback", before=before, after=release_id, reason=reason)
    return {"serving": release_id, "before": before} | wait_for_workers(settings, release_id)
