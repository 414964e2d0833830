"""Ticks: the times at which item features change, such as each full hour.

The tick length divides a day (UTC). Training, serving and the skew check use the tick length of the
stored states (`Snapshots.tick`).
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
    """Parse '30m', '1h' or '1d' to microseconds. Raises ValueError if it doesn't divide a day."""
    found = re.fullmatch(r"(\d{1,4})([mhd])", text)
    length = int(found[1]) * UNITS[found[2]] if found else 0
    if length == 0 or DAILY % length:
        raise ValueError(f"tick is {text!r}, want a length that divides a day: '30m', '1h', '1d'")
    return length


def newest_tick(at: Time, tick: int) -> Time:
    """Return the last tick at or before `at`, in microseconds."""
    return at // tick * tick


def last_day(tick_time: Time) -> Time:
    """Return the calendar day (UTC, days since 1970) of the last events before a tick.

    A tick at midnight belongs to the day that ends there.
    """
    return (tick_time - 1) // DAILY
