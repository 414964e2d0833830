"""Switches that guardrails and operators set in a home: held promotions, sources that are off.

`<home>/switches.json` has {"holds": {id: entry}, "sources_off": {source: entry}}. An entry names
its reason, its start, and the wall time at which it ends by itself (None: a person ends it).
"""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from shortlist.config import ConfigError, Settings
from shortlist.files.plain_json import write_json
from shortlist.home.home_lock import home_lock

Switch = Literal["holds", "sources_off"]
WAIT_SECONDS = 30


def switch_file(settings: Settings) -> Path:
    return settings.home / "switches.json"


def in_force(settings: Settings, switch: Switch, *, now: datetime | None = None) -> dict[str, Any]:
    """Return the entries of one type that haven't ended.

    Raises:
        ConfigError: the file isn't valid.
    """
    now = now or datetime.now(UTC)
    return {
        name: entry
        for name, entry in _read(settings)[switch].items()
        if entry["until"] is None or datetime.fromisoformat(entry["until"]) > now
    }


def sources_off(settings: Settings) -> frozenset[str]:
    """Return the candidate sources that are switched off; none if the file can't be read.

    The service calls this at each check, so it must not fail.
    """
    try:
        return frozenset(in_force(settings, "sources_off"))
    except (ConfigError, OSError):
        return frozenset()


def switch_on(
    settings: Settings,
    switch: Switch,
    name: str,
    *,
    reason: str,
    hours: float | None = None,
    about: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Add an entry, or replace the one of the same name; return it.

    Args:
        hours: hours after which it ends by itself; None: a person ends it.
        about: further keys, such as the guardrail and the release.
    """
    now = datetime.now(UTC)
    until = None if hours is None else (now + timedelta(hours=hours)).isoformat()
    entry = {"reason": reason, "since": now.isoformat(), "until": until} | (about or {})
    settings.home.mkdir(parents=True, exist_ok=True)
    with home_lock(settings, "act", wait_seconds=WAIT_SECONDS):
        content = _read(settings)
        content[switch][name] = entry
        write_json(switch_file(settings), content)
    return entry


def end_switch(settings: Settings, switch: Switch, name: str) -> None:
    """Remove an entry.

    Raises:
        ConfigError: there is none of this name.
    """
    with home_lock(settings, "act", wait_seconds=WAIT_SECONDS):
        content = _read(settings)
        if name not in content[switch]:
            listed = ", ".join(content[switch]) or "none"
            raise ConfigError(f"{switch}: '{name}' is not in force; in force: {listed}")
        del content[switch][name]
        write_json(switch_file(settings), content)


def _read(settings: Settings) -> dict[str, dict[str, Any]]:
    path = switch_file(settings)
    try:
        content = json.loads(path.read_text())
        return {"holds": dict(content["holds"]), "sources_off": dict(content["sources_off"])}
    except FileNotFoundError:
        return {"holds": {}, "sources_off": {}}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: not valid ({error!r}), want holds and sources_off; remove it to end all"
        ) from None
