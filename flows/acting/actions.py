"""The actions of guardrails. Each changes one thing and says what it did, or why it could not."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx

from flows.rollback import roll_back
from monitoring.board.judge import Decision
from shortlist.config import Settings
from shortlist.experiment import archive_experiment, running_experiment
from shortlist.files.plain_json import dumps, write_json
from shortlist.home.home_lock import HomeLocked
from shortlist.home.switches import switch_on
from shortlist.releases.release import ReleaseError, ReleaseStore

HOLD_HOURS = 7 * 24.0
"""Hours after which a hold ends by itself, unless a person ends it."""
SOURCE_HOURS = 24.0
NOTIFY_SECONDS = 5.0


class ActionError(RuntimeError):
    """An action could not be carried out; the message says why and what a person should do."""


def notify(settings: Settings, decision: Decision) -> str:
    """Append the alarm to `<home>/notifications.jsonl`, and post it to SHORTLIST_NOTIFY_URL."""
    content = {
        "at": datetime.now(UTC).isoformat(),
        "home": settings.home_name,
        "guardrail": decision.guardrail,
        "action": decision.action,
        "text": decision.reason,
    }
    with (settings.home / "notifications.jsonl").open("a", encoding="utf-8") as file:
        file.write(dumps(content) + "\n")
    if settings.notify_url is None:
        return "written to notifications.jsonl (SHORTLIST_NOTIFY_URL is not set)"
    try:
        httpx.post(settings.notify_url, json=content, timeout=NOTIFY_SECONDS).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ActionError(f"the notification URL doesn't answer: {error}") from None
    return "posted to the notification URL"


def hold(settings: Settings, decision: Decision, *, hours: float = HOLD_HOURS) -> str:
    """Refuse promotions until the hold ends."""
    entry = switch_on(
        settings,
        "holds",
        decision.guardrail,
        reason=decision.reason,
        hours=hours,
        about={"guardrail": decision.guardrail},
    )
    return f"promotions are held until {entry['until']}"


def stop_canary(settings: Settings, decision: Decision) -> str:
    """End the running experiment: all users get the promoted release again.

    The challenger's release is held, so that it isn't promoted by the next run.
    """
    experiment = running_experiment(settings)
    if experiment is None:
        return "the experiment has ended already"
    config = experiment.config
    ended = experiment.model_copy(
        update={
            "ended": decision.evidence.get("window", [0, 0])[1] or experiment.started,
            "outcome": f"stopped by '{decision.guardrail}': {decision.reason}",
        }
    )
    archive_experiment(settings, ended)
    release = config.of(config.challenger).release
    if release is not None:
        switch_on(
            settings,
            "holds",
            f"release {release}",
            reason=decision.reason,
            about={"guardrail": decision.guardrail, "release_id": release},
        )
    return f"experiment {experiment.name} ended; arm {config.challenger} gets no more users"


def go_back(settings: Settings, decision: Decision) -> str:
    """Promote the previous release again, and hold further promotions."""
    try:
        done = roll_back(settings, reason=f"guardrail '{decision.guardrail}': {decision.reason}")
    except (ReleaseError, HomeLocked) as error:
        held = hold(settings, decision)
        raise ActionError(f"no rollback ({error}); {held}") from None
    held = hold(settings, decision)
    return f"rolled back from {done['before']} to {done['serving']}; {held}"


def retrain(settings: Settings, decision: Decision) -> str:
    """Start a full training on the Prefect server; without one, ask a person to run it."""
    url = os.environ.get("PREFECT_API_URL")
    name = f"shortlist/weekly-{settings.home_name}"
    asked = {"at": datetime.now(UTC).isoformat(), "reason": decision.reason}
    write_json(settings.home / "retrain.json", asked)
    if not url:
        raise ActionError("no Prefect server (PREFECT_API_URL): run `shortlist run CONFIG`")
    from prefect.deployments import run_deployment

    try:
        run: Any = run_deployment(name=name, timeout=0)
    except Exception as error:  # an unreachable server, a missing deployment: a person must act
        raise ActionError(f"{name} could not be started: {error}; run `shortlist run`") from None
    return f"flow run {run.name} of {name} was created"


def source_off(settings: Settings, decision: Decision, *, hours: float = SOURCE_HOURS) -> str:
    """Answer requests without a candidate source, for a day."""
    if decision.source is None:
        raise ActionError("the guardrail names no source")
    entry = switch_on(
        settings,
        "sources_off",
        decision.source,
        reason=decision.reason,
        hours=hours,
        about={"guardrail": decision.guardrail},
    )
    return f"source {decision.source} is off until {entry['until']}"


EXECUTE: dict[str, Callable[[Settings, Decision], str]] = {
    "notify": notify,
    "hold": hold,
    "stop_canary": stop_canary,
    "roll_back": go_back,
    "retrain": retrain,
    "source_off": source_off,
}


def serving_release(settings: Settings) -> str | None:
    return ReleaseStore(settings.releases).current_id()
