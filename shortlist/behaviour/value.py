"""The value of a recommendation: a weighted sum of what the user does with the item within a day.

`[value]` of a run's TOML names the outcomes and their weights:

    [value]
    click = 0.1
    purchase = 1.0
    watch_minutes = 0.05
    return = -1.0
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import AfterValidator

MIDDLE_GRADE = 3.0
"""Grade with the amount 0: better ratings and survey answers have positive amounts, worse ones
negative amounts."""


@dataclass(frozen=True)
class Outcome:
    """How an outcome is read from events."""

    event_type: str
    amount: Callable[[np.ndarray], np.ndarray] | None = None
    """Maps the events' values to amounts, which are added up. None: the outcome is 1 if there is an
    event, else 0."""


OUTCOMES: dict[str, Outcome] = {
    **{
        name: Outcome(name)
        for name in (
            "click",
            "view",
            "add_to_cart",
            "purchase",
            "return",
            "like",
            "dislike",
            "hide",
        )
    },
    "revenue": Outcome("purchase", np.nan_to_num),
    "rating": Outcome("rating", lambda value: np.nan_to_num(value - MIDDLE_GRADE)),
    "survey": Outcome("survey", lambda value: np.nan_to_num(value - MIDDLE_GRADE)),
    "watch_minutes": Outcome("watch", lambda value: np.nan_to_num(value) / 60),
}
"""Outcome -> event type and amount. Grades count from MIDDLE_GRADE; watch values are seconds."""


EVENT_TYPES = tuple(sorted({outcome.event_type for outcome in OUTCOMES.values()}))
"""Event types from which outcomes are read."""


def _known(name: str) -> str:
    """Return the name unchanged; raise ValueError if there is no such outcome."""
    if name not in OUTCOMES:
        raise ValueError(f"outcome '{name}' is unknown, want one of {', '.join(OUTCOMES)}")
    return name


OutcomeName = Annotated[str, AfterValidator(_known)]
NAMES = tuple(OUTCOMES)
"""Order of the outcomes in arrays of amounts; their number is S."""


def value_of(amounts: np.ndarray, weights: Mapping[str, float]) -> np.ndarray:
    """Return the weighted sum of outcomes: (..., S) amounts -> (...). Missing weights are 0."""
    return amounts @ np.array([weights.get(name, 0.0) for name in NAMES], dtype=amounts.dtype)


@dataclass(frozen=True)
class Reactions:
    """Events from which outcomes are read, sorted by user, then by time. Shape: E events."""

    users: np.ndarray  # (E,) user ids
    item_idx: np.ndarray  # (E,) int64
    event_type: np.ndarray  # (E,) event types
    time: np.ndarray  # (E,) int64 microseconds
    value: np.ndarray  # (E,) float64, NaN where the event has none

    def outcomes(
        self, user_ids: Sequence[str], at: np.ndarray, *, until: np.ndarray
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return what each user did with items after a request.

        Args:
            at, until: (B,) microseconds, half open: times of the events that count.

        Returns:
            B pairs: item_idx (M,), sorted, and amounts (M, S) float32.
        """
        found = []
        # The dtype of `users` could be too short for these ids, and would cut them.
        wanted = np.array(user_ids, dtype=str)
        starts = np.searchsorted(self.users, wanted)
        ends = np.searchsorted(self.users, wanted, side="right")
        for start, end, low, high in zip(starts, ends, at, until, strict=True):
            first, last = start + np.searchsorted(self.time[start:end], [low, high])
            found.append(self._amounts(slice(first, last)))
        return found

    def _amounts(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        items, place = np.unique(self.item_idx[rows], return_inverse=True)
        amounts = np.zeros((len(items), len(NAMES)), dtype=np.float32)
        event_type, value = self.event_type[rows], self.value[rows]
        for column, outcome in enumerate(OUTCOMES.values()):
            chosen = event_type == outcome.event_type
            if outcome.amount is None:
                amounts[place[chosen], column] = 1
            else:
                np.add.at(amounts[:, column], place[chosen], outcome.amount(value[chosen]))
        known = items > 0
        return items[known], amounts[known]


def amounts_at(lists: np.ndarray, outcomes: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return the amounts of listed items: (B, K) item_idx, padded with 0 -> (B, K, S) float32."""
    out = np.zeros((*lists.shape, len(NAMES)), dtype=np.float32)
    for row, (items, amounts) in enumerate(outcomes):
        if len(items):
            place = np.minimum(np.searchsorted(items, lists[row]), len(items) - 1)
            hit = items[place] == lists[row]
            out[row, hit] = amounts[place[hit]]
    return out


def discounted(values: np.ndarray) -> np.ndarray:
    """Return the sum of values over positions, discounted as in DCG: (B, K) -> (B,)."""
    return values @ (1 / np.log2(np.arange(2, values.shape[1] + 2)))
