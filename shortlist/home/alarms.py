"""Reads the alarms of a home; flows/acting/alarms.py opens, changes and closes them.

`<home>/alarms.json` holds {"alarms": [alarm]}, the open ones and the last closed ones.
"""

import json
from pathlib import Path
from typing import Any

from shortlist.config import ConfigError, Settings


class AlarmError(ConfigError):
    """There is no such open alarm; the message lists the open ones."""


def alarm_file(settings: Settings) -> Path:
    return settings.home / "alarms.json"


def read_alarms(settings: Settings) -> list[dict[str, Any]]:
    """Return all kept alarms, oldest first."""
    try:
        return json.loads(alarm_file(settings).read_text())["alarms"]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError) as error:
        raise AlarmError(f"{alarm_file(settings)}: not valid ({error!r}); remove it") from None
