"""A click-bait challenger is stopped by itself: real service, Prefect server, worker and flows.

The simulated users click what is loud and regret it. The champion orders by the grades that users
give; the challenger by clicks. It gains click-through, and the board stops it.
"""

import contextlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.closed_loop.arms import parse_arms
from flows.closed_loop.nights import first_release, release_info, run_config
from flows.closed_loop.service_loop import ServiceLoop
from flows.closed_loop.setting import Schedule, Setting
from flows.deploy import deploy_all
from flows.evaluate import evaluate_flow
from flows.package import package_flow
from flows.releases.service_process import free_port, running_service
from flows.runtime.configuration import RunConfig
from flows.runtime.runs import Run
from flows.simulate import open_setting
from flows.train import train_flow
from flows.training.release import at_home
from flows.watch.canary import start_experiment
from shortlist.config import Settings
from shortlist.datasets.service.traffic_log import load_traffic_log
from shortlist.experiment import ExperimentConfig, past_experiments, running_experiment
from shortlist.home.audit import read_audit
from shortlist.home.switches import in_force
from shortlist.http.client import ShortlistClient
from shortlist.releases.release import ReleaseStore
from tests.conftest import new_prefect_home
from tests.examples import endurance

pytestmark = [
    pytest.mark.slow,
    endurance("two trainings and days of traffic"),
]
ROOT = Path(__file__).resolve().parents[2]
WORLD = """
name = "bait"
days = 30
[population]
users = 3000
users_per_day = 4
[catalogue]
items = 200
items_per_day = 2
topics = 8
dim = 8
appeal_quality = -0.4
[behaviour]
click_appeal = 1.5
click_affinity = 1.2
satisfaction = 1.0
satisfaction_quality = 0.8
satisfaction_clickbait = 0.6
rating = 0.7
survey = 0.5
[logging]
loudness = 0.9
"""
POPULARITY = parse_arms("popularity")[0]
GRADES = {"rating": 1.0}
DAYS = 4
"""Days on which the canary may run; the board is judged after each."""


def started(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "prefect", *command],
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
    )


@contextlib.contextmanager
def prefect(folder: Path, monkeypatch, pool: str):
    """Run a Prefect server and a worker; yield the API's URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    for name, value in {
        "PREFECT_HOME": str(new_prefect_home(folder / "prefect")),
        "PREFECT_API_URL": url,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    server = started(["server", "start", "--host", "127.0.0.1", "--port", str(port)], folder / "s")
    processes = [server]
    try:
        wait(lambda: httpx.get(f"{url}/health", timeout=5).status_code == 200, 180, "the server")
        worker = ["worker", "start", "--pool", pool, "--type", "process"]
        processes.append(started(worker, folder / "worker.log"))
        yield url
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def wait(found, seconds: float, what: str):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if result := found():
                return result
        time.sleep(1)
    raise AssertionError(f"{what}: nothing after {seconds:.0f} s")


def monitored(url: str, settings: Settings, log: Path) -> None:
    """Run the deployment `watch/monitoring` on the worker to its end.

    It ends as completed, or as `Held` if a guardrail raised an alarm.
    """
    name = f"watch/monitoring-{settings.home_name}"
    deployment = httpx.get(f"{url}/deployments/name/{name}").raise_for_status().json()
    create = f"{url}/deployments/{deployment['id']}/create_flow_run"
    run = wait(lambda: _made(httpx.post(create, json={}, timeout=30)), 60, "the flow run")

    def ended():
        state = httpx.get(f"{url}/flow_runs/{run['id']}", timeout=30).json()["state"]
        return state if state["type"] in ("COMPLETED", "FAILED", "CRASHED") else None

    state = wait(ended, 400, "monitoring")
    assert state["type"] == "COMPLETED" or state["name"] == "Held", log.read_text()[-4_000:]


def _made(answer: httpx.Response):
    return None if answer.status_code == 503 else answer.raise_for_status().json()


def ranked_by(kind: str, config: RunConfig) -> RunConfig:
    """Return the config with one ranker: `value` orders by expected grades, others by clicks."""
    content = config.model_dump(mode="json")
    content["train"]["rankers"] = [{"kind": kind}]
    content["value"] = GRADES if kind == "value" else {}
    return RunConfig.model_validate(content)


def challenger_of(setting: Setting, settings: Settings) -> str:
    """Train the click-bait release, whose ranker learns from clicks; it isn't promoted."""
    run = Run.start(settings, ranked_by("lambdamart", run_config(setting, POPULARITY)))
    train_flow(run.run_id)
    evaluate_flow(run.run_id)
    release_id = package_flow(run.run_id, bento=False)["release_id"]
    run.end(settings)
    return release_id


