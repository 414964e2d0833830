"""Helpers that run the real service as a process in a temporary home and read its files."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from shortlist.http.client import ShortlistClient
from tests.conftest import shortlist

ROOT = Path(__file__).resolve().parents[2]
SERVICE = "services.service:RecommenderService"
START_SECONDS = 180
FOLDERS = ("releases", "packs", "feast", "features", "lake", "held_back")
"""Folders of a home that the service, ingest and refresh need."""
VIEW = {"user_id": "u1", "item_id": "i1", "event_type": "view"}


@dataclass(frozen=True)
class Served:
    """A running service: its address, the home it writes into, its process and its output."""

    url: str
    home: Path
    process: subprocess.Popen
    log: Path

    def stop(self) -> None:
        """Stop the service with SIGTERM, as an operator does; fail if a process remains.

        After a minute, the remaining processes are killed. BentoML's workers run in separate
        sessions, so they would survive a kill of the supervisor alone.
        """
        if self.process.poll() is not None:
            return
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
            _, left = psutil.wait_procs(family, timeout=10)
        except subprocess.TimeoutExpired:
            left = [psutil.Process(self.process.pid), *family]
        for process in left:
            process.kill()
        assert not left, f"the service did not stop: {left}"


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment variables of a service in `home`.

    Each service gets its own BENTOML_HOME, because BentoML deletes the metrics there at each start.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SHORTLIST_", "BENTOML_HOME"))}
    own = {
        "SHORTLIST_HOME": str(home),
        "BENTOML_HOME": str(home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "SHORTLIST_WORKERS": "1",
        # Stages may be slow on a busy machine. Tests of the budget set smaller values.
        "SHORTLIST_REQUEST_BUDGET_MS": "60000",
        # A niced refresh would wait for all other tests.
        "SHORTLIST_GENTLE_REFRESH": "false",
    }
    return kept | own | more


def copy_home(source: Path, target: Path, *, folders: tuple[str, ...]) -> Path:
    for name in folders:
        shutil.copytree(source / name, target / name, symlinks=True)  # lake/current is a symlink
    (target / "bentoml").mkdir(parents=True)
    if (source / "event_rules.json").is_file():
        shutil.copy(source / "event_rules.json", target)
    return target


@contextmanager
def serving(home: Path, *, what: str = SERVICE, cwd: Path = ROOT, **more: str) -> Iterator[Served]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = home / "service.log"
    command = [sys.executable, "-m", "bentoml", "serve", what, "--host", "127.0.0.1"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=cwd,
            env=environment(home, **more),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    served = Served(f"http://127.0.0.1:{port}", home, process, log)
    try:
        with ShortlistClient(served.url) as client:
            client.wait_until_ready(timeout=START_SECONDS)
        yield served
    finally:
        served.stop()


@contextmanager
def serving_copy(served_home: Path, target: Path, *, clock: str) -> Iterator[Served]:
    """Serve the promoted release of a home from a copy of the folders that a service needs."""
    home = copy_home(served_home, target, folders=("releases", "packs", "feast"))
    with serving(home, SHORTLIST_CLOCK=clock) as served:
        yield served


@pytest.fixture(scope="module")
def service(served_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with the promoted release, on the replay clock."""
    with serving_copy(served_home, tmp_path_factory.mktemp("served"), clock="replay") as served:
        yield served


@pytest.fixture
def client(service: Served) -> Iterator[ShortlistClient]:
    with ShortlistClient(service.url) as client:
        yield client


def ids(answer) -> list[str]:
    """Return the item ids of a response, in order."""
    return [item.item_id for item in answer.items]


def inbox(home: Path) -> bytes:
    """Return the content of all files in the inbox of `home`."""
    return b"".join(path.read_bytes() for path in sorted((home / "events").rglob("*.jsonl")))


def logged(home: Path, request_id: str, *, log: str = "serving_log") -> dict:
    """Return a response's entry in the log; wait for it, since a background thread writes it."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for path in (home / log).rglob("*.jsonl"):
            for line in path.read_text().splitlines(keepends=True):
                if line.endswith("\n") and json.loads(line)["request_id"] == request_id:
                    return json.loads(line)
        time.sleep(0.05)
    raise AssertionError(f"no line of {request_id} in {log}")


def json_of(*arguments: str, home: Path) -> dict:
    """Run a command as a process and return the JSON that it prints."""
    done = shortlist(*arguments, "--json", home=home)
    assert done.returncode == 0, done.stderr[-3_000:]
    return json.loads(done.stdout)


def refresh(config: Path, *, home: Path) -> None:
    """Run `shortlist refresh`."""
    done = shortlist("refresh", str(config), home=home)
    assert done.returncode == 0, done.stderr[-3_000:]
