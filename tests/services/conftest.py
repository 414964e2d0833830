"""The real service as a process, in a home of its own that other tests do not see."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from shortlist.client import ShortlistClient

ROOT = Path(__file__).resolve().parents[2]
SERVICE = "services.service:RecommenderService"
START_SECONDS = 180


@dataclass(frozen=True)
class Served:
    """A running service: its address, the home it writes into, its process and its output."""

    url: str
    home: Path
    process: subprocess.Popen
    log: Path

    def stop(self) -> None:
        """As an operator does it; what is left after a minute is killed and is a failure.

        BentoML's workers are in sessions of their own: a supervisor killed outright leaves them.
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
    """BentoML keeps its figures under BENTOML_HOME and wipes them at each start, so each has its
    own.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SHORTLIST_", "BENTOML_HOME"))}
    own = {
        "SHORTLIST_HOME": str(home),
        "BENTOML_HOME": str(home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    return kept | own | more


def copy_home(source: Path, target: Path, *, folders: tuple[str, ...]) -> Path:
    for name in folders:
        shutil.copytree(source / name, target / name, symlinks=True)  # lake/current is one
    (target / "bentoml").mkdir(parents=True)
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
    """The promoted release of a home, from a copy of what a service needs."""
    home = copy_home(served_home, target, folders=("releases", "packs", "feast"))
    with serving(home, SHORTLIST_CLOCK=clock) as served:
        yield served


@pytest.fixture(scope="module")
def service(served_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The promoted release on the replay clock."""
    with serving_copy(served_home, tmp_path_factory.mktemp("served"), clock="replay") as served:
        yield served


@pytest.fixture
def client(service: Served) -> Iterator[ShortlistClient]:
    with ShortlistClient(service.url) as client:
        yield client
