"""Heartbeats: each service worker writes the release it serves to a file every few seconds.

`<home>/workers/<pid>-<start>.json` holds {pid, host, release_id, pack_id, pinned, refused, at}. A
promotion reads these files to wait until every worker serves the promoted release.
"""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shortlist.config import Settings
from shortlist.files.plain_json import write_json

STALE = 15_000_000
"""Age in microseconds of a heartbeat after which its worker counts as stopped."""


@dataclass(frozen=True)
class Refused:
    """A promoted release that a worker could not load; it keeps serving the previous one."""

    release_id: str
    reason: str


@dataclass(frozen=True)
class Worker:
    """A service process, with the release and feature pack that it serves."""

    pid: int
    host: str
    release_id: str
    pack_id: str
    pinned: bool
    """True if the release is fixed by SHORTLIST_RELEASE or a Bento, so promotions are ignored."""
    refused: Refused | None
    at: int  # time of the heartbeat: microseconds of the wall clock

    @property
    def name(self) -> str:
        return f"{self.host}:{self.pid}"


class Heartbeat:
    """The heartbeat file of this process."""

    def __init__(self, settings: Settings):
        self._path = settings.home / "workers" / f"{os.getpid()}-{time.time_ns()}.json"

    def beat(
        self, *, release_id: str, pack_id: str, pinned: bool, refused: Refused | None = None
    ) -> None:
        """Write the served release and pack by an atomic replace."""
        worker = Worker(
            pid=os.getpid(),
            host=socket.gethostname(),
            release_id=release_id,
            pack_id=pack_id,
            pinned=pinned,
            refused=refused,
            at=time.time_ns() // 1_000,
        )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._path, asdict(worker))

    def remove(self) -> None:
        """Delete the heartbeat file when the worker stops."""
        self._path.unlink(missing_ok=True)


def live_workers(settings: Settings) -> list[Worker]:
    """Return the workers that are alive; remove the heartbeat files of all others.

    A worker is alive if its heartbeat is recent and, if it runs on this host, its process exists.
    """
    found = []
    for path in sorted((settings.home / "workers").glob("[!.]*.json")):
        worker = _read(path)
        if worker is not None and _is_alive(worker):
            found.append(worker)
        else:
            path.unlink(missing_ok=True)
    return found


def _read(path: Path) -> Worker | None:
    """Read a heartbeat; None if the file was removed meanwhile or has another format."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        refused = content.pop("refused")
        return Worker(**content, refused=refused and Refused(**refused))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_alive(worker: Worker) -> bool:
    if time.time_ns() // 1_000 - worker.at > STALE:
        return False
    if worker.host != socket.gethostname():
        return True
    try:
        os.kill(worker.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # the process exists but belongs to another user
        return True
    return True
