"""`shortlist up`, `down` and `status`: everything that a home needs to run, started together.

The Prefect server and worker, the service, the report pages, and the loop that carries out posted
commands. A home is the folder SHORTLIST_HOME.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from flows.operations import caretaker, processes
from flows.operations.processes import Started, UpError
from flows.releases.service_process import free_port
from shortlist.config import Settings
from shortlist.datasets.service.item_commands import num_pending
from shortlist.home.home_lock import held_locks
from shortlist.home.workers import live_workers
from shortlist.releases.release import ReleaseError, ReleaseStore

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
START_SECONDS = 180
ORDER = ("service", "caretaker", "pages", "worker", "server")
"""Order in which `down` stops the processes: first those that use or were started by others."""


@dataclass(frozen=True)
class Ports:
    """Ports on the loopback address; 0 chooses a free one."""

    service: int = 3000
    pages: int = 3001
    prefect: int = 4200


def up(settings: Settings, config: Path, ports: Ports) -> dict[str, Any]:
    """Start everything and wait until it answers; return what `status` returns.

    Raises:
        UpError: it runs already, a port is taken, or a process didn't start. Then everything that
            was started is stopped again.
        ConfigError, DeployError: the configuration is wrong, or Prefect refused a deployment.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.deploy import deploy_all
    from flows.runtime.configuration import load_run_config

    load_run_config(config)
    running = [
        name for name, process in processes.read(settings).items() if processes.is_alive(process)
    ]
    if running:
        raise UpError(
            f"{settings.home}: {', '.join(running)} run already; `shortlist status` shows them,"
            " `shortlist down` stops them"
        )
    processes.forget(settings)
    settings.home.mkdir(parents=True, exist_ok=True)
    ports = Ports(*(_usable(port, name) for name, port in vars(ports).items()))
    processes.record(settings, {}, config=str(config.resolve()))
    try:
        api = f"http://{HOST}:{ports.prefect}/api"
        server = _prefect_server(settings, ports.prefect)
        _module(settings, "pages", ports.pages, "flows.operations.report_pages")
        _wait(server, lambda: _answers(f"{api}/health"), "the Prefect server")
        with temporary_settings({PREFECT_API_URL: api}):
            deployed = deploy_all(config)
        worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool"]
        env = _prefect_env(settings) | {"PREFECT_API_URL": api}
        processes.start(settings, "worker", [*worker, deployed["work_pool"]], cwd=ROOT, env=env)
        if caretaker.can_serve(settings):
            service = start_service(settings, ports.service)
            _wait(service, lambda: _answers(f"{service.url}/readyz"), "the service")
        command = [sys.executable, "-m", "flows.operations.caretaker", str(config.resolve())]
        command += ["--port", str(ports.service)]
        processes.start(settings, "caretaker", command, cwd=ROOT, env=env)
    except BaseException:
        down(settings)
        raise
    return status(settings)


def down(settings: Settings) -> dict[str, Any]:
    """Stop exactly the processes that `up` started; return {"stopped", "ended_before"}."""
    found = processes.read(settings)
    stopped, gone = [], []
    for name in ORDER:
        if name in found:
            (stopped if processes.stop(found[name]) else gone).append(name)
    processes.forget(settings)
    return {"stopped": stopped, "ended_before": gone}


def status(settings: Settings) -> dict[str, Any]:
    """Return the processes, serving release, workers and locks of a home.

    Returns:
        {"processes": [{"name", "state", "url", "pid", "log"}], "serving": release, "workers",
        "locks": who holds a lock of the home, "commands_pending": posted changes of items that the
        lake doesn't have yet}.
    """
    rows = []
    for name, process in processes.read(settings).items():
        state = "runs" if processes.is_alive(process) else "ended"
        if state == "runs" and process.url is not None and not _answers(_probe(name, process.url)):
            state = "starts"
        rows.append(
            {
                "name": name,
                "state": state,
                "url": process.url,
                "pid": process.pid,
                "log": process.log,
            }
        )
    try:
        serving = ReleaseStore(settings.releases).current_id()
    except ReleaseError as error:
        serving = f"unknown: {error}"
    workers = [
        {"worker": worker.name, "release_id": worker.release_id, "pinned": worker.pinned}
        for worker in live_workers(settings)
    ]
    return {
        "home": str(settings.home.absolute()),
        "processes": rows,
        "serving": serving,
        "workers": workers,
        "locks": held_locks(settings),
        "commands_pending": num_pending(settings),
    }


def server_of(settings: Settings) -> str | None:
    """Return the API's address of a Prefect server that `up` started and that still runs."""
    found = processes.read(settings).get("server")
    return f"{found.url}/api" if found is not None and processes.is_alive(found) else None


def start_service(settings: Settings, port: int) -> Started:
    """Start the service of the promoted release."""
    command = [sys.executable, "-m", "bentoml", "serve", "services.service:RecommenderService"]
    home = {"BENTOML_HOME": str(settings.home.absolute() / "bentoml")}
    return processes.start(
        settings,
        "service",
        [*command, "--host", HOST, "--port", str(port)],
        cwd=ROOT,
        env=_home_env(settings) | home,
        url=f"http://{HOST}:{port}",
    )


def _prefect_server(settings: Settings, port: int) -> Started:
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST]
    site = f"http://{HOST}:{port}"
    env = _prefect_env(settings) | {"PREFECT_UI_API_URL": f"{site}/api", "PREFECT_UI_URL": site}
    url = f"http://{HOST}:{port}"
    command += ["--port", str(port)]
    return processes.start(settings, "server", command, cwd=ROOT, env=env, url=url)


def _module(settings: Settings, name: str, port: int, module: str) -> Started:
    command = [sys.executable, "-m", module, "--port", str(port)]
    url = f"http://{HOST}:{port}"
    return processes.start(settings, name, command, cwd=ROOT, env=_home_env(settings), url=url)


def _home_env(settings: Settings) -> dict[str, str]:
    return {"SHORTLIST_HOME": str(settings.home.resolve())}


def _prefect_env(settings: Settings) -> dict[str, str]:
    # Prefect's folder lies in the home, so the server also shows runs of the command line.
    return _home_env(settings) | {"PREFECT_HOME": str(settings.home.resolve() / "prefect")}


def _usable(port: int, name: str) -> int:
    import socket

    if port == 0:
        return free_port(HOST)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UpError(
                f"port {port} for {name} can't be used ({error.strerror}): choose another one with"
                f" --{name}-port"
            ) from None
    return port


def _wait(started: Started, ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while processes.is_alive(started) and time.monotonic() < deadline:
        if ready():
            return
        time.sleep(0.25)
    raise UpError(f"{what} didn't start; {started.log} ends with:\n{processes.tail(started)}")


def _probe(name: str, url: str) -> str:
    return url + {"server": "/api/health", "service": "/readyz"}.get(name, "/")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
