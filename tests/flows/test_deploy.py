"""Deployments on a real Prefect server with a real worker, in a temporary folder."""

import json
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import httpx
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.deploy import (
    DEPLOYMENTS,
    DeployError,
    deploy_all,
    deployments_of,
    remove_former,
    write_prefect_file,
)
from flows.operations.automations import automation_names
from flows.releases.service_process import free_port
from shortlist.config import Settings
from tests.conftest import new_prefect_home
from tests.flows.conftest import ROOT_TOML as CONFIG
from tests.flows.conftest import write_lake
from tests.prefect_server import answers

pytestmark = pytest.mark.slow


class Hook(BaseHTTPRequestHandler):
    """Receives notifications."""

    received: ClassVar[list[dict]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.received.append(json.loads(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hook(monkeypatch):
    """Serve a webhook, and set it as the home's notification channel."""
    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}/hook"
        monkeypatch.setenv("SHORTLIST_NOTIFY_WEBHOOK", url)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Hook.received
        server.shutdown()
        thread.join()


@pytest.fixture
def prefect(tmp_path, monkeypatch):
    """Start a Prefect server and a worker, set the environment for them, and yield the API's URL.

    Both processes end with the test.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    variables = {
        "PREFECT_HOME": str(new_prefect_home(tmp_path / "prefect")),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "SHORTLIST_HOME": str(tmp_path / "home"),
        "DO_NOT_TRACK": "1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    processes = []

    def start(*arguments: str) -> None:
        log = (tmp_path / f"{arguments[0]}.log").open("wb")
        command = [sys.executable, "-m", "prefect", *arguments]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
        processes.append(process)

    start("server", "start", "--host", "127.0.0.1", "--port", str(port))
    wait_for(lambda: answers(f"{url}/health"), seconds=120, what="the Prefect server")
    # The worker creates its work pool, as `shortlist deploy` would.
    start("worker", "start", "--pool", f"shortlist-{Settings().home_name}", "--type", "process")
    yield url
    for process in reversed(processes):
        process.terminate()
    for process in processes:
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for(found, *, seconds: float, what: str):
    """Call `found` until its result is true; return the result."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(1)
    raise AssertionError(f"{what}: nothing after {seconds:.0f} s")


def deployment(url: str, name: str, settings: Settings) -> dict:
    return httpx.get(f"{url}/deployments/name/{name}-{settings.home_name}").json()


def test_deployments_are_registered_run_and_notify(prefect, hook, tmp_path, monkeypatch):
    url, settings = prefect, Settings()
    monkeypatch.setenv("SHORTLIST_REFRESH_MINUTES", "5")
    write_lake(tmp_path / "home" / "lake")
    config = tmp_path / "tiny.toml"
    config.write_text(CONFIG)
    other = Settings(home=tmp_path / "other" / "home")
    other_config = tmp_path / "other.toml"
    other_config.write_text(CONFIG.replace("popularity", "recent_popularity"))
    with temporary_settings({PREFECT_API_URL: url}):
        for _ in range(2):  # the second call replaces what the first created
            deployed = deploy_all(config)
        names = deployed["deployments"]
        assert deployed["channels"] == ["webhook"]
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("SHORTLIST_HOME", str(other.home))
            theirs = deploy_all(other_config)
    assert names == deployments_of(settings)
    assert theirs["deployments"] == deployments_of(other)
    assert theirs["worker"] == f"prefect worker start --pool shortlist-{other.home_name}"
    pools = {pool["name"] for pool in httpx.post(f"{url}/work_pools/filter", json={}).json()}
    assert pools == {f"shortlist-{one.home_name}" for one in (settings, other)}
    variables = httpx.post(f"{url}/variables/filter", json={}).json()
    assert len(variables) == 8  # four per home

    deployed = {name: deployment(url, name, settings) for name in DEPLOYMENTS}
    assert {d["work_pool_name"] for d in deployed.values()} == {f"shortlist-{settings.home_name}"}
    again = deployment(url, "shortlist/weekly", other)["parameters"]["config"]
    assert again["train"]["sources"] == [{"kind": "recent_popularity"}]
    assert deployed["take-in/ingest"]["schedules"] == deployed["backfill/range"]["schedules"] == []
    ranged = deployed["backfill/range"]["parameter_openapi_schema"]
    assert {"start", "end"} <= set(ranged["required"])
    assert ranged["properties"]["start"]["format"] == "date"
    assert deployed["refresh/hourly"]["schedules"][0]["schedule"]["interval"] == 300
    assert deployed["watch/monitoring"]["schedules"][0]["schedule"]["cron"] == "45 * * * *"
    automations = httpx.post(f"{url}/automations/filter", json={}).json()
    both = [*automation_names(settings), *automation_names(other)]
    assert sorted(one["name"] for one in automations) == sorted(both)
    described = deployed["shortlist/weekly"]["parameter_openapi_schema"]["properties"]
    assert described["resume"]["description"].startswith("id of an unfinished run")
    assert all("description" in one for one in described.values())
    daily, weekly = deployed["shortlist/daily"], deployed["shortlist/weekly"]
    assert daily["parameters"]["incremental"]
    assert "incremental" not in weekly["parameters"]
    assert daily["parameters"]["config"] == weekly["parameters"]["config"]
    assert deployed["refresh/hourly"]["parameters"] == {"config": str(config)}
    assert deployed["skew/daily"]["schedules"][0]["schedule"]["cron"] == "45 1 * * *"
    assert deployed["skew/daily"]["entrypoint"] == "flows/check_skew.py:skew_flow"
    assert weekly["parameters"]["config"]["train"]["sources"] == [{"kind": "popularity"}]

    def created(name, hours_late=0):
        id_ = deployed[name]["id"]
        when = datetime.now(UTC) - timedelta(hours=hours_late)
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": when.isoformat()}}
        answer = httpx.post(
            f"{url}/deployments/{id_}/create_flow_run", json={"state": state}, timeout=30
        )
        if (
            answer.status_code == 503
        ):  # The server's database is locked; Prefect's client would retry.
            return None
        return answer.raise_for_status().json()

    # As after an outage: several missed runs of the same deployment.
    *missed, failing = (
        wait_for(lambda given=given: created(*given), seconds=60, what="the run's creation")
        for given in (*(("refresh/hourly", hours) for hours in (3, 2, 1)), ("watch/monitoring",))
    )

    def ended(run):
        state = httpx.get(f"{url}/flow_runs/{run['id']}", timeout=30).json()["state"]
        final = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        return state if state["type"] in final else None

    states = [
        wait_for(lambda run=run: ended(run), seconds=240, what="the hourly run") for run in missed
    ]
    types = sorted(state["type"] for state in states)
    log = (tmp_path / "worker.log").read_text()[-3_000:]
    # One run does the work of all: a missed one, or on a slow machine that of the schedule.
    assert types in (["CANCELLED", "CANCELLED", "COMPLETED"], ["CANCELLED"] * 3), log
    packs = tmp_path / "home" / "packs"
    assert wait_for(lambda: list(packs.glob("*.parquet")), seconds=240, what="features")
    assert wait_for(lambda: ended(failing), seconds=240, what="monitoring")["name"] == "Failed"
    (notified,) = wait_for(lambda: hook, seconds=60, what="the notification")
    assert notified["title"] == f"Shortlist {settings.home_name}: watch is Failed"
    assert "no response of a release that is still stored" in notified["text"]
    wanted = {"filter": {"event": {"name": ["shortlist.features.updated"]}}}

    def emitted():  # the server stores events a moment after they arrive
        return httpx.post(f"{url}/events/filter", json=wanted, timeout=30).json()["events"]

    (event,) = wait_for(emitted, seconds=60, what="the event")
    lake = f"shortlist.{settings.home_name}.lake.1"
    assert lake in [one["prefect.resource.id"] for one in event["related"]]

    def scheduled():
        wanted = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        runs = httpx.post(f"{url}/flow_runs/filter", json=wanted).json()
        return {r["deployment_id"] for r in runs if r["auto_scheduled"]}

    everything = {d["id"] for d in deployed.values() if d["schedules"]}
    wait_for(lambda: everything <= scheduled(), seconds=90, what="the scheduler's runs")


@pytest.mark.usefixtures("prefect_here")
def test_a_deployment_that_the_file_no_longer_has_is_deleted(tmp_path):
    ours, theirs = (Settings(home=tmp_path / name / "home") for name in ("a", "b"))
    file = write_prefect_file(ours)
    entrypoint = "flows/run.py:run_flow"
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow_from_name("shortlist")
        for name, home in (("nightly", ours), ("weekly", ours), ("nightly", theirs)):
            client.create_deployment(
                flow_id,
                f"{name}-{home.home_name}",
                entrypoint=entrypoint,
                tags=["shortlist", f"home:{home.home_name}"],
            )
        assert remove_former(client, ours, file) == [f"nightly-{ours.home_name}"]
        assert remove_former(client, ours, file) == []
        left = {one.name for one in client.read_deployments()}
    assert {f"weekly-{ours.home_name}", f"nightly-{theirs.home_name}"} <= left


def test_a_backfill_waits_for_another_range(tmp_path):
    listed = yaml.safe_load(write_prefect_file(Settings(home=tmp_path)).read_text())["deployments"]
    limits = {one["entrypoint"]: one["concurrency_limit"] for one in listed}
    waits = limits.pop("flows/backfill.py:backfill_flow")
    assert waits == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert {one["collision_strategy"] for one in limits.values()} == {"CANCEL_NEW"}


def test_without_a_server_the_error_says_what_to_start(tmp_path):
    config = tmp_path / "tiny.toml"
    config.write_text(CONFIG)
    gone = f"http://127.0.0.1:{free_port()}/api"
    with (
        temporary_settings({PREFECT_API_URL: gone}),
        pytest.raises(DeployError, match=f"no Prefect server at PREFECT_API_URL={gone}"),
    ):
        deploy_all(config)
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(DeployError, match="PREFECT_API_URL is not set"),
    ):
        deploy_all(config)