def test_a_click_bait_challenger_is_stopped_by_itself(tmp_path, monkeypatch):
    world = tmp_path / "bait.toml"
    world.write_text(WORLD)
    schedule = Schedule(warm_days=14, shadow_days=0, retrain_days=30)
    setting = open_setting(str(world), days=DAYS, schedule=schedule, cache=tmp_path / "cache")
    arm = POPULARITY
    loop = ServiceLoop(setting, arm, tmp_path / "loop")
    for day in range(schedule.start):
        loop._keep(loop.run_day(day))
    config = ranked_by("value", run_config(setting, arm))
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("SHORTLIST_HOME", str(home))
    monkeypatch.setenv("PREFECT_HOME", str(new_prefect_home(tmp_path / "ephemeral")))
    with at_home(home) as settings:
        first_release(config)
        champion = ReleaseStore(settings.releases).current_id()
        challenger = challenger_of(setting, settings)
        assert ReleaseStore(settings.releases).current_id() == champion
        path = tmp_path / "run.toml"
        path.write_text(as_toml(world, config.data.simulated))
        pool = f"shortlist-{settings.home_name}"
        with (
            prefect(tmp_path, monkeypatch, pool) as url,
            temporary_settings({PREFECT_API_URL: url}),
            running_service(log=home / "service.log", clock="replay") as service,
            ShortlistClient(service) as client,
        ):
            deploy_all(path)
            start_experiment(settings, canary(challenger), now=setting.world.midnight(14))
            wait(lambda: forced(service), 120, "the challenger in the service")
            known = release_info(settings)["items"]
            for day in range(schedule.start, setting.end):
                loop._keep(loop.serve_day(client, day, known_items=known)[0])
                monitored(url, settings, tmp_path / "worker.log")
                if running_experiment(settings) is None:
                    break
            stopped = httpx.post(
                f"{service}/recommend", json={"user_id": setting.user_ids[0], "arm": "new"}
            )
    assert running_experiment(settings) is None, f"the canary still runs: {board_of(settings)}"
    outcome = past_experiments(settings)[0]["outcome"]
    assert outcome.startswith("stopped by 'clicks rise and"), outcome
    # Not `== champion`: an alarm about drift may have retrained and promoted the champion's recipe.
    assert ReleaseStore(settings.releases).current_id() != challenger
    (hold,) = in_force(settings, "holds").values()
    assert hold["release_id"] == challenger
    (line,) = [one for one in read_audit(settings) if one["command"] == "act stop_canary"][:1]
    assert line["evidence"]["value"] < line["evidence"]["compared_with"]
    requests, _ = load_traffic_log(settings.serving_log)
    arms = requests.to_pandas().groupby("arm")["user_id"].nunique()
    assert min(arms["old"], arms["new"]) > 100
    assert stopped.status_code == 400, "no arm is left"
    latest = json.loads((settings.reports / "latest.json").read_text())
    assert "stopped by" in Path(latest["report"]).read_text() or latest["verdict"] == "hold"


def board_of(settings: Settings) -> str:
    """Return what the newest morning page says about the rules that compare arms."""
    latest = json.loads((settings.reports / "latest.json").read_text())
    page = (Path(latest["report"]).parent / "morning.html").read_text()
    text = " ".join(re.sub(r"<svg.*?</svg>|<[^>]+>", " ", page, flags=re.DOTALL).split())
    return " | ".join(re.findall(r"(?:clicks rise|canary:) .{0,200}", text))


def canary(challenger: str) -> ExperimentConfig:
    arms = [{"name": "old", "share": 0.5}, {"name": "new", "share": 0.5, "release": challenger}]
    content = {"name": "bait", "champion": "old", "challenger": "new", "arm": arms}
    return ExperimentConfig.model_validate(content)


def forced(service: str) -> bool:
    """Return whether the service answers with the challenger."""
    body = {"user_id": "somebody", "arm": "new"}
    return httpx.post(f"{service}/recommend", json=body, timeout=10).status_code == 200


def as_toml(world: Path, simulated) -> str:
    return f"""
name = "bait-grades"
[data]
source = "simulated"
target_events = ["click", "rating", "survey"]
clock = "replay"
[data.simulated]
preset = "{world}"
seed = {simulated.seed}
days = {simulated.days}
log_days = {simulated.log_days}
[train]
sources = [{{ kind = "popularity" }}, {{ kind = "recent_popularity" }}]
rankers = [{{ kind = "value" }}]
[value]
rating = 1.0
[monitor]
guardrails = "{ROOT / "configs/guardrails.toml"}"
"""
