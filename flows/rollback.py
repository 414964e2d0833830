"""Rollback: sets the release pointer back to the previously promoted release."""

from typing import Any

from flows.releases.acknowledge import wait_for_workers
from shortlist.config import Settings
from shortlist.releases.promotion import roll_back_release


def roll_back(settings: Settings, *, reason: str) -> dict[str, Any]:
    """Set the pointer to the previous release and wait until the workers serve it.

    Args:
        reason: text for the audit log.

    Raises:
        ReleaseError: there is no previous release, or its verification fails.
        HomeLocked: another promotion or rollback did not end within LOCK_SECONDS.
    """
    before, release_id = roll_back_release(settings, what="shortlist rollback", reason=reason)
    return {"serving": release_id, "before": before} | wait_for_workers(settings, release_id)
