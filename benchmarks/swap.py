"""`shortlist bench swap`: response times while releases (sets of models) are swapped.

Serves a copy of SHORTLIST_HOME's promoted release with two workers. Clients send requests
continuously: first without any change, then while releases are repeatedly promoted and rolled back.
"""

import argparse
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks._result import about_machine, report
from flows.releases.acknowledge import wait_for_workers
from flows.releases.service_process import running_service
from flows.rollback import roll_back
from shortlist.config import Settings
from shortlist.home.workers import live_workers
from shortlist.http.api import RecommendRequest
from shortlist.http.client import ShortlistClient
from shortlist.lake import Lake
from shortlist.releases.release import ReleaseStore

SERVED = ("lake", "releases", "packs", "feast", "features")
"""Folders of a home that a service reads."""
CLIENTS = 3
"""Number of clients that send requests at the same time."""
SETTLE = 0.5
"""Seconds after a swap until memory is read; by then the workers have dropped the old release."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        for name in SERVED:
            shutil.copytree(Settings().home / name, home / name, symlinks=True)
        settings = Settings(home=home, clock="replay")
        another = publish_again(settings)
        os.environ |= {"SHORTLIST_HOME": str(home), "SHORTLIST_WORKERS": str(arguments.workers)}
        with running_service(log=home / "service.log", clock="replay") as url:
            while len(live_workers(settings)) < arguments.workers:
                time.sleep(0.2)
            figures = measure(settings, url, another, swaps=arguments.swaps)
    command = f"shortlist bench swap --swaps {arguments.swaps} --workers {arguments.workers}"
    report({"command": command, **about_machine(), **figures}, arguments.out)


def publish_again(settings: Settings) -> str:
    """Publish a second release with the same models; return its id."""
    store = ReleaseStore(settings.releases)
    first = store.open()
    with store.publishing(first.about | {"note": "published again"}) as (folder, about):
        for name in first.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(first.file(name), folder / name)
    return about["release_id"]


def measure(settings: Settings, url: str, another: str, *, swaps: int) -> dict[str, Any]:
    """Measure response times, failed requests and memory, without and with swaps.

    Args:
        another: id of the release to swap in.
    """
    store = ReleaseStore(settings.releases)
    week = Lake(settings.lake).interactions()
    users = sorted(set(week.column("user_id").to_pylist()))[:200]
    processes = [psutil.Process(worker.pid) for worker in live_workers(settings)]
    calm, _ = ask_while(url, users, lambda: time.sleep(30), processes)
    steady = max(process.memory_info().rss for process in processes)
    seconds: list[float] = []
    sizes: list[int] = []  # of the largest worker after each swap

    def swap_all() -> None:
        for number in range(swaps):
            started = time.perf_counter()
            if number % 2:
                roll_back(settings, reason="benchmark")
            else:
                store.promote(another)
                wait_for_workers(settings, another)
            seconds.append(time.perf_counter() - started)
            time.sleep(SETTLE)
            sizes.append(max(process.memory_info().rss for process in processes))

    busy, peak = ask_while(url, users, swap_all, processes)
    return {
        "clients": CLIENTS,
        "without_swaps": calm,
        "during_swaps": busy,
        "p99_ratio": round(busy["p99_ms"] / calm["p99_ms"], 2),
        "seconds_until_every_worker_followed": {
            "p50": round(float(np.median(seconds)), 2),
            "max": round(max(seconds), 2),
        },
        "memory": {
            "steady_gb": round(steady / 1e9, 3),
            "peak_ratio": round(peak / steady, 2),
            "end_over_tenth_swap": round(sizes[-1] / sizes[9], 3) if swaps > 10 else None,
        },
    }


def ask_while(
    url: str, users: list[str], work: Any, processes: list[psutil.Process]
) -> tuple[dict[str, Any], int]:
    """Send requests with all clients while `work` runs.

    Returns:
        Response times and failures, and the peak memory of the largest worker in bytes.
    """
    over = threading.Event()
    milliseconds: list[float] = []
    failed: list[str] = []

    def ask(number: int) -> None:
        with ShortlistClient(url) as client:
            turn = number
            while not over.is_set():
                started = time.perf_counter()
                try:
                    client.recommend(RecommendRequest(user_id=users[turn % len(users)], k=10))
                except Exception as error:
                    failed.append(repr(error))
                milliseconds.append((time.perf_counter() - started) * 1_000)
                turn += CLIENTS

    peak = 0
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
    worker = threading.Thread(target=work)
    for thread in (*threads, worker):
        thread.start()
    while worker.is_alive():
        peak = max(peak, *(process.memory_info().rss for process in processes))
        time.sleep(0.05)
    over.set()
    for thread in threads:
        thread.join()
    figures: dict[str, Any] = {"requests": len(milliseconds), "failed": len(failed)}
    figures |= {f"p{p}_ms": round(float(np.percentile(milliseconds, p)), 1) for p in (50, 95, 99)}
    return figures | {"max_ms": round(max(milliseconds), 1)}, peak


if __name__ == "__main__":
    main()
