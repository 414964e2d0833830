"""Deployments on a real Prefect server with a real worker, in a temporary folder."""

import subprocess
import sys
import time

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.deploy import DEPLOYMENTS, DeployError, deploy_all, deployments_of
from flows.releases.service_process import free_port
from shortlist.config import Settings
from tests.conftest import new_prefect_home
from tests.flows.conftest import write_lake

pytestmark = pytest.mark.slow
CONFIG = """
name = "tiny"
[data]
source = "movielens-100k"
clock = "replay"
[train]
sources = [{ kind = "popularity" }]
rankers = [{ kind = "lambdamart" }]
"""


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
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


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


def test_deployments_are_registered_scheduled_and_run_to_completion(prefect, tmp_path, monkeypatch):
    url, settings = prefect, Settings()
    write_lake(tmp_path / "home" / "lake")
    config = tmp_path / "tiny.toml"
    config.write_text(CONFIG)
    other = Settings(home=tmp_path / "other" / "home")
    other_config = tmp_path / "other.toml"
    other_config.write_text(CONFIG.replace("popularity", "recent_popularity"))
    with temporary_settings({PREFECT_API_URL: url}):
        names = deploy_all(config)["deployments"]
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
    again = deployment(url, "shortlist/nightly", other)["parameters"]["config"]
    assert again["train"]["sources"] == [{"kind": "recent_popularity"}]
    assert all(d["schedules"][0]["schedule"]["cron"] for d in deployed.values())
    assert deployed["refresh/hourly"]["parameters"] == {"config": str(config)}
    assert deployed["skew/daily"]["schedules"][0]["schedule"]["cron"] == "45 1 * * *"
    assert deployed["skew/daily"]["entrypoint"] == "flows/check_skew.py:skew_flow"
    nightly = deployed["shortlist/nightly"]["parameters"]["config"]
    assert nightly["train"]["sources"] == [{"kind": "popularity"}]

    id_ = deployed["refresh/hourly"]["id"]

    def created():
        answer = httpx.post(f"{url}/deployments/{id_}/create_flow_run", json={}, timeout=30)
        if (
            answer.status_code == 503
        ):  # The server's database is locked; Prefect's client would retry.
            return None
        return answer.raise_for_status().json()

    run = wait_for(created, seconds=60, what="the run's creation")

    def ended():
        state = httpx.get(f"{url}/flow_runs/{run['id']}").json()["state"]
        return state if state["type"] in ("COMPLETED", "FAILED", "CRASHED") else None

    state = wait_for(ended, seconds=240, what="the hourly run")
    assert state["type"] == "COMPLETED", (tmp_path / "worker.log").read_text()[-3_000:]
    assert list((tmp_path / "home" / "packs").glob("*.parquet"))

    def scheduled():
        wanted = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        runs = httpx.post(f"{url}/flow_runs/filter", json=wanted).json()
        return {r["deployment_id"] for r in runs if r["auto_scheduled"]}

    everything = {d["id"] for d in deployed.values()}
    wait_for(lambda: everything <= scheduled(), seconds=90, what="the scheduler's runs")


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
