"""Pins: releases that garbage collection never removes, with who pinned them, when and why.

`<home>/pins.json` holds {release_id: {at, user, reason}}.
"""

import json
from datetime import UTC, datetime
from typing import Any

from shortlist.config import Settings
from shortlist.files.plain_json import write_json
from shortlist.home.audit import user_name, write_audit
from shortlist.releases.release import ReleaseError, ReleaseStore

PINS = "pins.json"


def read_pins(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return {pinned release: {at, user, reason}}.

    Raises:
        ReleaseError: the file is damaged.
    """
    path = settings.home / PINS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ReleaseError(
            f"{path}: not JSON ({error}); remove it and pin the releases again"
        ) from None
    if not isinstance(content, dict):
        raise ReleaseError(f"{path}: want an object of release ids; remove it and pin again")
    return content


def pin(settings: Settings, release_id: str, *, reason: str) -> None:
    """Pin a release and record it in the audit log; a second pin replaces the reason.

    Raises:
        ReleaseError: the release doesn't exist or is damaged.
    """
    ReleaseStore(settings.releases).open(release_id)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    entry = {"at": at, "user": user_name(), "reason": reason}
    write_json(settings.home / PINS, read_pins(settings) | {release_id: entry})
    write_audit(settings, "pin", before=None, after=release_id, reason=reason)


def unpin(settings: Settings, release_id: str, *, reason: str) -> None:
    """Remove a pin and record it in the audit log.

    Raises:
        ReleaseError: the release isn't pinned.
    """
    pins = read_pins(settings)
    if release_id not in pins:
        known = ", ".join(pins) or "none"
        raise ReleaseError(f"{settings.home / PINS}: {release_id} isn't pinned; pinned: {known}")
    before = pins.pop(release_id)
    write_json(settings.home / PINS, pins)
    evidence = {"pin": before}
    write_audit(settings, "unpin", before=release_id, after="", reason=reason, evidence=evidence)
