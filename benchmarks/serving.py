"""`shortlist bench serving`: latency of the service under load, at several sizes of the catalogue.

A load generator in a separate process sends requests at a fixed mean rate (Poisson arrivals). A
tenth of the requests are from unknown users, a tenth from visitors without a user id, and a tenth
have filters. After every fifth request, an event is posted. Then `wrk`, if it is installed,
measures the highest rate that the service can answer (saturation).

Each measured case is a row of the result. A home is the folder of a deployment:

- `100k`, `1m`: a synthetic home with 100,000 or a million items, 500 candidates from four sources,
  a ranker of 300 trees, and MMR re-ranking;
- `movielens`: the promoted release of SHORTLIST_HOME;
- `100k_refresh`: as `100k`, while `shortlist refresh` runs again and again.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from benchmarks._result import about_machine, report
from benchmarks.serving_load.home import CATEGORIES, CONFIG, KNOWN_USERS
from flows.releases.service_process import free_port, running_service, stop
from shortlist import columns as c
from shortlist.config import Settings
from shortlist.lake import Lake
from shortlist.workers import live_workers

ROWS = {"100k": 100_000, "1m": 1_000_000, "movielens": None, "100k_refresh": 100_000}
"""Name of a row -> number of items; None: the home that SHORTLIST_HOME names."""
RATES = {"1m": 20.0}
"""Requests per second of rows for which `--rate` is too high."""
SERVED = ("lake", "releases", "packs", "feast", "features")
"""Folders of a home that a service reads."""
OWN_HOME = Settings().home.absolute()
"""Home of row `movielens`. It is read now, because `measure` changes SHORTLIST_HOME."""
WARM_UP = 300
"""Number of requests before the measured load."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rows", default="100k,movielens,100k_refresh", help="rows to measure, e.g. 100k,1m"
    )
    parser.add_argument(
        "--items", type=int, help="number of items in synthetic homes, for a small trial"
    )
    parser.add_argument("--candidates", type=int, default=500, choices=[500])
    parser.add_argument("--rate", type=float, default=50.0, help="mean requests per second")
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of each load")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the service")
    parser.add_argument(
        "--work", type=Path, help="folder of the homes, which are kept; default: a temporary one"
    )
    parser.add_argument("--out", type=Path, help="write the figures to this file as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        rows = {row: measure(row, work, arguments) for row in arguments.rows.split(",")}
    command = (
        f"shortlist bench serving --rows {arguments.rows} --rate {arguments.rate:g}"
        f" --seconds {arguments.seconds:g} --workers {arguments.workers}"
    )
    report({"command": command, **about_machine(), "rows": rows}, arguments.out)


def measure(row: str, work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one row; return its figures.

    Args:
        row: key of ROWS.
        work: folder of the homes.
    """
    items = ROWS[row]
    if items is None:
        home = work / "movielens"
        if not home.is_dir():
            for name in SERVED:
                shutil.copytree(OWN_HOME / name, home / name, symlinks=True)
    else:
        items = arguments.items or items
        home = work / f"items-{items}"
        if not home.is_dir():
            _in_process("build", home, items)
    rate = RATES[row] if row in RATES else float(arguments.rate)
    requests = _requests(home, synthetic=items is not None, number=int(rate * arguments.seconds))
    os.environ |= {"SHORTLIST_HOME": str(home), "SHORTLIST_WORKERS": str(arguments.workers)}
    shutil.rmtree(home / "workers", ignore_errors=True)
    result: dict[str, Any] = {"rate": rate}
    if row != "100k_refresh":
        result |= _in_process("alone", home, 0)
    with running_service(log=home / "service.log", clock="replay") as url:
        while len(live_workers(Settings(home=home))) < arguments.workers:
            time.sleep(0.2)
        processes = [psutil.Process(worker.pid) for worker in live_workers(Settings(home=home))]
        send(url, requests[:WARM_UP], rate=rate)
        before = _processor_seconds(processes)
        stages_before = _stages(url)
        if row == "100k_refresh":
            with Refreshing(home):
                answers = send(url, requests, rate=rate)
        else:
            answers = send(url, requests, rate=rate)
        spent = (_processor_seconds(processes) - before) / len(requests)
        result |= latency(answers) | {"stages": _stages(url, since=stages_before)}
        result["cpu_ms"] = round(spent * 1e3, 2)
        if row != "100k_refresh":
            result["saturation_requests_per_s"] = saturation(url, home, requests)
        peak = max(process.memory_info().rss for process in processes)
        result["memory_gb"] = round(peak / 1e9, 2)
    if "alone_ms" in result:
        noop = noop_ms(home, requests[: int(rate * 10)], rate=rate)
        result["noop_ms"] = noop
        result["cpu_ratio"] = round(result["cpu_ms"] / (noop + result["alone_ms"]), 2)
    print(json.dumps({row: result}), file=sys.stderr)
    return result


def _requests(home: Path, *, synthetic: bool, number: int) -> list[tuple[str, dict[str, Any]]]:
    """Return (path, body) of the requests, in the order in which they are sent.

    Args:
        synthetic: whether the home is a synthetic one.
        number: number of requests to /recommend; posted events are added.
    """
    rng = np.random.default_rng(1)
    if synthetic:
        users = [f"u{n}" for n in range(KNOWN_USERS)]
        items = [f"i{n}" for n in range(5_000)]
        categories = [f"shelf {n}" for n in range(CATEGORIES)]
    else:
        lake = Lake(home / "lake")
        users = lake.users().column(c.USER_ID).to_pylist()
        items = lake.items().column(c.ITEM_ID).to_pylist()
        categories = ["Comedy", "Drama", "Action", "Thriller"]
    requests: list[tuple[str, dict[str, Any]]] = []
    for turn in range(number):
        user = str(rng.choice(users))
        body: dict[str, Any] = {"user_id": user, "k": 10}
        if turn % 10 == 0:
            body["user_id"] = f"unknown-{turn}"
        elif turn % 10 == 3:
            body = {"recent_items": rng.choice(items, size=5).tolist(), "k": 10}
        elif turn % 10 == 6:
            body["filters"] = {"categories": [str(rng.choice(categories))]}
        requests.append(("/recommend", body))
        if turn % 5 == 4:
            event = {"user_id": user, "item_id": str(rng.choice(items)), "event_type": "click"}
            requests.append(("/events", {"events": [event]}))
    return requests


def send(url: str, requests: list[tuple[str, dict[str, Any]]], *, rate: float) -> dict[str, Any]:
    """Send the requests at a mean rate from another process; return what `send_all` returns.

    Args:
        rate: mean requests to /recommend per second.
    """
    # Posted events are sent in addition to this rate.
    arrivals = rate * len(requests) / sum(path == "/recommend" for path, _ in requests)
    task = {"url": url, "rate": arrivals, "seed": 0, "requests": requests}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving_load.generator"],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def latency(answers: dict[str, Any]) -> dict[str, Any]:
    """Return percentiles of the latency in milliseconds, and shares of errors and degraded answers.

    An answer is degraded if a stage was skipped.

    Args:
        answers: result of `send`.
    """
    values = np.array(answers["latencies"]) * 1e3
    number = len(values)
    for error in sorted(set(answers["errors"]))[:3]:
        print(f"error: {error}", file=sys.stderr)
    return {
        "requests": number,
        **{f"p{p}_ms": round(float(np.percentile(values, p)), 2) for p in (50, 95, 99)},
        "max_ms": round(float(values.max()), 2),
        "errors": len(answers["errors"]) / number,
        "degraded": answers["degraded"] / number,
    }


def saturation(url: str, home: Path, requests: list[tuple[str, dict[str, Any]]]) -> float | None:
    """Return the answers per second with eight connections that never pause.

    None if `wrk` is not installed.
    """
    if shutil.which("wrk") is None:
        return None
    bodies = [json.dumps(body) for path, body in requests if path == "/recommend"][:2_000]
    script = home / "wrk.lua"
    listed = ",\n".join(f"[==[{body}]==]" for body in bodies)
    script.write_text(
        f"local bodies = {{{listed}}}\nlocal turn = 0\n"
        "wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\n"
        "request = function() turn = turn % #bodies + 1;"
        " return wrk.format(nil, '/recommend', nil, bodies[turn]) end\n"
    )
    command = ["wrk", "-t1", "-c8", "-d15s", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert found is not None, done.stdout
    if "Non-2xx" in done.stdout:
        print(done.stdout, file=sys.stderr)
    return float(found[1])


class Refreshing:
    """Runs `shortlist refresh` again and again inside the block."""

    def __init__(self, home: Path):
        self.home = home
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        config = self.home / "source" / CONFIG
        with (self.home / "refresh.log").open("wb") as log:
            while not self.over.is_set():
                command = [sys.executable, "-m", "cli.main", "refresh", str(config)]
                subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)

    def __enter__(self) -> None:
        self.thread.start()
        time.sleep(5)

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def noop_ms(home: Path, requests: list[tuple[str, dict[str, Any]]], *, rate: float) -> float:
    """Return the CPU milliseconds per request of a service that does nothing, at the same rate."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "bentoml", "serve", "benchmarks.serving_load.noop:Noop"]
    only = [request for request in requests if request[0] == "/recommend"]
    with (home / "noop.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port)],
            env=os.environ | {"BENTOML_HOME": str(home / "bentoml-noop")},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            while send(url, only[:1], rate=rate)["errors"]:
                time.sleep(1)
            processes = psutil.Process(server.pid).children(recursive=True)
            send(url, only[:100], rate=rate)
            before = _processor_seconds(processes)
            send(url, only, rate=rate)
            return round((_processor_seconds(processes) - before) / len(only) * 1e3, 2)
        finally:
            stop(server)


def _processor_seconds(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(each.user + each.system for each in times)


def _stages(url: str, *, since: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return figures of the time of each stage, from the service's Prometheus metrics.

    Args:
        since: result of an earlier call without `since`.

    Returns:
        Without `since`: {stage: {upper limit of a bucket in seconds: cumulative count}}. With
        `since`: {stage: percentiles in milliseconds}, of the requests after the earlier call.
    """
    text = httpx.get(f"{url}/metrics").text
    found: dict[str, dict[float, float]] = {}
    pattern = r'shortlist_stage_seconds_bucket\{(?=.*stage="([^"]+)")(?=.*le="([^"]+)").*\} (\S+)'
    for stage, limit, count in re.findall(pattern, text):
        found.setdefault(stage, {})[float(limit)] = float(count)
    if since is None:
        return found
    result = {}
    for stage, buckets in found.items():
        limits = np.array(sorted(buckets))
        counts = np.array([buckets[limit] for limit in limits])
        counts -= [since.get(stage, {}).get(limit, 0.0) for limit in limits]
        if counts[-1]:
            result[stage] = {
                f"p{p}_ms": round(_quantile(limits, counts, p / 100) * 1e3, 2) for p in (50, 99)
            }
    return result


def _quantile(limits: np.ndarray, counts: np.ndarray, share: float) -> float:
    """Return a quantile from cumulative bucket counts, as Prometheus estimates it.

    Values are assumed to be evenly distributed inside a bucket.

    Args:
        limits: upper limits of the buckets, ascending.
        counts: number of values up to each limit.
        share: the quantile, 0 to 1.
    """
    wanted = share * counts[-1]
    index = int(np.searchsorted(counts, wanted))
    if not np.isfinite(limits[index]):
        return float(limits[index - 1])
    low = 0.0 if index == 0 else limits[index - 1]
    below = 0.0 if index == 0 else counts[index - 1]
    inside = counts[index] - below
    return float(low + (limits[index] - low) * (wanted - below) / max(inside, 1e-9))


def _in_process(what: str, home: Path, items: int) -> dict[str, Any]:
    """Run `benchmarks.serving_load.alone` in another process; return its figures.

    Args:
        what: "build" or "alone".
        items: number of items to build.
    """
    command = [sys.executable, "-m", "benchmarks.serving_load.alone", what, str(home), str(items)]
    environment = os.environ | {"SHORTLIST_HOME": str(home)}
    if what == "alone":
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
