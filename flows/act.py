"""Act: executes the decisions of the board, once each, with an audit entry and its evidence.

An action isn't repeated while its alarm is acknowledged, silenced, or within the cool-down. Every
action except `notify` also sends a notice. A failed action doesn't stop the others; the alarm
keeps the reason, and the next check tries again.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from flows.acting.actions import EXECUTE, ActionError, notify, serving_release
from flows.acting.alarms import is_silenced, open_alarm, read_alarms, write_alarms
from monitoring.board.judge import Board, Decision
from shortlist.config import Settings
from shortlist.home.audit import write_audit
from shortlist.home.home_lock import home_lock
from shortlist.home.switches import WAIT_SECONDS

ORDER = ("stop_canary", "roll_back", "source_off", "hold", "retrain", "notify")
"""Order of the actions: what protects users comes first."""


def act(
    settings: Settings, board: Board, *, cool_down_hours: float, now: datetime | None = None
) -> list[dict[str, Any]]:
    """Execute decisions; return the alarms that are open now, with what was done.

    Args:
        cool_down_hours: hours after an action within which its guardrail doesn't act again.
    """
    now = now or datetime.now(UTC)
    settings.home.mkdir(parents=True, exist_ok=True)
    with home_lock(settings, "act", what="shortlist monitor", wait_seconds=WAIT_SECONDS):
        alarms = read_alarms(settings)
        broken = {decision.guardrail for decision in board.decisions}
        judged = {result.name for result in board.results if result.level == "pass"}
        for alarm in alarms:
            if alarm["closed_at"] is None and alarm["guardrail"] not in broken:
                ended = alarm["experiment"] is not None and alarm["outcome"].startswith("done")
                if alarm["guardrail"] in judged or ended:
                    alarm["closed_at"] = now.isoformat()
        for decision in _in_order(board.decisions):
            alarm = open_alarm(alarms, decision.guardrail) or _new(alarms, decision, now)
            alarm |= {
                "last_at": now.isoformat(),
                "reason": decision.reason,
                "evidence": decision.evidence,
                "checks": alarm["checks"] + 1,
            }
            waiting = _why_not(alarms, alarm, now=now, cool_down_hours=cool_down_hours)
            if waiting is not None:
                alarm["waiting"] = waiting
                print(f"act: {decision.guardrail}: {decision.action}: not now, {waiting}")
                continue
            _execute(settings, decision, alarm, now)
        write_alarms(settings, alarms)
    return [entry for entry in alarms if entry["closed_at"] is None]


def _in_order(decisions: Sequence[Decision]) -> list[Decision]:
    """Sort by ORDER, what protects users first."""
    return sorted(decisions, key=lambda decision: ORDER.index(decision.action))


def _new(alarms: list[dict[str, Any]], decision: Decision, now: datetime) -> dict[str, Any]:
    alarm = {
        "guardrail": decision.guardrail,
        "action": decision.action,
        "opened_at": now.isoformat(),
        "last_at": now.isoformat(),
        "closed_at": None,
        "acted_at": None,
        "acknowledged_by": None,
        "acknowledged_at": None,
        "silenced_until": None,
        "silenced_by": None,
        "note": "",
        "waiting": None,
        "outcome": "",
        "checks": 0,
        "experiment": decision.experiment,
        "reason": decision.reason,
        "evidence": decision.evidence,
    }
    alarms.append(alarm)
    return alarm


def _why_not(
    alarms: list[dict[str, Any]], alarm: dict[str, Any], *, now: datetime, cool_down_hours: float
) -> str | None:
    """Return why an action isn't executed now; None if it is."""
    if is_silenced(alarms, alarm["guardrail"], now=now):
        return "it is silenced"
    if alarm["acknowledged_by"] is not None:
        return f"{alarm['acknowledged_by']} has acknowledged it"
    acted = [
        datetime.fromisoformat(entry["acted_at"])
        for entry in alarms
        if entry["guardrail"] == alarm["guardrail"] and entry["acted_at"] is not None
    ]
    if acted and now - max(acted) < timedelta(hours=cool_down_hours):
        return f"it acted at {max(acted).isoformat(timespec='minutes')}, and cools down"
    return None


def _execute(settings: Settings, decision: Decision, alarm: dict[str, Any], now: datetime) -> None:
    before = serving_release(settings)
    try:
        outcome = f"done: {EXECUTE[decision.action](settings, decision)}"
        alarm["acted_at"], alarm["waiting"] = now.isoformat(), None
    except ActionError as error:
        outcome = f"failed: {error}"
    alarm["outcome"] = outcome
    write_audit(
        settings,
        f"act {decision.action}",
        before=before,
        after=serving_release(settings),
        reason=f"guardrail '{decision.guardrail}': {decision.reason}; {outcome}",
        evidence=decision.evidence,
    )
    print(f"act: {decision.guardrail}: {decision.action}: {outcome}")
    if decision.action != "notify":
        try:
            notify(settings, decision)
        except ActionError as error:
            print(f"act: {decision.guardrail}: notice failed: {error}")
