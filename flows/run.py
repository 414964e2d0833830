"""The main job: one flow of subflows, from raw source to a served, monitored release."""

import resource
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from prefect import flow

from flows.configuration import RunConfig
from flows.evaluate import evaluate_flow
from flows.featurize import featurize_flow
from flows.ingest import ingest_flow
from flows.monitor import monitor_flow
from flows.package import package_flow
from flows.promote import promote_flow
from flows.refresh import refresh
from flows.replay import replay_flow
from flows.runs import Run
from flows.train import train_flow
from flows.validate import validate_flow
from shortlist import columns as c
from shortlist.config import Settings
from shortlist.feature_store import home_clock
from shortlist.feature_store.snapshots import Snapshots
from shortlist.lake import Lake

WEEK = 7 * c.MICROSECONDS_PER_DAY


@flow(name="shortlist", log_prints=True)
def run_flow(config: RunConfig, monitor: bool = True) -> dict[str, Any]:
    """Ingest, validate, featurize, train, evaluate, package, promote, then replay and monitor."""
    settings = Settings()
    clock = StepClock()
    batch = clock.run("ingest", ingest_flow, config.data)
    validated = clock.run(
        "validate", validate_flow, batch["batch_id"], config.validation, clock=config.data.clock
    )
    run = Run.start(settings, config)
    until = run.windows["replay"][0]
    # Only a demo's first run stands at the beginning of its replay window. Features that are newer
    # belong to a deployment in use: they go forward only, and no old traffic is sent to it.
    demo = home_clock(settings, config.data.clock).kind == "replay" and not has_states(settings)
    if demo:
        clock.run("featurize", featurize_flow, config.data.target_events, until)
    else:
        clock.run("refresh", refresh, settings, config)
    clock.run("train", train_flow, run.run_id)
    evaluation = clock.run("evaluate", evaluate_flow, run.run_id)
    packaged = clock.run("package", package_flow, run.run_id)
    promoted = clock.run("promote", promote_flow, packaged["release_id"], gates=str(config.gates))
    summary: dict[str, Any] = {
        "run_id": run.run_id,
        "dataset": config.name,
        "data": validated,
        "example_user": example_user(settings, until=until),
        "release_id": packaged["release_id"],
        "bento": packaged["bento"],
        "promoted": promoted["promoted"],
        "gates": promoted["gates"],
        "metrics": evaluation["metrics"],
        "chain_ahead": evaluation["chain_ahead"],
        "slices": evaluation["slices"],
        "n_requests": evaluation["n_requests"],
        "n_users": evaluation["n_users"],
    }
    if monitor and promoted["promoted"] and demo:
        replayed = clock.run("replay", replay_flow, run.run_id)
        watched = clock.run("monitor", monitor_flow, run.run_id)
        summary |= {"replay": replayed, "monitor": watched}
    summary |= {"seconds": clock.seconds, "peak_memory_gb": peak_memory_gb()}
    run.write("summary.json", summary)
    return summary


def has_states(settings: Settings) -> bool:
    return Snapshots.read(settings.features) is not None


def example_user(settings: Settings, *, until: int) -> str:
    """Who did most in the week before `until`, where the release's own knowledge ends, and nothing
    after: somebody whose list shows what the models know. The replay clock stays at `until`; a
    state that a replay has moved on would know that user's future.
    """
    lake = Lake(settings.lake)
    after = set(lake.interactions(since=until).column(c.USER_ID).to_pylist())
    before = lake.interactions(since=until - WEEK, until=until).column(c.USER_ID).to_pylist()
    ranked = Counter(before).most_common()
    return next((user for user, _ in ranked if user not in after), ranked[0][0])


class StepClock:
    """Runs steps and remembers how long each took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def run(self, name: str, step: Callable[..., Any], /, *args: Any, **parameters: Any) -> Any:
        started = time.perf_counter()
        result = step(*args, **parameters)
        self.seconds[name] = round(time.perf_counter() - started, 1)
        print(f"{name}: done in {self.seconds[name]} s")
        return result


def peak_memory_gb() -> float:
    """Largest resident size of this process and of any finished child, in GB."""
    own, children = (
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return round(max(own, children) * 1024 / 1e9, 2)
