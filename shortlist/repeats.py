"""Whether an item that somebody consumed may be recommended to the same person again.

    exclude         never again: films, books, news
    allow           always: drinks of a café, groceries, music
    after 7 days    once the last time is that long ago: consumables, courses, travel

The setting decides which items are left out of a list, which later events a list is judged by,
which events models learn to find, and whether histories hold every event or each item once.
"""

import re

import numpy as np

from shortlist.columns import MICROSECONDS_PER_DAY, MICROSECONDS_PER_HOUR

EXCLUDE, ALLOW = "exclude", "allow"
AFTER = re.compile(r"after (\d+) (hour|day|week)s?")
UNITS = {
    "hour": MICROSECONDS_PER_HOUR,
    "day": MICROSECONDS_PER_DAY,
    "week": 7 * MICROSECONDS_PER_DAY,
}


def repeat_after(repeats: str) -> int | None:
    """Microseconds after which an item may come again; None: never.

    Raises:
        ValueError: the setting can't be read.
    """
    if repeats == EXCLUDE:
        return None
    if repeats == ALLOW:
        return 0
    found = AFTER.fullmatch(repeats.strip())
    if found is None or int(found[1]) == 0:
        raise ValueError(f'repeats is {repeats!r}, want "exclude", "allow" or e.g. "after 7 days"')
    return int(found[1]) * UNITS[found[2]]


def too_soon(times: np.ndarray, at: int, *, after: int | None) -> np.ndarray:
    """(L,) times of what somebody consumed -> (L,) bool: not to be recommended at `at` (later)."""
    if after is None:
        return np.ones(len(times), dtype=bool)
    return times > at - after


def may_be_found(previous: np.ndarray, at: np.ndarray | int, *, after: int | None) -> np.ndarray:
    """(E,) time of the same user's event of the same item before, -1 for none -> (E,) bool: a list
    of the moment `at` may hold the item, so a list is judged by the event.
    """
    new = previous < 0
    return new if after is None else new | (previous <= at - after)
