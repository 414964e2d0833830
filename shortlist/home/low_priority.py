"""Lets a refresh yield the processor to a service on the same machine.

Without this, the refresh's DuckDB queries and imports use all cores. Requests then wait for a core
for tens of milliseconds.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from shortlist.config import Settings
from shortlist.home.workers import live_workers

NICE = 15
"""Niceness beside a service; processes start with 0. The kernel prefers lower values."""


def serves_here(settings: Settings) -> bool:
    """Return whether a worker of the home's service is alive on this machine."""
    host = socket.gethostname()
    return any(worker.host == host for worker in live_workers(settings))


@contextlib.contextmanager
def yielding_to_service(settings: Settings) -> Iterator[bool]:
    """Run the block with low priority, on half of the cores, if a service runs on this machine.

    DuckDB and BLAS start as many threads as the process has cores. Does nothing if the setting
    `gentle_refresh` is off, and on other systems than Linux.

    Yields:
        Whether the block runs with low priority.
    """
    if not settings.gentle_refresh or not hasattr(os, "sched_setaffinity"):
        yield False
        return
    if os.getpriority(os.PRIO_PROCESS, 0) >= NICE:  # inside such a block, or started by `nice`
        yield True
        return
    if not serves_here(settings):
        yield False
        return
    cores = os.sched_getaffinity(0)
    few = set(sorted(cores)[-max(1, len(cores) // 2) :])
    before = {thread: os.getpriority(os.PRIO_PROCESS, thread) for thread in _threads()}
    for thread, niceness in before.items():
        _set(thread, niceness=max(niceness, NICE), cores=few)
    try:
        yield True
    finally:
        for thread in _threads():
            _set(thread, niceness=before.get(thread, 0), cores=cores)


def _threads() -> list[int]:
    """Return the ids of this process's threads; Linux keeps priority and cores per thread."""
    return [int(path.name) for path in Path("/proc/self/task").iterdir()]


def _set(thread: int, *, niceness: int, cores: set[int]) -> None:
    """Set priority and cores of a thread; a thread that has ended is ignored.

    Only root may raise the priority again. Other users keep the low one until the process ends.
    """
    with contextlib.suppress(OSError):
        os.sched_setaffinity(thread, cores)
        os.setpriority(os.PRIO_PROCESS, thread, niceness)
