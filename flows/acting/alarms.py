"""The alarms of a home: what is broken, what was done about it, who has taken it over.

`<home>/alarms.json` holds the open alarms and the last closed ones. An alarm is open from the
first check that broke its guardrail to the first check that found it kept again.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from shortlist.config import Settings
from shortlist.files.plain_json import write_json
from shortlist.home.alarms import AlarmError, alarm_file, read_alarms
from shortlist.home.home_lock import home_lock
from shortlist.home.switches import WAIT_SECONDS

KEPT_CLOSED = 200
"""Number of closed alarms that are kept."""


def write_alarms(settings: Settings, alarms: list[dict[str, Any]]) -> None:
    closed = [alarm for alarm in alarms if alarm["closed_at"] is not None][-KEPT_CLOSED:]
    kept = [alarm for alarm in alarms if alarm["closed_at"] is None or alarm in closed]
    write_json(alarm_file(settings), {"alarms": kept})


def open_alarm(alarms: list[dict[str, Any]], guardrail: str) -> dict[str, Any] | None:
    """Return the open alarm of a guardrail; None if it has none."""
    return next(
        (
            alarm
            for alarm in alarms
            if alarm["guardrail"] == guardrail and alarm["closed_at"] is None
        ),
        None,
    )


def is_silenced(alarms: list[dict[str, Any]], guardrail: str, *, now: datetime) -> bool:
    """Return whether any alarm of the guardrail has a silence that hasn't ended."""
    return any(
        alarm["guardrail"] == guardrail
        and alarm["silenced_until"] is not None
        and datetime.fromisoformat(alarm["silenced_until"]) > now
        for alarm in alarms
    )


def acknowledge(settings: Settings, guardrail: str, *, who: str, note: str) -> dict[str, Any]:
    """Record that a person has taken over the open alarm: its actions aren't repeated.

    Raises:
        AlarmError: the guardrail has no open alarm.
    """
    now = datetime.now(UTC).isoformat()
    return _change(
        settings, guardrail, {"acknowledged_by": who, "acknowledged_at": now, "note": note}
    )


def silence(settings: Settings, guardrail: str, *, hours: float, who: str) -> dict[str, Any]:
    """Let the guardrail do nothing for some hours; it is still judged and shown.

    Raises:
        AlarmError: the guardrail has no open alarm.
    """
    until = (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
    return _change(settings, guardrail, {"silenced_until": until, "silenced_by": who})


def _change(settings: Settings, guardrail: str, changes: dict[str, Any]) -> dict[str, Any]:
    with home_lock(settings, "act", wait_seconds=WAIT_SECONDS):
        alarms = read_alarms(settings)
        alarm = open_alarm(alarms, guardrail)
        if alarm is None:
            listed = ", ".join(a["guardrail"] for a in alarms if a["closed_at"] is None) or "none"
            raise AlarmError(f"alarm '{guardrail}' is not open; open alarms: {listed}")
        alarm.update(changes)
        write_alarms(settings, alarms)
    return alarm
