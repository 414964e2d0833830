"""Runs the command line in forks of a process that has already imported the heavy libraries.

Importing Feast, Great Expectations, torch, scikit-learn and Evidently takes ten to twenty seconds
of CPU time, and the tests run about a hundred commands. Each command is still a separate process
with its environment, working directory, output and exit code. It imports Prefect and the project's
flows. tests/flows/test_end_to_end.py also runs commands in fresh processes.
"""

import atexit
import contextlib
import json
import os
import pkgutil
import random
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = (
    "duckdb",
    "pandas",
    "pyarrow.parquet",
    "rich.progress",
    "sqlalchemy",
    "typer",
    "faiss",
    "torch",
    "lightgbm",
    "feast",
    "feast.infra.offline_stores.duckdb",
    "feast.infra.compute_engines.local.compute",
    "great_expectations",
    "evidently",
    # What Prefect imports. Prefect itself reads the environment when it is imported.
    "griffe",
    "h2.connection",
    "httpx",
    "humanize",
    "opentelemetry.trace",
    "pathspec",
    "pendulum",
    "pydantic_extra_types.pendulum_dt",
    "pydantic_settings",
    "websockets.asyncio.client",
)
PACKAGES = ("shortlist", "models", "feature_repo", "simulation")
"""Packages of this project that don't import Prefect; all their modules are preloaded."""


class Command:
    """A running command. As a context manager, it kills the command at the end."""

    def __init__(self, arguments: list[str], connection: socket.socket):
        self.arguments = arguments
        self.code: int | None = None
        self._connection = connection

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def wait(self, timeout: float) -> int:
        """Return the exit code.

        Raises:
            subprocess.TimeoutExpired: the command still runs after `timeout` seconds.
        """
        if self.code is None:
            self._connection.settimeout(timeout)
            try:
                self.code = int(self._connection.recv(100))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.arguments, timeout) from None
            self._connection.close()
        return self.code

    def poll(self) -> int | None:
        """Return the exit code, or None while the command runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def kill(self) -> None:
        """Send SIGKILL and wait until the process has ended."""
        if self.code is None:
            self._connection.shutdown(socket.SHUT_WR)
            self.wait(60)


class CommandServer:
    """A preloaded process that runs commands as forks. Thread-safe.

    The pytest workers of a test run share one, because loading takes as long as many tests.
    """

    def __init__(self, folder: Path, *, owner: int) -> None:
        """Start the process, unless it runs.

        Args:
            folder: a folder that all pytest workers share.
            owner: id of a process; the preloaded process ends when this process ends.
        """
        about = folder / "command_server.json"
        with FileLock(folder / "command_server.lock"):
            if not about.exists():
                address = f"{tempfile.mkdtemp()}/commands.sock"  # socket paths have a length limit
                command = [sys.executable, __file__, address, str(owner)]
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=ROOT)
                about.write_text(json.dumps([address, process.pid]))
        self.address, self.pid = json.loads(about.read_text())

    def run(
        self, arguments: list[str], *, env: dict[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m cli.main`, like `subprocess.run` with captured text output.

        Raises:
            subprocess.TimeoutExpired: the command took over `timeout` seconds, and was killed.
        """
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as errors,
            self.start(arguments, env=env, out=out, errors=errors) as command,
        ):
            code = command.wait(timeout)
            text = []
            for file in (out, errors):
                file.seek(0)
                text.append(file.read().decode())
        return subprocess.CompletedProcess(arguments, code, *text)

    def start(
        self, arguments: list[str], *, env: dict[str, str], out: IO[bytes], errors: IO[bytes]
    ) -> "Command":
        """Start `python -m cli.main` with its output in two files."""
        connection = self._connected()
        request = {"arguments": arguments, "env": env}
        files = [out.fileno(), errors.fileno()]
        socket.send_fds(connection, [json.dumps(request).encode() + b"\n"], files)
        return Command(arguments, connection)

    def _connected(self) -> socket.socket:
        while True:  # the server listens only after it has imported the libraries
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(self.address)
            except (FileNotFoundError, ConnectionRefusedError):
                connection.close()
                assert running(self.pid), "the preloaded process has ended"
                threading.Event().wait(0.05)
            else:
                return connection


def running(pid: int) -> bool:
    """Return whether a process runs; a zombie doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def serve(address: str, *, owner: int) -> None:
    """Fork a child for each connection, until the process `owner` has ended."""
    sys.path.insert(0, str(ROOT))
    before = set(os.environ)
    for name in LIBRARIES:
        __import__(name)
    for name in PACKAGES:
        for module in pkgutil.walk_packages(__import__(name).__path__, f"{name}."):
            __import__(module.name)
    assert "prefect" not in sys.modules
    # Feast sets the folder of prometheus_client's files, which its metrics also need in children.
    added = {name: value for name, value in os.environ.items() if name not in before}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended children don't become zombies
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    while running(owner):
        ready, _, _ = select.select([listener], [], [], 1)
        if not ready:
            continue
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            watch(connection, added)
        connection.close()
    shutil.rmtree(Path(address).parent, ignore_errors=True)


def watch(connection: socket.socket, added: dict[str, str]) -> None:
    """Run the command that a connection requests, send its exit code, and end this process.

    If the caller closes the connection or ends sending, the command is killed.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    data, files, _, _ = socket.recv_fds(connection, 1 << 20, 2)
    while not data.endswith(b"\n"):
        data += connection.recv(1 << 20)
    child = os.fork()
    if child == 0:
        connection.close()
        os.setpgid(0, 0)
        run(json.loads(data), files, added)
    with contextlib.suppress(OSError):  # the child may have done it already
        os.setpgid(child, child)
    done, status = 0, 0
    while not done:
        with contextlib.suppress(ChildProcessError):
            done, status = os.waitpid(child, os.WNOHANG)
        gone, _, _ = select.select([connection], [], [], 0.01)
        if gone and not done:
            os.killpg(child, signal.SIGKILL)
    with contextlib.suppress(OSError):
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def run(request: dict[str, Any], files: list[int], added: dict[str, str]) -> None:
    """Run the command line in this process and exit; doesn't return."""
    for number, file in enumerate([os.open(os.devnull, os.O_RDONLY), *files]):
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(request["env"] | added)
    random.seed()
    sys.argv = ["shortlist", *request["arguments"]]
    code = 0
    try:
        runpy.run_module("cli.main", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1], owner=int(sys.argv[2]))
