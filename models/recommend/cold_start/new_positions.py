"""Positions that the chain keeps for new items, and the propensity of each item that is shown.

A ranker places new items last, because most of its features are counts and scores that a new item
doesn't have. Without kept positions, no new item is shown and none gets events.

At position `first` and every later one, a new item is due with a probability in proportion to the
number of new items, at most `share`. Due positions are drawn by systematic sampling: one uniform
number u per request moves a regular pattern. u is a hash of user and time, so a repeated request
and the pages of one list have the same pattern. The propensity of an item is the probability, over
u, that it is at its position, given the items at the positions before it.

Shapes: B requests, C candidates, P re-ranked candidates, k positions, M cells of u.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from models.queries import Queries
from models.recommend.cold_start.new_items import NEW
from models.recommend.merge import Shortlist
from shortlist.config import Config

CROWD = 0.1
"""Share of new items in the catalogue from which on they get the full `share` of positions."""
PAGE = 10
"""Length of a page; the first one has no kept positions for users without a history."""


class NewItemsConfig(Config):
    """Positions that the chain keeps for new items (docs/cold-start.md)."""

    share: float = Field(default=0.3, ge=0, le=1)
    """Share of the positions from `first` on that show new items, if at least a tenth of the
    catalogue is new; proportionally less if fewer are. 0 turns it off."""
    first: int = Field(default=9, ge=1)
    """First position that may be kept for a new item."""
    max_events: int = Field(default=5, ge=0)
    """Items that the models know count as new up to this number of target events."""
    days: float = Field(default=14, ge=0)
    """Items that the models know count as new for this many days after their publication. Without
    a publication date they never do."""

    def rate(self, *, new: int, every: int) -> float:
        """Return the probability that a new item is due at a position from `first` on.

        Args:
            new: number of new items.
            every: number of all items.
        """
        return self.share * min(1.0, new / max(every, 1) / CROWD)


@dataclass(frozen=True)
class Placed:
    """The places of one list, and the propensity of each."""

    places: np.ndarray  # (k,) int64 indices in the given order
    propensity: np.ndarray  # (k,) float64


def offset_of(user_id: str, at: int) -> float:
    """Return the number u in [0, 1) of a request: a hash of user and time."""
    digest = hashlib.blake2b(f"{user_id} {at}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def place_new(
    order: np.ndarray, new_rank: np.ndarray, *, k: int, rate: float, first: int, u: float
) -> Placed:
    """Move new items up to the positions that are due.

    Args:
        order: (C,) candidates, best first.
        new_rank: (C,) rank of each candidate among the new items, from 1; 0 if it isn't new.
        k: length of the list; a longer list starts with the shorter one.
        rate: probability that a new item is due at a position.
        first: first position at which one can be due, from 1.
        u: the request's number in [0, 1).

    Returns:
        Indices into `new_rank`.
    """
    k = min(k, len(order))
    waiting = order[new_rank[order] > 0]
    waiting = waiting[np.argsort(new_rank[waiting], kind="stable")]
    if k < first or rate <= 0 or len(waiting) == 0:
        return Placed(order[:k], np.ones(k))
    steps = np.maximum(np.arange(1, k + 1) - first + 1, 0)
    # The pattern changes where rate * n + u is an integer, so it is constant between these cells.
    edges = np.unique(np.concatenate([[0.0, 1.0], np.mod(-rate * steps, 1.0)]))
    middle = (edges[:-1] + edges[1:]) / 2
    due = np.floor(rate * steps[None] + middle[:, None]).astype(np.int64)  # (M, k)
    lists = np.stack([_filled(order, waiting, new_rank, each) for each in due])
    own = int(np.clip(np.searchsorted(edges, u, side="right") - 1, 0, len(middle) - 1))
    agree = np.logical_and.accumulate(lists == lists[own], axis=1)
    mass = np.concatenate([[1.0], np.diff(edges) @ agree])
    return Placed(lists[own], mass[1:] / mass[:-1])


def with_new(
    queries: Queries,
    shortlist: Shortlist,
    every: np.ndarray,
    order: np.ndarray,
    *,
    k: int,
    rate: float,
    first: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Place new items in the positions that are due, for each request.

    Lists for users without a history keep none on the first page, because nothing says which new
    items fit.

    Args:
        every: (B, C) columns of the shortlist by score.
        order: (B, P) the columns that re-ranking put first.
        k, rate, first: as in `place_new`.

    Returns:
        (B, min(k, C)) columns and their propensities.
    """
    width = min(k, every.shape[1])
    placed = np.empty((len(every), width), dtype=np.int64)
    propensity = np.ones((len(every), width))
    empty = queries.lengths == 0
    for row, (best, ranks) in enumerate(zip(order, shortlist.ranks[NEW], strict=True)):
        done = place_new(
            np.concatenate([best, every[row][~np.isin(every[row], best)]]),
            ranks,
            k=width,
            rate=rate,
            first=max(first, PAGE + 1) if empty[row] else first,
            u=offset_of(queries.user_ids[row], int(queries.at[row])),
        )
        placed[row], propensity[row] = done.places, done.propensity
    return placed, propensity


def _filled(
    order: np.ndarray, waiting: np.ndarray, new_rank: np.ndarray, due: np.ndarray
) -> np.ndarray:
    """Return the (k,) candidates of a list in which position p has at least `due[p]` new items at
    or before it, as long as there are new items.
    """
    out = np.empty(len(due), dtype=np.int64)
    used = np.zeros(len(new_rank), dtype=bool)
    shown = next_best = next_new = 0
    for position, wanted in enumerate(due.tolist()):
        while next_new < len(waiting) and used[waiting[next_new]]:
            next_new += 1
        if shown < wanted and next_new < len(waiting):
            chosen = waiting[next_new]
        else:
            while used[order[next_best]]:
                next_best += 1
            chosen = order[next_best]
        used[chosen] = True
        shown += int(new_rank[chosen] > 0)
        out[position] = chosen
    return out
