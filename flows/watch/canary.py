"""Starts and ends experiments, and promotes a canary whose time is over without a broken rule.

A canary is promoted by the same gates as any other release, but those that compare it with the
champion on past events: it was compared on live traffic.
"""

from datetime import UTC, datetime
from typing import Any

from flows.releases.acknowledge import wait_for_workers
from flows.watch.traffic import arms_of
from monitoring.board.config import GuardrailFile
from monitoring.board.judge import Board, compare_arms
from monitoring.board.sequential import interval
from monitoring.traffic.join import DAY, Traffic
from monitoring.traffic.measures import MEASURES
from shortlist.config import ConfigError, Settings, load_toml
from shortlist.experiment import (
    Experiment,
    ExperimentConfig,
    archive_experiment,
    running_experiment,
    write_experiment,
)
from shortlist.home.audit import write_audit
from shortlist.releases.gates import GatesConfig
from shortlist.releases.promotion import gates_file, promote_release
from shortlist.releases.release import ReleaseError, ReleaseStore

REPORTED = (
    "click_through", "taken_rate", "conversion", "revenue_per_user", "watch_seconds",
    "watch_seconds_per_click", "satisfaction", "hide_rate", "retention_1", "retention_7",
    "diversity", "requests_per_user",
)  # fmt: skip
ALPHA, MATTERS = 0.05, 0.1


def start_experiment(settings: Settings, config: ExperimentConfig, *, now: int) -> Experiment:
    """Start an experiment; service workers split users when all its releases are loaded.

    Args:
        now: microseconds of the home's clock.

    Raises:
        ConfigError: an experiment runs already, or its name was used before.
        ReleaseError: a release of an arm doesn't exist or is damaged.
    """
    running = running_experiment(settings)
    if running is not None:
        raise ConfigError(
            f"experiment '{running.name}' runs since {running.started_at}; end it with"
            " `shortlist experiment stop` first"
        )
    if (settings.home / "experiments" / f"{config.name}.json").exists():
        raise ConfigError(f"experiment '{config.name}' has ended; want a new name")
    store = ReleaseStore(settings.releases)
    for arm in config.arm:
        store.open(arm.release)
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    experiment = Experiment(config=config, started=now, started_at=started_at)
    write_experiment(settings, experiment)
    serving = store.current_id()
    reason = f"{config.name}: " + ", ".join(f"{a.name} {a.share:.0%}" for a in config.arm)
    write_audit(settings, "experiment start", before=serving, after=serving, reason=reason)
    return experiment


def stop_experiment(settings: Settings, *, now: int, reason: str) -> Experiment:
    """End the running experiment; all users get the promoted release.

    Raises:
        ConfigError: no experiment runs.
    """
    experiment = running_experiment(settings)
    if experiment is None:
        raise ConfigError("no experiment runs; start one with `shortlist experiment start FILE`")
    ended = experiment.model_copy(update={"ended": now, "outcome": reason})
    archive_experiment(settings, ended)
    serving = ReleaseStore(settings.releases).current_id()
    write_audit(
        settings,
        "experiment stop",
        before=serving,
        after=serving,
        reason=f"{experiment.name}: {reason}",
    )
    return ended


def end_canary(
    settings: Settings, experiment: Experiment, traffic: Traffic, board: Board, *, now: int
) -> str | None:
    """Promote the challenger of a canary that has had its time, users and no broken guardrail.

    Returns:
        What was done or why the canary goes on; None for other experiments.
    """
    config = experiment.config
    if config.purpose != "canary":
        return None
    left = experiment.started + config.days * DAY - now
    if left > 0:
        return f"canary {config.name}: {left / DAY:.1f} days left"
    arms = traffic.requests[traffic.requests["at"] >= experiment.started]
    users = arms.groupby("arm")["user_id"].nunique().to_dict()
    few = [name for name in config.shares if users.get(name, 0) < config.min_users]
    if few:
        return f"canary {config.name}: goes on, arm {few[0]} has {users.get(few[0], 0)} users"
    compared = {result.name: result for result in board.results if result.arm is not None}
    missing = [name for name, result in compared.items() if result.level == "missing"]
    release_id = config.of(config.challenger).release
    if all(result.level == "waiting" for result in compared.values()):
        return f"canary {config.name}: goes on, no guardrail could compare the arms yet"
    if missing or board.decisions or release_id is None:
        why = [*missing, *(d.guardrail for d in board.decisions)]
        return f"canary {config.name}: its time is over, but not promoted: {', '.join(why)}"
    reason = f"canary {config.name} ended after {config.days:g} days, no guardrail broken"
    try:
        about = ReleaseStore(settings.releases).open(release_id).about
        done = promote_release(
            settings,
            release_id,
            load_toml(gates_file(settings, about), GatesConfig),
            what="shortlist monitor",
            note=reason,
            live={name: result.to_json() for name, result in compared.items()},
        )
    except (ReleaseError, ConfigError) as error:
        return f"canary {config.name}: its time is over, but not promoted: {error}"
    if not done.promoted:
        why = [f"{gate.name}: {gate.reason}" for gate in done.verdict.gates if not gate.passed]
        return f"canary {config.name}: its time is over, but not promoted: {'; '.join(why)}"
    archive_experiment(
        settings, experiment.model_copy(update={"ended": now, "outcome": f"promoted: {reason}"})
    )
    wait_for_workers(settings, release_id)
    return f"{reason}: {release_id} is promoted"


def experiment_report(
    experiment: Experiment, traffic: Traffic, board: Board, file: GuardrailFile
) -> dict[str, Any]:
    """Compare the challenger with the champion, and with the holdout if there is one.

    Differences are adjusted by CUPED. `low` and `high` are a confidence sequence: it may be read
    every day. `sample_ratio_p` is the check of the split.
    """
    arms = arms_of(experiment)
    rows = []
    controls = [arms.champion, *([arms.holdout] if arms.holdout else [])]
    for control in controls:
        for name in REPORTED:
            found, _ = compare_arms(name, traffic, arms, control=control)
            spread = abs(found.control.value) * MATTERS
            low, high = interval(found.value, found.error, alpha=ALPHA, spread=max(spread, 1e-12))
            rows.append(
                {
                    "figure": name,
                    "title": MEASURES[name].title,
                    "control": control,
                    "challenger": found.treatment.value,
                    "champion": found.control.value,
                    "difference": found.value,
                    "low": low,
                    "high": high,
                    "relative": found.relative,
                    "users": [found.treatment.users, found.control.users],
                    "variance_removed": found.reduced,
                }
            )
    return {
        "experiment": experiment.name,
        "started_at": experiment.started_at,
        "arms": {a.name: {"share": a.share, "release": a.release} for a in experiment.config.arm},
        "sample_ratio_p": board.sample_ratio_p,
        "sample_ratio_ok": not board.sample_ratio_p < file.board.sample_ratio_alpha,
        "figures": rows,
        "guardrails": [result.to_json() for result in board.results if result.arm is not None],
    }
