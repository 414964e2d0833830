"""The setting `[data] repeats`: may a consumed item be recommended to the same user again?

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
    """Return (L,) bool: whether an item consumed at `times` (L,) must be excluded from a list at
    `at`.

    `at` is later than all `times`; all are microseconds.
    """
    if after is None:
        return np.ones(len(times), dtype=bool)
    return times > at - after


def may_be_found(previous: np.ndarray, at: np.ndarray | int, *, after: int | None) -> np.ndarray:
    """Return (E,) bool: whether a list at `at` may contain the event's item, so the event counts as
    relevant.

    `previous` (E,) is the time of the user's previous event on the same item, -1 if there is none.
    """
    new = previous < 0
    return new if after is None else new | (previous <= at - after)
