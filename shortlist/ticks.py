"""The grid of item features: they change at ticks, a whole number of which makes a day (UTC).

Training, serving and skew use the grid on which the states were built (`Snapshots.tick`).
"""

import re
from typing import TypeVar

import numpy as np

from shortlist.columns import MICROSECONDS_PER_DAY, MICROSECONDS_PER_HOUR

DAILY = MICROSECONDS_PER_DAY
HOURLY = MICROSECONDS_PER_HOUR
UNITS = {"m": MICROSECONDS_PER_HOUR // 60, "h": MICROSECONDS_PER_HOUR, "d": MICROSECONDS_PER_DAY}

Time = TypeVar("Time", int, np.ndarray)


def tick_length(text: str) -> int:
    """'30m', '1h', '1d' -> microseconds. Raises ValueError if it isn't a whole part of a day."""
    found = re.fullmatch(r"(\d{1,4})([mhd])", text)
    length = int(found[1]) * UNITS[found[2]] if found else 0
    if length == 0 or DAILY % length:
        raise ValueError(f"tick is {text!r}, want a whole part of a day like '30m', '1h' or '1d'")
    return length


def newest_tick(at: Time, tick: int) -> Time:
    """The newest tick at or before `at` (microseconds)."""
    return at // tick * tick


def last_day(tick_time: Time) -> Time:
    """Of a tick, the number since 1970 of the calendar day (UTC) that it ends or lies in."""
    return (tick_time - 1) // DAILY
