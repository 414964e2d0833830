"""Rollback: the release before the current one serves again."""

from typing import Any

from flows.releases.acknowledge import wait_for_workers
from shortlist.audit import write_audit
from shortlist.config import Settings
from shortlist.home_lock import home_lock
from shortlist.release import ReleaseStore

LOCK_SECONDS = 60
"""How long to wait for another promotion or rollback: each takes the time of verifying a release.
"""


def roll_back(settings: Settings, *, reason: str) -> dict[str, Any]:
    """Move the pointer back and wait until the workers follow.

    Raises:
        ReleaseError: there is none before, or it no longer verifies.
        HomeLocked: another promotion or rollback did not end.
    """
    store = ReleaseStore(settings.releases)
    with home_lock(settings, "release", what="shortlist rollback", wait_seconds=LOCK_SECONDS):
        before = store.current_id()
        release_id = store.roll_back()
        write_audit(settings, "rollback", before=before, after=release_id, reason=reason)
    return {"serving": release_id, "before": before} | wait_for_workers(settings, release_id)
