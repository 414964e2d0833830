"""SQL of running states: sums and decayed sums of each key after each change.

A decayed sum is computed as a running sum of weights 2^((t - origin) / HALF_LIFE), divided by the
weight of the newest event. All events have the same origin, so one SQL window per sum is enough.
Weights are exact for events up to SPAN older than the newest event.
"""

from collections.abc import Sequence

from shortlist.behaviour.counting import HALF_LIFE

GRID = 256 * HALF_LIFE
"""Origins are multiples of GRID, so that new events rarely change the origin. With the same origin,
a rebuild gives the same states to the bit.
"""
OLDEST = -960
"""Smallest exponent of a weight. An older event counts as if it had happened at that time."""
SPAN = 2 * GRID - OLDEST * HALF_LIFE
"""Weights are exact for events at most this much older than the newest one: 1,472 half-lives (28
years), in microseconds.
"""


def origin_of(newest: int) -> int:
    """Return the origin of the weights if no event is newer than `newest` (microseconds).

    The exponent of the newest event's weight is in [512, 768). A double can hold exponents up to
    1023, so a sum of values may be 2^256 times as large as this weight.
    """
    return (newest // GRID - 2) * GRID


def weight(t: str, *, origin: int) -> str:
    """Return an SQL expression of the weight of an event at time `t`."""
    return f"pow(2.0, greatest(({t} - ({origin})) / {HALF_LIFE}.0, {OLDEST}))"


def carried_weights(names: Sequence[str], *, origin: int) -> str:
    """Return an SQL select list that converts decayed sums as of `last_time` to sums of weights."""
    return ", ".join(f"{name} * {weight('last_time', origin=origin)} AS {name}" for name in names)


def changes(
    key: str,
    groups: str,
    *,
    sums: Sequence[str],
    decayed: Sequence[str],
    origin: int,
    after: int | None,
) -> str:
    """Return the SQL of the state of each `key` after each change.

    A change is a time `m` at which one or more events of the key became known.

    Rows are (key, m, last_time, first_time, *sums, *decayed), with decayed sums as of `last_time`.

    Args:
        groups: SQL of the new events grouped by key and m, and of the states to continue from:
            (key, m, last_time, first_time, *sums, *decayed), where `decayed` are sums of `weight`.
        after: leave out rows with m up to this time.
    """
    running = ", ".join(f"sum({name}) OVER past AS {name}" for name in (*sums, *decayed))
    newest = weight("last_time", origin=origin)
    as_of_last = ", ".join(f"{name} / {newest} AS {name}" for name in decayed)
    return f"""
        SELECT {key}, m, last_time, first_time, {", ".join(sums)}, {as_of_last}
        FROM (
            SELECT {key}, m, max(last_time) OVER past AS last_time,
                min(first_time) OVER past AS first_time, {running}
            FROM ({groups}) WINDOW past AS (PARTITION BY {key} ORDER BY m)
        ) {"" if after is None else f"WHERE m > {after}"}
    """
