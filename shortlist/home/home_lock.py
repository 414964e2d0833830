"""Exclusive locks of a home (the folder SHORTLIST_HOME).

At any time only one process refreshes, one trains, and one changes the serving release.

    with home_lock(settings, "refresh", what="shortlist refresh", wait_seconds=600):
        ...

`<home>/locks/<name>.lock` is locked with flock, so the lock is released when its process ends for
any reason. The file's content {pid, host, since, what} is used only in error messages. Prefect's
concurrency limits are not sufficient, because runs from the command line use another Prefect
server.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from shortlist.config import Settings

LockName = Literal["refresh", "train", "release", "act"]
"""`refresh` protects what a refresh writes: lake, feature states, online store and item features.
`train` protects a training run, `release` the pointer to the serving release, `act` alarms and
holds.
"""
REFRESH_WAIT = 600
"""Seconds to wait for a running refresh, which takes minutes at most."""
POLL_SECONDS = 0.1

_held: ContextVar[frozenset[Path]] = ContextVar("held_home_locks", default=frozenset())


class HomeLocked(RuntimeError):
    """Another process or thread holds the lock; the message gives the holder, its start and job."""


@contextmanager
def home_lock(
    settings: Settings, name: LockName, *, what: str | None = None, wait_seconds: float = 0
) -> Iterator[None]:
    """Hold a lock of the home until the block or the process ends.

    The lock is reentrant within a thread: a refresh holds it while its ingest step takes it again.

    Args:
        what: description of the job for the error message of other processes; default: the lock's
            name.
        wait_seconds: time to wait for another holder.

    Raises:
        HomeLocked: another process or thread still holds the lock after `wait_seconds`.
    """
    path = settings.home.absolute() / "locks" / f"{name}.lock"
    if path in _held.get():
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        _acquire(file.fileno(), path, name, wait_seconds)
        token = _held.set(_held.get() | {path})
        try:
            _write_holder(path, what or name)
            yield
        finally:
            _held.reset(token)
            fcntl.flock(file, fcntl.LOCK_UN)  # explicit: a forked child may have the file open


def _acquire(descriptor: int, path: Path, name: LockName, wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise HomeLocked(_refusal(path, name, wait_seconds)) from None
            time.sleep(min(POLL_SECONDS, max(deadline - time.monotonic(), 0.001)))


def _write_holder(path: Path, what: str) -> None:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "what": what}
    path.write_text(json.dumps(holder) + "\n")


def _refusal(path: Path, name: LockName, waited: float) -> str:
    try:
        holder = json.loads(path.read_text())
        who = (
            f"process {holder['pid']} on {holder['host']} since {holder['since']}"
            f" ({holder['what']})"
        )
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"  # the holder has not written the file yet
    after = f" after {waited:g} s" if waited else ""
    return f"{path}: '{name}' is still held{after} by {who}; wait until it has finished, or stop it"


def held_locks(settings: Settings) -> list[dict[str, Any]]:
    """Return the locks that processes of this machine hold: [{"name", "pid", "since", "what"}].

    Trying a lock could make another process fail, so Linux's table of locks is read instead.
    Elsewhere the list is empty.
    """
    try:
        table = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    inodes = {line.split()[5].split(":")[-1] for line in table if " FLOCK " in line}
    found = []
    for path in sorted((settings.home / "locks").glob("*.lock")):
        if str(path.stat().st_ino) in inodes:
            try:
                holder = json.loads(path.read_text())
            except ValueError:  # the holder is writing the file
                holder = {}
            found.append({"name": path.stem} | holder)
    return found
