"""The SQL of running states: sums and decayed sums after each moment at which something changed."""

from collections.abc import Mapping, Sequence

ERA_HALF_LIVES = 512
"""Decayed sums are summed within eras of so many half-lives: 2^512 fits."""
LATE_HALF_LIVES = 256
"""Of the shortest half-life: if all events of a group are older than this at its moment, their
weights are as of the newest of them. As of the moment they could underflow, and the era overflow.
"""
NOTHING = 64
"""What is so many half-lives old, 2^-64, is nothing beside the newest event's 1."""


def weight(t: str, moment: str, *, half_life: int) -> str:
    """What an event of `t` weighs in a decayed sum as of `moment`, in SQL."""
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
    """State of each `key` right after each moment at which something of it became known: a row of
    (key, m, last_time, first_time, *sums, *decayed), decayed sums as of `last_time`.

    The decayed sum of weights 2^((t_i - last) / half_life) is a running sum of
    2^((t_i - start) / half_life) divided by the newest event's own term. `start` is that of an era,
    so that no span of time overflows.

    Args:
        groups: a query of what became known at a moment, or was known before: (key, m, last_time,
            first_time, *sums, *decayed) and `weighed_at`, what the decayed sums are as of.
        decayed: name of each decayed sum and its half-life, microseconds.
        after: leave out rows of moments up to here.
        span: first and last time in `groups`, if known: what fits into one era is sorted once and
            joined with nothing, in half the time.
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
    """An era is that of the newest event known, so late ones fit in. Of earlier eras only those
    count whose weight is not NOTHING.
    """
    start = f"floor(last_time / {era}.0) * {era}"
    reach = {name: 1 + NOTHING * half_life // era for name, half_life in decayed.items()}
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
