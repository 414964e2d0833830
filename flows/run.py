"""The main job: a flow of subflows, from the raw source to a promoted and monitored release.

Features are always updated to the current time, never to an earlier one such as the edge of a
window. A demo with an old data set holds its newest events back from the lake. After promotion, the
job replays these events as traffic of the new release.
"""

import resource
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.evaluate import evaluate_task
from flows.ingest import ingest_flow
from flows.monitor import monitor_flow
from flows.operations import artifacts, lineage
from flows.operations.cancelled import cancelled_at, end_cancelled_run, link_flow_run
from flows.operations.endings import HELD, REFUSED, ended, hold, refusal
from flows.package import package_step
from flows.promote import promote_step
from flows.refresh import refresh
from flows.replay import BEGUN, replay_flow
from flows.runtime.base import IncrementalError, NothingNew
from flows.runtime.configuration import RunConfig
from flows.runtime.runs import Run, RunError
from flows.runtime.steps import Steps
from flows.train import train_step
from flows.validate import ValidationFailed, validate_flow
from models.registry import BASELINES
from shortlist import columns as c
from shortlist.config import Settings
from shortlist.home.home_lock import home_lock
from shortlist.lake import Lake
from shortlist.validation.hold_back import held_back_events

WEEK = 7 * c.MICROSECONDS_PER_DAY
STEPS = ("ingest", "validate", "featurize", "train", "evaluate", "package", "promote")
"""The steps of every run; a demo's run has replay, refresh and monitor after them."""


@flow(name="shortlist", log_prints=True, on_cancellation=[end_cancelled_run])
def run_flow(
    config: RunConfig,
    monitor: bool = True,
    resume: str | None = None,
    incremental: bool = False,
) -> dict[str, Any] | State[Any]:
    """Run all steps in order: ingest, validate, featurize, train, evaluate, package, promote; for a
    demo also replay, refresh and monitor.

    The flow run ends as Refused if validation refuses the data, if a gate refuses the release, or
    if the serving release can't be continued; and as Held if the verdict of the guardrails is
    `hold`.

    Args:
        config: the run's configuration, the content of its TOML file.
        monitor: whether to run the last three steps.
        resume: id of an unfinished run. It continues after its last finished step, with the config
            in its folder; `config` is ignored. Steps that were run by single commands count as
            finished.
        incremental: continue the serving release on the events after it, with its hyperparameters
            and its chain. If there are none, the flow run ends as NothingNew, a completed state.

    Returns:
        The summary, also written to summary.json in the run's folder.

    Raises:
        ValidationFailed: validation refused the data.
        PromotionRefused, TrafficHeld: the run is complete; `result` is the summary.
        RunError: there is no run `resume`, or it was cancelled.
    """
    try:
        summary = run_all(
            Settings(), config, monitor=monitor, resume=resume, incremental=incremental
        )
    except NothingNew as error:
        print(f"run: {error}")
        return Completed(name="NothingNew", message=str(error), data={"nothing_new": str(error)})
    except (ValidationFailed, IncrementalError) as error:
        return ended(REFUSED, error)
    if not summary["promoted"]:
        return ended(REFUSED, refusal(summary))
    watched = summary.get("monitor")
    if watched is not None and watched["verdict"] == "hold":
        return ended(HELD, hold(watched, summary))
    return summary


