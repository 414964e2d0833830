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

Rows can be measured one at a time: with `--out`, a row is written when it is finished, beside the
rows that the file already has. `--work` keeps the homes, and `--build-only` builds them.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks._result import about_machine, report
from benchmarks.serving_load.figures import latency, stages
from benchmarks.serving_load.home import CONFIG
from benchmarks.serving_load.load import requests_of, saturation, send
from flows.releases.service_process import free_port, running_service, stop
from shortlist.config import Settings
from shortlist.files.plain_json import write_json
from shortlist.home.workers import live_workers
from shortlist.releases.release import POINTER

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
    parser.add_argument(
        "--build-only", action="store_true", help="build the homes in --work, and measure nothing"
    )
    parser.add_argument(
        "--out", type=Path, help="JSON file for the figures; rows that it has from before are kept"
    )
    arguments = parser.parse_args()
    names = arguments.rows.split(",")
    if unknown := set(names) - set(ROWS):
        parser.error(f"--rows: no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    if arguments.build_only and arguments.work is None:
        parser.error("--build-only: needs --work, the folder that keeps the homes")
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        if arguments.build_only:
            for row in names:
                home_of(row, work, arguments)
            return
        rows = {}
        for row in names:
            rows[row] = measure(row, work, arguments)
            keep_row(row, rows[row], arguments.out)
    report({"rows": rows}, None)


def keep_row(row: str, result: dict[str, Any], out: Path | None) -> None:
    """Add a row to the file `out`, or replace it there.

    Args:
        out: a file that this function wrote before, or that doesn't exist yet; None: do nothing.
    """
    if out is None:
        return
    content = json.loads(out.read_text()) if out.is_file() else {"rows": {}}
    content |= about_machine()
    content["rows"] |= {row: result}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, content)


def home_of(row: str, work: Path, arguments: argparse.Namespace) -> Path:
    """Return the home of a row; build it if `work` doesn't have it.

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
        return home
    return synthetic_home(work, arguments.items or items)


def synthetic_home(work: Path, items: int) -> Path:
    """Return the home of a catalogue of `items` items in `work`; build it if it isn't there."""
    home = work / f"items-{items}"
    if not (home / "releases" / POINTER).is_file():  # promoting is the last step of a build
        shutil.rmtree(home, ignore_errors=True)
        started = time.perf_counter()
        _in_process("build", home, items)
        print(f"{home.name}: built in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return home


def measure(row: str, work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one row; return its figures.

    Args:
        row: key of ROWS.
        work: folder of the homes.
    """
    home = home_of(row, work, arguments)
    synthetic = ROWS[row] is not None
    rate = RATES[row] if row in RATES else float(arguments.rate)
    requests = requests_of(home, synthetic=synthetic, number=int(rate * arguments.seconds))
    os.environ |= {"SHORTLIST_HOME": str(home), "SHORTLIST_WORKERS": str(arguments.workers)}
    shutil.rmtree(home / "workers", ignore_errors=True)
    command = (
        f"shortlist bench serving --rows {row} --rate {rate:g} --seconds {arguments.seconds:g}"
        f" --workers {arguments.workers}"
        + (f" --items {arguments.items}" if arguments.items else "")
    )
    result: dict[str, Any] = {"command": command, **about_machine(), "rate": rate}
    if row != "100k_refresh":
        result |= _in_process("alone", home, 0)
    with running_service(log=home / "service.log", clock="replay") as url:
        while len(live_workers(Settings(home=home))) < arguments.workers:
            time.sleep(0.2)
        processes = [psutil.Process(worker.pid) for worker in live_workers(Settings(home=home))]
        send(url, requests[:WARM_UP], rate=rate)
        before = _processor_seconds(processes)
        stages_before = stages(url)
        if row == "100k_refresh":
            with Refreshing(home):
                answers = send(url, requests, rate=rate)
        else:
            answers = send(url, requests, rate=rate)
        spent = (_processor_seconds(processes) - before) / len(requests)
        result |= latency(answers) | {"stages": stages(url, since=stages_before)}
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
