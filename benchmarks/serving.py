"""`shortlist bench serving`: end-to-end load test of the service.

Two loads run one after the other, from a client on the same machine. The open loop sends requests
at a fixed rate regardless of responses; its latency is what users see. In the closed loop, each
connection sends the next request right after a response; it measures saturation. Needs a promoted
release.
"""

import argparse
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._result import about_machine, report
from flows.releases.service_process import running_service
from shortlist import columns as c
from shortlist.api import RecommendRequest
from shortlist.client import ShortlistClient
from shortlist.config import Settings
from shortlist.lake import Lake


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=50.0, help="requests/s of the open loop")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each load")
    parser.add_argument("--connections", type=int, default=8, help="of the closed loop")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    settings = Settings()
    users = Lake(settings.lake).users().column(c.USER_ID).to_pylist()
    with running_service(log=settings.home / "bench-service.log", clock="replay") as url:
        with ShortlistClient(url) as client:
            readiness = client.ready()
            for user in users[:50]:
                client.recommend(RecommendRequest(user_id=user))
        opened = open_loop(url, users, rate=arguments.rate, seconds=arguments.seconds)
        closed = closed_loop(
            url, users, connections=arguments.connections, seconds=arguments.seconds
        )
    result = {
        "command": "shortlist bench serving",
        **about_machine(),
        "note": "client on the same cores",
        "release_id": readiness.release_id,
        "k": 10,
        "open_loop": {"rate": arguments.rate} | opened,
        "closed_loop": {"connections": arguments.connections} | closed,
    }
    report(result, arguments.out)


def open_loop(url: str, users: list[str], *, rate: float, seconds: float) -> dict[str, Any]:
    """Send requests at a fixed rate; return latency percentiles.

    Latency is measured from the time at which a request is due, so it includes queueing.
    """
    n = int(rate * seconds)
    latency = np.zeros(n)
    start = time.perf_counter() + 0.5

    def ask(i: int) -> None:
        due = start + i / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        client.recommend(RecommendRequest(user_id=users[i % len(users)]))
        latency[i] = time.perf_counter() - due

    with ShortlistClient(url) as client, ThreadPoolExecutor(32) as pool:
        list(pool.map(ask, range(n)))
    return percentiles(latency)


def closed_loop(url: str, users: list[str], *, connections: int, seconds: float) -> dict[str, Any]:
    """Send each connection's next request after its response; return latency and throughput."""
    end = time.perf_counter() + seconds
    latencies: list[float] = []
    lock = threading.Lock()

    def drive(number: int) -> None:
        own = []
        with ShortlistClient(url) as client:
            i = number
            while (started := time.perf_counter()) < end:
                client.recommend(RecommendRequest(user_id=users[i % len(users)]))
                own.append(time.perf_counter() - started)
                i += connections
        with lock:
            latencies.extend(own)

    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(drive, range(connections)))
    return percentiles(np.array(latencies)) | {"requests_per_s": round(len(latencies) / seconds, 1)}


def percentiles(latency: np.ndarray) -> dict[str, Any]:
    p50, p95, p99 = np.percentile(latency * 1e3, [50, 95, 99])
    return {
        "requests": len(latency),
        "p50_ms": round(float(p50), 2),
        "p95_ms": round(float(p95), 2),
        "p99_ms": round(float(p99), 2),
    }


if __name__ == "__main__":
    main()
