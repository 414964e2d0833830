"""Waits until the workers of the service serve a promoted release."""

import time
from typing import Any

from shortlist.config import Settings
from shortlist.home.workers import Worker, live_workers
from shortlist.releases.release import ReleaseStore

WAIT_SECONDS = 30.0
POLL_SECONDS = 0.1


def wait_for_workers(
    settings: Settings, release_id: str, *, wait_seconds: float = WAIT_SECONDS
) -> dict[str, list[Any]]:
    """Wait until all live workers serve `release_id`, and print which ones don't.

    Pinned workers (which serve one fixed release) are ignored. Waiting ends early in three cases:
    every worker serves or has refused the release, there is no worker, or the pointer was set to
    another release.

    Returns:
        {"workers": names of those that serve it, "lagging": [{"worker", "release_id", "reason"}]}.
    """
    store = ReleaseStore(settings.releases)
    deadline = time.monotonic() + wait_seconds
    while True:
        workers = [worker for worker in live_workers(settings) if not worker.pinned]
        lagging = [worker for worker in workers if worker.release_id != release_id]
        waited_for = [worker for worker in lagging if not _has_refused(worker, release_id)]
        late = time.monotonic() >= deadline
        if not waited_for or late or store.current_id() != release_id:
            break
        time.sleep(POLL_SECONDS)
    for worker in lagging:
        print(
            f"warning: worker {worker.name} still serves {worker.release_id}:"
            f" {_reason(worker, release_id, wait_seconds)}"
        )
    serving = [worker.name for worker in workers if worker.release_id == release_id]
    if serving:
        print(f"{len(serving)} of {len(workers)} workers serve {release_id}")
    return {
        "workers": serving,
        "lagging": [
            {
                "worker": worker.name,
                "release_id": worker.release_id,
                "reason": _reason(worker, release_id, wait_seconds),
            }
            for worker in lagging
        ],
    }


def _has_refused(worker: Worker, release_id: str) -> bool:
    return worker.refused is not None and worker.refused.release_id == release_id


def _reason(worker: Worker, release_id: str, waited: float) -> str:
    if worker.refused is not None and _has_refused(worker, release_id):
        return f"refused: {worker.refused.reason}"
    return f"not swapped within {waited:g} s, or another release was promoted meanwhile"
