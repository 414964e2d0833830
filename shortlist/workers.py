"""Heartbeats: each worker of the service says every few seconds which release it serves.

`<home>/workers/<pid>-<start>.json` holds {pid, host, release_id, pack_id, pinned, refused, at}. A
promotion reads them to wait until every worker serves what was promoted.
"""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shortlist.config import Settings
from shortlist.plain_json import write_json

STALE = 15_000_000
"""Microseconds after which a heartbeat counts as that of a worker that is gone."""


@dataclass(frozen=True)
class Refused:
    """A promoted release that a worker could not load; it goes on with the one before."""

    release_id: str
    reason: str


@dataclass(frozen=True)
class Worker:
    """What one process of the service serves."""

    pid: int
    host: str
    release_id: str
    pack_id: str
    pinned: bool
    """Serves one release whatever is promoted: SHORTLIST_RELEASE or a Bento's own."""
    refused: Refused | None
    at: int  # microseconds of the wall clock

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
        """Write what is served now, by an atomic replace."""
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
        """The worker stops serving."""
        self._path.unlink(missing_ok=True)


def live_workers(settings: Settings) -> list[Worker]:
    """Workers whose heartbeat is fresh and whose process exists, if it is one of this host.

    Heartbeats of others are removed.
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
    """None if the file was removed meanwhile or is not a heartbeat of this version."""
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
    except PermissionError:  # it exists and belongs to another user
        return True
    return True
