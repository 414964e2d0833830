"""The definition of a ratio figure: numerator and denominator over rows of one level.

Levels: `request` (one row per response), `shown` (one row per shown item), `event` (one row per
event that can follow from a list, `Traffic.events`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from monitoring.traffic.join import DAY, Traffic

Column = Callable[[Traffic], np.ndarray]
Level = Literal["request", "shown", "event"]


@dataclass(frozen=True)
class Measure:
    """A figure: sum of `top` over sum of `bottom`, over the rows of its level."""

    name: str
    title: str
    unit: str
    formula: str
    good: Literal["high", "low", ""]
    """Which direction is better; "" if neither is in general."""
    level: Level
    top: Column
    bottom: Column
    delay: str | None = None
    """Name of the delay (`Delays`) that must have passed; None: known at once."""
    days: int = 0
    """Whole days that must have passed, for retention."""
    per_user: bool = False
    """Whether the denominator is the number of users; `bottom` then marks the rows that count."""

    def columns(self, traffic: Traffic) -> tuple[np.ndarray, np.ndarray]:
        """Return numerator and denominator of each row; both are NaN for open requests.

        Rows of events are never open.
        """
        top = np.asarray(self.top(traffic), dtype=float)
        bottom = np.asarray(self.bottom(traffic), dtype=float)
        if self.level == "event":
            return top, bottom
        at = traffic.requests["at"].to_numpy()
        closed = np.ones(len(at), dtype=bool)
        if self.delay is not None:
            closed = at < traffic.open_before(self.delay)
        if self.days:
            closed &= at // DAY + self.days + 1 <= traffic.until // DAY
        if self.level == "shown":
            closed = closed[traffic.shown["request"].to_numpy()]
        return np.where(closed, top, np.nan), np.where(closed, bottom, np.nan)
