"""When an off-policy estimate is refused, and what would be needed for it."""

import numpy as np

from monitoring.off_policy.estimate import OffPolicy, Value
from monitoring.off_policy.served import Served

MIN_LISTS = 200
MIN_OUTCOMES = 10
"""Minimum number of outcomes of randomly placed items at each position, to estimate attention."""
MIN_EFFECTIVE = 100.0
"""Minimum effective number of lists; with fewer, normal intervals miss the truth too often."""
MIN_SUPPORT = 0.95
"""Minimum share of attention on items that could have been shown."""
EXPLORE = "[explore] in shortlist.toml, see docs/reranking.md"


def problem_of_log(served: Served) -> str | None:
    """Return why a log supports no estimate; None if it does."""
    logged, lists = served.logged, served.lists
    if len(logged) == 0 and served.open > 0:
        return (
            f"all {served.open:,} lists with random positions are younger than {served.hours:g}"
            " hours, so what users choose from them isn't known yet; train again when newer events"
            " have arrived"
        )
    if lists == 0:
        return (
            "no list was served in this time; serve traffic with exploration switched on"
            f" ({EXPLORE}), then train again"
        )
    if len(logged) == 0:
        return (
            f"none of {lists:,} lists has random positions, so nothing is known about items that"
            f" were not shown; switch exploration on ({EXPLORE}), then train again"
        )
    if len(logged) < MIN_LISTS:
        younger = f" ({served.open:,} younger ones are open)" if served.open else ""
        return (
            f"only {len(logged):,} of {lists:,} lists have random positions{younger}, want"
            f" {MIN_LISTS}; wait for more traffic, or raise the share or temperature in {EXPLORE}"
        )
    return None


def problem_of_outcomes(judge: OffPolicy) -> str | None:
    """Return why attention can't be estimated; None if it can."""
    counts = judge.placed_outcomes
    place = int(np.argmin(counts))
    if counts[place] >= MIN_OUTCOMES:
        return None
    return (
        f"position {place + 1} has {counts[place]:.0f} outcomes of randomly placed items, want"
        f" {MIN_OUTCOMES}; wait for more traffic, or raise the share or temperature in {EXPLORE}"
    )


def problem_of_policy(value: Value) -> str | None:
    """Return why a policy's estimate isn't supported by the log; None if it is."""
    if not value.support.high >= MIN_SUPPORT:
        return (
            f"only {value.support.value:.0%} of what the lists would show could have been shown by"
            f' the served release, want {MIN_SUPPORT:.0%}; explore more widely: kind = "epsilon"'
            f" reaches all items, a larger pool reaches more ({EXPLORE})"
        )
    if value.effective < MIN_EFFECTIVE:
        return (
            f"{value.matched:,} shown items are on the lists, which is worth"
            f" {value.effective:.0f} lists, want {MIN_EFFECTIVE:.0f}; wait for more traffic, or"
            f" raise the share or temperature in {EXPLORE}"
        )
    return None
