"""Checks of times given by clients or files: are they microseconds since 1970 (UTC)?

The size of a value reveals its unit. If present-day seconds or milliseconds are read as
microseconds, they lie within days of 1970-01-01; nanoseconds lie beyond the year 20000.
"""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Literal

from shortlist.columns import MICROSECONDS_PER_DAY

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIME_UNITS = ("s", "ms", "us", "ns", "iso", "excel", "ticks", "filetime")
"""Values of `timestamp_unit` in a column mapping; a strptime pattern is allowed as well."""
WANT = "want microseconds since 1970, UTC, such as 1717149600000000 for 2024-05-31T10:00:00Z"


def _microseconds(year: int) -> int:
    return (datetime(year, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


END_OF_TIME = _microseconds(2100)
FIRST_EVENT = END_OF_TIME // 1_000
"""1970-02-17, the earliest valid event time. Smaller values are milliseconds before 2100, or
seconds.
"""
WHOLE = re.compile(r"[-+]?\d+(\.0*)?")
FIRST_DATE = _microseconds(1800)
"""The earliest valid date of a catalogue item."""
NEAR_1970 = -FIRST_DATE // 1_000
"""About 62 days, in microseconds. Milliseconds of a time between 1800 and 2100, misread as
microseconds, give a time within 62 days of 1970-01-01.
"""

MomentType = Literal["event", "date"]


def moment_problem(value: int, *, kind: MomentType) -> str | None:
    """Return the reason why `value` cannot be a time in microseconds; None if it can.

    Args:
        kind: "event" for the time of an event or request; "date" for a catalogue date, which may be
            before 1970. A date near 1970 is valid only if it is a whole day (UTC). Dates usually
            are whole days, while seconds and milliseconds are very unlikely to be.
    """
    first = FIRST_EVENT if kind == "event" else FIRST_DATE
    near = kind == "date" and abs(value) < NEAR_1970 and value % MICROSECONDS_PER_DAY
    if first <= value < END_OF_TIME and not near:
        return None
    unit = _unit(value, first=_microseconds(1971) if kind == "event" else FIRST_DATE)
    if unit is not None:
        return f"{value} looks like {unit}, {WANT}"
    if value < first or near:
        return f"{value} is before {moment_text(first)}; {WANT}"
    return f"{value} is beyond the year 2100; {WANT}"


def number_problem(value: object) -> str | None:
    """Return the reason why a value in a request is no whole number of microseconds; None if it is.

    Texts of digits are whole numbers.
    """
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, str):
        whole = WHOLE.fullmatch(value.strip()) is not None
    if whole and not isinstance(value, bool):
        return None
    shown = json.dumps(value, default=str)
    return f"{shown[:60]} is no whole number; {WANT}"


def _unit(value: int, *, first: int) -> str | None:
    """Return the unit in which `value` lies between `first` and 2100; None if there is none."""
    if first <= value * 1_000_000 < END_OF_TIME:
        return "seconds"
    if first <= value * 1_000 < END_OF_TIME:
        return "milliseconds"
    return "nanoseconds" if first <= value // 1_000 < END_OF_TIME else None


def moment_text(microseconds: int) -> str:
    """Format a time for messages, to the second: 2024-05-31 10:00:00 UTC."""
    return f"{EPOCH + timedelta(microseconds=microseconds):%Y-%m-%d %H:%M:%S} UTC"
