"""The setting `[data] repeats`: may an item be recommended again to a user who has chosen it?

    exclude         never: films, books, news
    allow           always: drinks, groceries, music
    after 7 days    when the last time is at least this long ago: consumables, courses, travel

It determines which items a list excludes, which later events count as relevant in evaluation, which
events are training targets, and whether histories hold every event or each item once.
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
    """Return the time in microseconds after which an item may be recommended again; None: never.

    Raises:
        ValueError: the setting is not "exclude", "allow" or "after N hours|days|weeks".
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
    """Return (L,) bool: whether each item of a history must be excluded from a list.

    Args:
        times: (L,) microseconds, times at which the user chose the items.
        at: microseconds, time of the list; later than all `times`.
        after: result of `repeat_after`.
    """
    if after is None:
        return np.ones(len(times), dtype=bool)
    return times > at - after


def may_be_found(previous: np.ndarray, at: np.ndarray | int, *, after: int | None) -> np.ndarray:
    """Return (E,) bool: whether a list requested at `at` may contain the item of each event.

    In evaluation, a later event counts as relevant only then. Shape: E events of one user.

    Args:
        previous: (E,) microseconds, time of the user's previous event on the same item; -1 if there
            is none.
        at: microseconds, time of the list.
        after: result of `repeat_after`.
    """
    new = previous < 0
    return new if after is None else new | (previous <= at - after)
