"""SQL of running states: sums and decayed sums of each key after each change."""

from collections.abc import Mapping, Sequence

ERA_HALF_LIVES = 512
"""Length of an era in half-lives. Weights are summed within an era; 2^512 fits a float64."""
LATE_HALF_LIVES = 256
"""Limit in units of the shortest half-life. If the events of a group are older than this at `m`,
their weights are computed as of the newest of them instead of `m`, to avoid underflow of the
weights and overflow of the era.
"""
NEGLIGIBLE_HALF_LIVES = 64
"""Events older than this many half-lives have a weight below 2^-64 and are ignored."""


def weight(t: str, moment: str, *, half_life: int) -> str:
    """Return an SQL expression of the weight, as of `moment`, of an event at time `t`."""
    return f"pow(2.0, ({t} - {moment}) / {half_life}.0)"


def changes(
    key: str,
    groups: str,
    *,
    sums: Sequence[str],
    decayed: Mapping[str, int],
    after: int | None,
    span: tuple[int, int] | None = None,
) -> str:
    """Return the SQL of the state of each `key` after each time `m` at which events of it became
    known.

    Rows are (key, m, last_time, first_time, *sums, *decayed), with decayed sums as of `last_time`.

    The decayed sum of weights 2^((t_i - last) / half_life) is computed as a running sum of
    2^((t_i - start) / half_life), divided by the newest event's term. `start` is the start of an
    era, so that long time spans don't overflow.

    Args:
        groups: SQL of the new events grouped by key and m, and of the states to continue from:
            (key, m, last_time, first_time, *sums, *decayed) and `weighed_at`, the time of the
            decayed sums.
        decayed: name of each decayed sum -> half-life in microseconds.
        after: leave out rows with m up to this time.
        span: first and last time in `groups`, if known. If they lie in one era, a simpler query is
            used that needs one sort and no join, in half the time.
    """
    era = ERA_HALF_LIVES * min(decayed.values())
    only = "" if after is None else f"WHERE m > {after}"
    running = ", ".join(f"sum({name}) OVER past AS {name}" for name in sums)
    extremes = "max(last_time) OVER past AS last_time, min(first_time) OVER past AS first_time"
    past = f"WINDOW past AS (PARTITION BY {key} ORDER BY m)"
    if span is not None and span[1] - span[0] <= era:
        terms = ", ".join(
            f"sum({name} * {weight('weighed_at', str(span[0]), half_life=h)}) OVER past AS {name}"
            for name, h in decayed.items()
        )
        ended = ", ".join(
            f"{name} / {weight('last_time', str(span[0]), half_life=h)} AS {name}"
            for name, h in decayed.items()
        )
        return f"""
            SELECT {key}, m, last_time, first_time, {", ".join(sums)}, {ended}
            FROM (SELECT {key}, m, {extremes}, {running}, {terms} FROM ({groups}) {past}) {only}
        """
    return _in_eras(
        key, f"({groups}) {past}", running, extremes, sums=sums, decayed=decayed, era=era, only=only
    )


def _in_eras(
    key: str,
    groups: str,
    running: str,
    extremes: str,
    *,
    sums: Sequence[str],
    decayed: Mapping[str, int],
    era: int,
    only: str,
) -> str:
    """Return the SQL of `changes` for time spans of several eras.

    A group belongs to the era of the newest event known by then, so late events fit in. Earlier
    eras contribute only up to NEGLIGIBLE_HALF_LIVES.
    """
    start = f"floor(last_time / {era}.0) * {era}"
    reach = {
        name: 1 + NEGLIGIBLE_HALF_LIVES * half_life // era for name, half_life in decayed.items()
    }
    weights, plain = ", ".join(decayed), ", ".join(sums)
    factors = {h: f"factor_{place}" for place, h in enumerate(sorted({*decayed.values()}))}
    placed = ", ".join(
        f"{weight('weighed_at', start, half_life=h)} AS {name}" for h, name in factors.items()
    )
    terms = ", ".join(f"{name} * {factors[h]} AS {name}" for name, h in decayed.items())
    totals = ", ".join(f"sum({name}) AS {name}" for name in decayed)
    older = ", ".join(
        f"sum({name} * pow(2.0, -ago * {era / h})) FILTER (ago <= {reach[name]}) AS older_{name}"
        for name, h in decayed.items()
    )
    in_era = ", ".join(f"sum({name}) OVER era_past AS in_{name}" for name in decayed)
    ended = ", ".join(
        f"(in_{name} + coalesce(older_{name}, 0))"
        f" / {weight('last_time', f'era * {era}', half_life=h)} AS {name}"
        for name, h in decayed.items()
    )
    return f"""
        WITH running AS (
            SELECT {key}, m, weighed_at, {weights}, {running}, {extremes} FROM {groups}
        ), placed AS (
            SELECT *, floor(last_time / {era}.0)::BIGINT AS era, {placed} FROM running
        ), terms AS (
            SELECT * EXCLUDE ({", ".join(factors.values())}, {weights}), {terms} FROM placed
        ), eras AS (
            SELECT {key}, era + ago AS era, {older}
            FROM (SELECT {key}, era, {totals} FROM terms GROUP BY {key}, era),
                range(1, {max(reach.values()) + 1}) AS past_eras(ago)
            GROUP BY {key}, era + ago
        )
        SELECT {key}, m, last_time, first_time, {plain}, {ended}
        FROM (
            SELECT *, {in_era} FROM terms
            WINDOW era_past AS (PARTITION BY {key}, era ORDER BY m)
        ) LEFT JOIN eras USING ({key}, era)
        {only}
    """
