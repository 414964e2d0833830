"""Processes of `shortlist up`, its report pages, and the use of its Prefect server."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from cli.main import _private, _use_server_of
from flows.operations import processes
from flows.operations.links import link_to
from flows.operations.processes import UpError
from flows.operations.report_pages import server
from flows.operations.up import Ports, down, status, up
from shortlist.config import Settings
from shortlist.home.home_lock import held_locks, home_lock
from tests.flows.conftest import ROOT_TOML

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
CHILD = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {!r}]); {}"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "home").mkdir()
    return Settings(home=tmp_path / "home")


def test_down_stops_exactly_what_was_started_with_its_children(
    settings: Settings, tmp_path: Path
) -> None:
    parent = CHILD.format("import time; time.sleep(60)", "print('up', flush=True); time.sleep(60)")
    started = processes.start(
        settings, "worker", [sys.executable, "-c", parent], cwd=tmp_path, env={}
    )
    stranger = processes.start(settings, "pages", SLEEP, cwd=tmp_path, env={})
    reused = replace(stranger, created=stranger.created - 100)  # an id that was used again
    processes.record(settings, {"pages": reused})
    while Path(started.log).read_text() != "up\n":
        time.sleep(0.01)
    children = psutil.Process(started.pid).children()
    assert len(children) == 1
    assert {one["name"]: one["state"] for one in status(settings)["processes"]} == {
        "worker": "runs",
        "pages": "ended",
    }
    assert down(settings) == {"stopped": ["worker"], "ended_before": ["pages"]}
    assert not processes.is_alive(started)
    assert not children[0].is_running() or children[0].status() == psutil.STATUS_ZOMBIE
    assert processes.is_alive(stranger)
    processes.stop(stranger)
    assert status(settings)["processes"] == []
    assert down(settings) == {"stopped": [], "ended_before": []}


def test_up_refuses_a_second_start_and_a_taken_port(settings: Settings, tmp_path: Path) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text(ROOT_TOML)
    with server(settings, 0) as taken:
        port = taken.server_address[1]
        with pytest.raises(UpError, match=f"port {port} for pages can't be used"):
            up(settings, config, Ports(service=0, pages=port, prefect=0))
    started = processes.start(settings, "server", SLEEP, cwd=tmp_path, env={})
    with pytest.raises(UpError, match="server run already; `shortlist status` shows them"):
        up(settings, config, Ports(0, 0, 0))
    assert processes.is_alive(started)
    processes.stop(started)


def test_a_damaged_list_of_processes_is_named(settings: Settings) -> None:
    (settings.home / "up.json").write_text("{}")
    with pytest.raises(UpError, match=r"up\.json: not the list of processes"):
        status(settings)


@pytest.fixture
def pages(settings: Settings) -> Iterator[str]:
    report = settings.reports / "20261130T000000-a"
    report.mkdir(parents=True)
    (report / "index.html").write_text("the report")
    (settings.home / "secret.txt").write_text("secret")
    (settings.reports / "link").symlink_to(settings.home)
    latest = {"report": str(report / "index.html"), "verdict": "pass", "release_id": "<b>r1"}
    (settings.reports / "latest.json").write_text(json.dumps(latest))
    with server(settings, 0) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_pages_show_reports_and_nothing_else_of_the_home(pages: str, settings: Settings) -> None:
    index = httpx.get(pages)
    assert "/reports/20261130T000000-a/index.html" in index.text
    assert "&lt;b&gt;r1" in index.text
    answer = httpx.get(f"{pages}/reports/20261130T000000-a/index.html")
    assert (answer.status_code, answer.text) == (200, "the report")
    assert answer.headers["x-content-type-options"] == "nosniff"
    port = int(pages.rsplit(":", 1)[1])
    hidden = ("secret.txt", "reports/../secret.txt", "reports/%2e%2e/secret.txt")
    for path in (*hidden, "reports/link/secret.txt", "reports//etc/passwd", "other/x"):
        # A raw request: httpx would shorten the path.
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", f"/{path}")
        assert connection.getresponse().status == 404, path
        connection.close()


def test_links_lead_to_the_pages_if_they_run(settings: Settings) -> None:
    report = settings.reports / "a b" / "index.html"
    assert link_to(settings, report) == report.absolute().as_uri()
    started = processes.Started(1, 1.0, "log", [], "http://127.0.0.1:3001")
    processes.record(settings, {"pages": started})
    assert link_to(settings, report) == "http://127.0.0.1:3001/reports/a%20b/index.html"
    assert link_to(settings, settings.releases / "r").startswith("file://")


def test_commands_use_the_server_of_up_only_if_it_answers(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr("sys.argv", ["shortlist", "refresh"])
    monkeypatch.setattr("httpx.get", lambda *_, **__: httpx.Response(503))
    started = processes.Started(1, 1.0, "log", [], "http://127.0.0.1:4200")
    processes.record(settings, {"server": started})
    import os

    _use_server_of(settings.home)
    assert "PREFECT_API_URL" not in os.environ
    monkeypatch.setattr("httpx.get", lambda *_, **__: httpx.Response(200))
    monkeypatch.setenv("PREFECT_API_URL", "mine")
    _use_server_of(settings.home)
    assert os.environ["PREFECT_API_URL"] == "mine"
    monkeypatch.delenv("PREFECT_API_URL")
    _use_server_of(settings.home)
    assert os.environ.pop("PREFECT_API_URL") == "http://127.0.0.1:4200/api"


def test_only_the_owner_can_read_a_home(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    for _ in range(2):
        _private(home)
        assert home.stat().st_mode & 0o777 == 0o700
        home.chmod(0o755)


def test_held_locks_are_named_with_their_holder(settings: Settings) -> None:
    with home_lock(settings, "release", what="shortlist promote r1"):
        (held,) = held_locks(settings)
        assert (held["name"], held["what"]) == ("release", "shortlist promote r1")
    assert held_locks(settings) == []
