"""A Prefect server that the commands of a test run share.

Without a server, each command that runs a flow starts one of its own, which takes about ten seconds
of CPU time. tests/flows/test_end_to_end.py also runs commands without a server.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
from filelock import FileLock

from flows.releases.service_process import free_port
from tests.preloaded import ROOT, running

START_SECONDS = 120.0


def shared_server(folder: Path, *, home: Path, owner: int) -> str:
    """Start the server of this test run, unless it runs; return the URL of its API.

    Args:
        folder: a folder that all pytest workers share.
        home: a Prefect home with a migrated database.
        owner: id of a process; the server ends when this process ends.
    """
    about = folder / "prefect_server.json"
    with FileLock(folder / "prefect_server.lock"):
        if about.exists():
            return json.loads(about.read_text())
        port = free_port()
        url = f"http://127.0.0.1:{port}/api"
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.prefect_server", str(port), str(owner)],
            cwd=ROOT,
            env=os.environ
            | {"PREFECT_HOME": str(home), "PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_FINAL": "1"},
            stdout=(folder / "prefect_server.log").open("wb"),
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + START_SECONDS
        while not answers(f"{url}/health"):
            assert process.poll() is None, (folder / "prefect_server.log").read_text()
            assert time.monotonic() < deadline, "the Prefect server of the tests doesn't answer"
            time.sleep(0.1)
        about.write_text(json.dumps(url))
        return url


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _end_with(owner: int) -> None:
    """End this process when the process `owner` has ended."""
    while running(owner):
        time.sleep(1)
    os._exit(0)


def main(port: int, owner: int) -> None:
    """Serve Prefect's API on a port of the loopback address until the process `owner` ends."""
    import uvicorn

    threading.Thread(target=_end_with, args=(owner,), daemon=True).start()
    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=port,
        log_level="error",
        lifespan="on",
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
