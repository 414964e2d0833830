"""Audit log: one JSON line in `<home>/audit.jsonl` for each change of releases and each action of a
guardrail: who, when, why.

A home is the folder SHORTLIST_HOME of a deployment.
"""

import getpass
import json
import os
import socket
from datetime import UTC, datetime
from typing import Any

from shortlist.config import Settings
from shortlist.files.plain_json import dumps


def write_audit(
    settings: Settings,
    command: str,
    *,
    before: str | None,
    after: str | None,
    reason: str,
    evidence: dict[str, Any] | None = None,
) -> None:
    """Append one line {at, user, host, pid, command, from, to, reason, evidence} to the log.

    It is flushed to disk.

    Args:
        evidence: what the decision was based on, such as the verdicts of the gates.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    line = {
        "at": datetime.now(UTC).isoformat(),
        "user": user_name(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "command": command,
        "from": before,
        "to": after,
        "reason": reason,
        "evidence": evidence or {},
    }
    with (settings.home / "audit.jsonl").open("a", encoding="utf-8") as file:
        file.write(dumps(line) + "\n")
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
    """Return the name of the process's user, or the user id if it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container the user id may have no name
        return str(os.getuid())
