"""Selects the explored lists of the live traffic, for off-policy estimates.

Shapes: R requests, K positions.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from monitoring.off_policy.chances import LoggedLists
from monitoring.traffic.join import HOUR, Delays, Traffic
from shortlist import columns as c
from shortlist.ids import ANONYMOUS

RANDOM_SOURCE = "explore"
"""Source of items that epsilon-greedy drew at random."""
OUTCOME = "taken"
"""Outcome that is estimated: target events about a shown item within the delay."""
MIN_HOURS, MAX_HOURS = 1.0, 24.0
"""Limits of the delay within which an outcome counts."""


@dataclass(frozen=True)
class Served:
    """Explored lists, and how many lists there were."""

    requests: pd.DataFrame
    """(R,) rows of `Traffic.requests`."""
    logged: LoggedLists
    lists: int
    """Number of all lists that could have been explored, with known outcomes."""
    hours: float = MAX_HOURS
    """Hours after a request within which an outcome counts."""
    open: int = 0
    """Number of explored lists that are younger than this, so their outcomes aren't known."""

    @classmethod
    def nothing(cls, *, k: int) -> "Served":
        """Return what an empty log gives."""
        none = np.zeros((0, k))
        empty = LoggedLists(np.zeros(0, dtype=np.int64), none.astype(int), none, none, none > 0)
        return cls(pd.DataFrame(), empty, 0)

    def sample(self, size: int, *, rng: np.random.Generator) -> "Served":
        """Return at most `size` random lists."""
        if len(self.logged) <= size:
            return self
        rows = np.sort(rng.choice(len(self.logged), size=size, replace=False))
        return replace(self, requests=self.requests.iloc[rows], logged=self.logged.take(rows))


def delays_of(start: int, end: int) -> Delays:
    """Return the delay of outcomes for lists of a window: half of it, from 1 to 24 hours.

    The test window of an incremental run is often shorter than 24 hours. With a delay of 24 hours
    all its lists would be open.

    Args:
        start, end: microseconds; events until the end are known.
    """
    return Delays(outcome=float(np.clip((end - start) / 2 / HOUR, MIN_HOURS, MAX_HOURS)))


def served_lists(traffic: Traffic, *, start: int, end: int, k: int) -> Served:
    """Return the first k items of the explored lists whose outcomes are known.

    Left out are visitors (their items aren't in the log), later pages, requests that named their
    arm, and lists whose positions weren't all random.

    Args:
        start, end: microseconds; requests at or after `start` and before `end` are used.
    """
    rows = traffic.requests
    at = rows["at"].to_numpy()
    fits = (at >= start) & (at < end) & (rows["first_position"] == 1).to_numpy()
    fits &= ~rows["forced"].to_numpy() & (rows[c.USER_ID] != ANONYMOUS).to_numpy()
    fits &= rows["items"].to_numpy() >= k
    explored = rows["explored"].to_numpy()
    is_open = fits & (at >= traffic.open_before("outcome"))
    fits &= ~is_open
    chosen = np.flatnonzero(fits & explored)
    shown: Any = traffic.shown
    shown = shown[shown["request"].isin(chosen) & (shown[c.POSITION] <= k)]
    shown = shown.sort_values(["request", c.POSITION])

    def lists(values: pd.Series) -> np.ndarray:
        return values.to_numpy().reshape(-1, k)

    logged = LoggedLists(
        user=pd.factorize(rows[c.USER_ID].iloc[chosen])[0],
        item_idx=lists(shown["item_idx"]),
        reward=lists(shown[OUTCOME].astype(float)),
        propensity=lists(shown["propensity"]),
        is_random=lists(shown[c.SOURCE] == RANDOM_SOURCE),
    )
    usable = np.flatnonzero(logged.is_usable)
    return Served(
        rows.iloc[chosen[usable]],
        logged.take(usable),
        int(fits.sum()),
        hours=traffic.delays.outcome,
        open=int((is_open & explored).sum()),
    )