def run_all(
    settings: Settings,
    config: RunConfig,
    *,
    monitor: bool,
    resume: str | None,
    incremental: bool = False,
) -> dict[str, Any]:
    """Do the work of `run_flow`; return the summary whatever the verdicts are."""
    if resume is None:
        run = Run.create(settings, config, incremental=incremental)
        print(f"run: {run.run_id}; if interrupted, `shortlist run --resume {run.run_id}` continues")
    else:
        run = Run.open(settings, resume)
        config = run.config
        if (at := cancelled_at(run)) is not None:
            raise RunError(
                f"{run.path}: was cancelled at {at}, so the data it read may be gone; start a new"
                " run with `shortlist run`"
            )
    link_flow_run(run, flow_run.id)
    shown = artifacts.Progress(settings, STEPS)
    steps = Steps(run, on_finished=shown.finished)
    if not run.is_frozen:
        take_in(settings, config, steps)
        features = steps.perform("featurize", refresh, settings, config, source=False)["features"]
        lineage.updated_features(settings, Lake(settings.lake).manifest.version, features)
    with home_lock(settings, "train", what="shortlist run"):
        try:
            run.freeze(settings)
            steps.perform("train", train_step, run.run_id)
        except NothingNew:
            run.discard(settings)
            raise
        evaluation = steps.perform("evaluate", evaluate_task, run.run_id)
        artifacts.show_metrics(settings, evaluation)
        packaged = steps.perform("package", package_step, run.run_id)
        gates = str(config.gates)
        promoted = steps.perform("promote", promote_step, packaged["release_id"], gates=gates)
    summary: dict[str, Any] = {
        "run_id": run.run_id,
        "dataset": config.name,
        "data": steps.result("validate"),
        "trained_on": steps.result("train")["data"],
        "fitted": fitted(run),
        "example_user": example_user(settings, run),
        "release_id": packaged["release_id"],
        "bento": packaged["bento"],
        "promoted": promoted["promoted"],
        "serving": promoted["serving"],
        "gates": promoted["gates"],
        "metrics": evaluation["metrics"],
        "baselines": [name for name in BASELINES if name in evaluation["metrics"]],
        "chain_ahead": evaluation["chain_ahead"],
        "slices": evaluation["slices"],
        "n_requests": evaluation["n_requests"],
        "n_users": evaluation["n_users"],
    }
    if monitor and promoted["promoted"]:
        summary |= replay_and_monitor(settings, run, steps)
    summary |= {"seconds": steps.seconds, "peak_memory_gb": peak_memory_gb()}
    run.write("summary.json", summary)
    run.end(settings)
    return summary


def take_in(settings: Settings, config: RunConfig, steps: Steps) -> None:
    """Ingest and validate a batch of new rows.

    If a run was killed after it published the batch but before it recorded the step, the staged
    batch no longer exists. Then the source is read again, which is fast because no row is new.
    """
    batch = steps.perform("ingest", ingest_flow, config.data)
    validated = steps.result("validate") is not None
    if not validated and not Lake(settings.lake).incoming(batch["batch_id"]).is_dir():
        batch = steps.redo("ingest", ingest_flow, config.data)
    clock = config.data.clock
    step = (validate_flow, batch["batch_id"], config.validation)
    result = steps.perform("validate", *step, clock=clock)
    artifacts.show_data(settings, result)
    lineage.published_lake(settings, config.data.source, result)


def replay_and_monitor(settings: Settings, run: Run, steps: Steps) -> dict[str, Any]:
    """Replay a demo's held-back events, refresh, and monitor.

    A deployment with real users has no held-back events, so this does nothing. `shortlist monitor`
    reports on the real traffic later.
    """
    since = run.config.clock(settings).now()
    sent_all = held_back_events(settings, since=since).num_rows == 0
    begun = (run.path / BEGUN).exists()
    if sent_all and not begun:
        print(
            "run: no held-back events, so nothing is replayed; run `shortlist monitor` when the"
            " service has answered requests"
        )
        return {}
    if (
        sent_all and "replay" not in steps.finished
    ):  # the replay was killed after it had sent all events
        replayed = None
    else:
        replayed = steps.perform("replay", replay_flow, run.run_id)
    steps.perform("refresh", refresh, settings, run.config, source=False)
    if replayed is not None and replayed["requests"] == 0:
        print(
            "run: no user chose a new item in the held-back events, so no list was requested and"
            " there is nothing to monitor; want a larger data.hold_back"
        )
        return {"replay": replayed}
    watched = steps.perform("monitor", monitor_flow, run.run_id)
    artifacts.show_guardrails(settings, watched)
    if watched["verdict"] == "hold":
        lineage.held_traffic(settings, watched)
    return {"replay": replayed, "monitor": watched}


def fitted(run: Run) -> dict[str, dict[str, Any]]:
    """Return {part of the release: number of events it was fitted on, and until when (ISO)}."""
    spans = run.read("about.json", made_by="train")["fitted"]
    return {
        part: {"events": span["events"], "until": as_date(span["until"])}
        for part, span in spans.items()
    }


def as_date(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="seconds")


def example_user(settings: Settings, run: Run) -> str:
    """Return the user with most target events (which models learn from) in the data's last week."""
    week = run.lake(settings).interactions(
        since=run.data_end - WEEK,
        until=run.data_end,
        event_types=run.config.data.target_events,
    )
    users = week.column(c.USER_ID).to_pylist()
    return Counter(users).most_common(1)[0][0]


def peak_memory_gb() -> float:
    """Return the maximum resident memory of this process or of any finished child, in GB."""
    process, children = (
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return round(max(process, children) * 1024 / 1e9, 2)
