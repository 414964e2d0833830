"""Starts the service as a separate process, and stops it so that its logs are complete."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import psutil

from shortlist.http.client import ServiceError, ShortlistClient

START_SECONDS = 180
STOP_SECONDS = 20


class StartError(RuntimeError):
    """The service did not start; the message has the last lines of its log."""


@contextmanager
def running_service(
    *, log: Path, clock: Literal["wall", "replay"], host: str = "127.0.0.1"
) -> Iterator[str]:
    """Serve the promoted release on a free port; yield the URL when it is ready.

    At the end of the block the service gets SIGTERM and time to finish writing.

    Raises:
        StartError: the process ended, or was not ready after START_SECONDS.
    """
    port = free_port(host)
    url = f"http://{host}:{port}"
    command = [sys.executable, "-m", "bentoml", "serve", "services.service:RecommenderService"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--host", host],
            # A separate BENTOML_HOME: services that share one delete each other's metrics.
            # Its only client is this process, so it needs no API keys.
            env={"SHORTLIST_WORKERS": "1"}
            | {name: value for name, value in os.environ.items() if name != "SHORTLIST_API_KEYS"}
            | {"SHORTLIST_CLOCK": clock, "BENTOML_HOME": str(log.absolute().parent / "bentoml")},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait(process, url, log)
            yield url
        finally:
            stop(process)


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that is currently free."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    with ShortlistClient(url) as client:
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                client.ready()
            except ServiceError:
                time.sleep(0.25)
            else:
                return
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    what = (
        f"ended with {process.returncode}"
        if process.returncode is not None
        else f"was not ready within {START_SECONDS} s"
    )
    raise StartError(f"the service on {url} {what}; {log} ends with:\n{tail}")


def stop(process: subprocess.Popen[bytes], *, patience: float = STOP_SECONDS) -> None:
    """Stop the process with SIGTERM; after `patience` seconds kill it and all its descendants."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        # The workers have separate process groups: list them before their parent is killed.
        for worker in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
        process.kill()
        process.wait()
