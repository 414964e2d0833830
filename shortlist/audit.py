"""Audit log: one JSON line in `<home>/audit.jsonl` for each change of the serving release, and for
each action of a guardrail.

A home is the folder SHORTLIST_HOME of a deployment.
"""

import getpass
import json
import os
import socket
from datetime import UTC, datetime
from typing import Any

from shortlist.config import Settings
from shortlist.plain_json import finite


def write_audit(
    settings: Settings,
    command: str,
    *,
    before: str | None,
    after: str | None,
    reason: str,
    evidence: dict[str, Any] | None = None,
) -> None:
    """Append one line {at, user, host, pid, command, from, to, reason} and flush it to disk.

    Args:
        evidence: figures that led to an action; stored as the key `evidence`.
    """
    line = {
        "at": datetime.now(UTC).isoformat(),
        "user": user_name(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "command": command,
        "from": before,
        "to": after,
        "reason": reason,
    }
    if evidence is not None:
        line["evidence"] = finite(evidence)
    with (settings.home / "audit.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_audit(settings: Settings) -> list[dict[str, Any]]:
    """Return all recorded changes, oldest first. An incomplete last line is skipped."""
    path = settings.home / "audit.jsonl"
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def user_name() -> str:
    """Return the name of the user who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container the user id may have no name
        return str(os.getuid())
