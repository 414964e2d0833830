"""Leases: protect a snapshot of the lake from removal by later commits while a run reads it.

    lake/leases/<run_id>.json    {"version": n, "pid": process, "host": machine, "since": seconds}

The holder of a lease is a training run or a skew check. It ends its lease when it finishes. If its
process died, the lease remains for LEASE_DAYS so that a run can be resumed.
"""

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from shortlist.files.plain_json import write_json

LEASE_DAYS = 7


def take_lease(root: Path, holder: str, *, version: int) -> None:
    """Protect the snapshot `version` until `end_lease`. A repeated call renews the lease."""
    folder = root / "leases"
    folder.mkdir(parents=True, exist_ok=True)
    lease = {
        "version": version,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": int(time.time()),
    }
    write_json(folder / f"{holder}.json", lease)


def end_lease(root: Path, holder: str) -> None:
    """Remove the lease of `holder`, if there is one."""
    (root / "leases" / f"{holder}.json").unlink(missing_ok=True)


def leased_versions(root: Path) -> set[int]:
    """Return the versions of all leased snapshots. Expired leases are removed."""
    return set(_leases(root).values())


def lease_holders(root: Path) -> set[str]:
    """Return the ids of all holders of a lease. Expired leases are removed."""
    return set(_leases(root))


def dead_holders(root: Path) -> set[str]:
    """Return the ids of holders on this machine whose process died without ending its lease."""
    return {
        holder
        for holder, lease in _read(root).items()
        if lease["host"] == socket.gethostname() and not _alive(lease)
    }


def held_by_another(root: Path, holder: str) -> bool:
    """Return whether the lease of `holder` was taken by another process that is still running."""
    lease = _read(root).get(holder)
    if lease is None:
        return False
    is_this_process = (lease["host"], lease["pid"]) == (socket.gethostname(), os.getpid())
    return not is_this_process and _alive(lease)


def _leases(root: Path) -> dict[str, int]:
    leases = {}
    for holder, lease in _read(root).items():
        old = time.time() - lease["since"] > LEASE_DAYS * 86_400
        if old and not _alive(lease):
            end_lease(root, holder)
        else:
            leases[holder] = int(lease["version"])
    return leases


def _read(root: Path) -> dict[str, dict[str, Any]]:
    """Return all lease files, as {holder: lease}."""
    found = {}
    for path in (root / "leases").glob("[!.]*.json"):
        with suppress(FileNotFoundError):  # the run ended its lease meanwhile
            found[path.stem] = json.loads(path.read_text())
    return found


def _alive(lease: dict[str, Any]) -> bool:
    if lease["host"] != socket.gethostname():
        return False
    try:
        os.kill(int(lease["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
