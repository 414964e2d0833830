"""Replays recorded pages in the closed loop: lists leave out what users chose, and users react.

Shapes: S pages, K positions, U users, N items.
"""

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pandas as pd

from benchmarks.detection.record import SEEN_DAYS, Knowledge, Lists, concatenated, rank
from monitoring.traffic.join import DAY
from simulation.outcome import Outcome, draw_outcome
from simulation.world import World


def live(
    world: World,
    known: Knowledge,
    pages: Lists,
    *,
    chosen_at: np.ndarray,
    rng: np.random.Generator,
    change: Callable[[Lists], Lists] | None = None,
    reacts_as: World | None = None,
) -> tuple[Lists, Outcome]:
    """Make the lists of the pages in turn, and draw what users do with them.

    In each round every user asks for at most one page, so that its list knows what the user chose
    in the rounds before.

    Args:
        pages: sorted by time.
        chosen_at: (U, N) day of each user's last choice of an item; it is updated.
        change: returns the lists of a round with a fault; None: no fault.
        reacts_as: world in which users react, e.g. with other prices; None: `world`.

    Returns:
        The lists in the order of the rounds, and the outcome.
    """
    day = (pages.page.at - world.start) // DAY
    turn = pd.DataFrame({"user": pages.page.user, "day": day}).groupby(["user", "day"]).cumcount()
    key = day * len(day) + turn.to_numpy()
    made: list[Lists] = []
    done: list[Outcome] = []
    for number in np.unique(key):
        part = pages.take(np.flatnonzero(key == number))
        today = number // len(day)
        seen = today - chosen_at[part.page.user] < SEEN_DAYS
        lists = replace(rank(world, known, part.page, part.moment, seen), row=part.row)
        lists = lists if change is None else change(lists)
        outcome = draw_outcome(reacts_as or world, lists.moment, lists.page, lists.item, rng)
        chosen_at[lists.page.user[outcome.row], outcome.item] = today
        made.append(lists)
        done.append(outcome)
    return concatenated(made), concatenated_outcomes(done)


def concatenated_outcomes(parts: list[Outcome]) -> Outcome:
    """Concatenate outcomes; page numbers go on from one to the next."""
    start = np.cumsum([0, *(len(part.clicks) for part in parts)])
    changed = {
        one.name: np.concatenate([getattr(part, one.name) for part in parts])
        for one in fields(Outcome)
        if one.name not in ("row", "hidden")
    }
    pairs = list(zip(parts, start[:-1], strict=True))
    return Outcome(
        **changed,
        row=np.concatenate([part.row + first for part, first in pairs]),
        hidden=(
            np.concatenate([part.hidden[0] + first for part, first in pairs]),
            np.concatenate([part.hidden[1] for part in parts]),
        ),
    )
