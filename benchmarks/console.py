"""`shortlist bench console`: the service's time for each page of the console, at 100,000 items.

A synthetic home as in `shortlist bench serving` is served by one worker. After REQUESTS answers,
which fill the serving log, each page is asked for again and again, one request at a time. The first
answer, which may import or load something, is reported apart.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks._result import about_machine, report
from benchmarks.serving import synthetic_home
from benchmarks.serving_load.home import KNOWN_USERS
from flows.releases.service_process import running_service

REQUESTS = 1_000
PAGES = {
    "home": "/console",
    "people": "/console/person?q=u1",
    "person": "/console/person?user=u7&k=10",
    "compare": "/console/compare?user=u7&right=source:two_tower",
    "releases": "/console/releases",
    "items": "/console/item?q=7",
    "item": "/console/item?item=i7&user=u7",
    "requests": "/console/requests",
    "why": "/console/why/{request_id}",
    "data": "/console/data",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=20, help="measured answers of each page")
    parser.add_argument(
        "--work", type=Path, help="folder of the home, which is kept; default: a temporary one"
    )
    parser.add_argument("--out", type=Path, help="write the figures to this file as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).absolute()
        pages = measure(work, num_items=arguments.items, turns=arguments.turns)
    command = f"shortlist bench console --items {arguments.items} --turns {arguments.turns}"
    load = round(os.getloadavg()[0], 1)  # more processes than cores lengthen every figure
    content = {"command": command, **about_machine(), "load_average": load, "pages": pages}
    report(content, arguments.out)


def measure(work: Path, *, num_items: int, turns: int) -> dict[str, dict[str, float]]:
    """Return {page: {"first_ms", "p50_ms", "p95_ms", "kb"}}."""
    work.mkdir(parents=True, exist_ok=True)
    home = synthetic_home(work, num_items)
    os.environ["SHORTLIST_HOME"] = str(home)
    shutil.rmtree(home / "workers", ignore_errors=True)
    with (
        running_service(log=home / "service.log", clock="replay") as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        request_id = ""
        for turn in range(REQUESTS):
            body = {"user_id": f"u{turn % KNOWN_USERS}", "k": 10}
            request_id = (
                client.post("/recommend", json=body).raise_for_status().json()["request_id"]
            )
        time.sleep(1)  # the log is written by a thread
        return {
            name: _timed(client, path.format(request_id=request_id), turns=turns)
            for name, path in PAGES.items()
        }


def _timed(client: httpx.Client, path: str, *, turns: int) -> dict[str, Any]:
    taken = []
    answer = None
    for _ in range(turns + 1):
        started = time.perf_counter()
        answer = client.get(path)
        taken.append((time.perf_counter() - started) * 1e3)
        if answer.status_code != 200:
            sys.exit(f"error: {path}: {answer.status_code}: {answer.text[-400:]}")
    assert answer is not None
    first, rest = taken[0], taken[1:]
    return {
        "first_ms": round(first, 1),
        "p50_ms": round(float(np.percentile(rest, 50)), 1),
        "p95_ms": round(float(np.percentile(rest, 95)), 1),
        "kb": round(len(answer.content) / 1e3, 1),
    }


if __name__ == "__main__":
    main()
