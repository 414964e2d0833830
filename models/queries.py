"""Input and output of candidate sources, their protocol, and functions that select top items.

A candidate source is a model that retrieves candidates for a request.

Shape legend for all of `models`: B requests, L history, D dim, N items, C candidates, H heads.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from shortlist.features.pack import ItemState
from shortlist.features.searches import Searches

T = TypeVar("T")


@dataclass(frozen=True)
class Queries:
    """Batch of B requests as arrays. Histories contain only events strictly before `at`."""

    user_ids: list[str]
    at: np.ndarray  # (B,) int64 microseconds: time as of which each request is answered
    history: np.ndarray  # (B, L) int64 item_idx, oldest first, padded with 0 on the RIGHT
    history_time: np.ndarray  # (B, L) int64 microseconds, 0 where padded
    history_value: np.ndarray  # (B, L) float32, NaN where padded or without value
    history_type: np.ndarray  # (B, L) int64 EVENT_CODE, 0 where padded or unknown
    seen: list[np.ndarray]  # B arrays: item_idx consumed or refused by the user, never retrieved
    user: np.ndarray  # (B, len(USER_FEATURES)) float32: features of the user
    context: np.ndarray  # (B, len(CONTEXT_FEATURES)) float32: features of time, surface and device
    profile: np.ndarray  # (B, A) int64 codes of the A user attributes, 0 for unknown
    searches: list[Searches]  # of each user: the last searches strictly before `at`
    places: np.ndarray | None = None  # (B, 2) int64 codes of surface and device; None: unknown
    blocked: np.ndarray | None = None
    """(N + 1,) bool: items excluded from the lists of all requests, because they are unavailable or
    filtered out; padding is True. None: no item is excluded."""

    def __len__(self) -> int:
        return len(self.user_ids)

    @property
    def lengths(self) -> np.ndarray:
        """(B,) int64: number of real positions in each history."""
        return (self.history > 0).sum(1)

    def allowed(self, row: int, num_items: int) -> np.ndarray:
        """Return (N + 1,) bool: items that may be shown for request `row`; padding is False."""
        if self.blocked is None:
            allowed = np.ones(num_items + 1, dtype=bool)
            allowed[0] = False
        else:
            allowed = ~self.blocked
        allowed[self.seen[row]] = False
        return allowed

    def take(self, rows: slice) -> "Queries":
        """Return the requests `rows`. `blocked` has no request dimension and is kept."""
        per_request = {name: value for name, value in vars(self).items() if name != "blocked"}
        return replace(
            self,
            **{name: None if value is None else value[rows] for name, value in per_request.items()},
        )

    def known(self, num_items: int) -> "Queries":
        """Return a copy without the items whose item_idx is above `num_items`.

        For models that were trained before the newest items were added to the catalogue.
        """
        real = (self.history > 0) & (self.history <= num_items)
        order = np.argsort(~real, axis=1, kind="stable")  # padding stays on the right
        kept = np.take_along_axis(real, order, axis=1)

        def cut(values: np.ndarray, *, padding: float = 0) -> np.ndarray:
            moved = np.take_along_axis(values, order, axis=1)
            return np.where(kept, moved, padding).astype(values.dtype)

        return replace(
            self,
            history=cut(self.history),
            history_time=cut(self.history_time),
            history_value=cut(self.history_value, padding=np.nan),
            history_type=cut(self.history_type),
            seen=[items[items <= num_items] for items in self.seen],
            blocked=None if self.blocked is None else self.blocked[: num_items + 1],
        )


@dataclass(frozen=True)
class Candidates:
    """Candidate list of each query, best first, padded with item_idx 0 and score -inf."""

    item_idx: np.ndarray  # (B, C) int64
    score: np.ndarray  # (B, C) float32


def no_candidates(num_queries: int) -> Candidates:
    """Return candidate lists of length 0."""
    none = np.empty((num_queries, 0), dtype=np.int64)
    return Candidates(none, none.astype(np.float32))


@runtime_checkable
class Source(Protocol):
    """A candidate source: any baseline, retrieval, sequence or content model."""

    name: str

    def retrieve(self, queries: Queries, items: ItemState, *, k: int) -> Candidates:
        """Return the k best items for each query, without seen and blocked items."""
        ...

    def score(self, queries: Queries, items: ItemState, candidates: np.ndarray) -> np.ndarray:
        """Score given candidates: (B, C) item_idx -> (B, C) float32, on the scale of `retrieve`."""
        ...

    def save(self, folder: Path) -> None:
        """Write all files that `load` needs into an existing empty folder. No pickle."""
        ...


class OncePerBatch(Generic[T]):
    """Cache of a function's result for the last batch of queries in each thread.

    A source's `retrieve` and `score` need the same vectors of a batch; the cache computes them
    once. The key is the identity of the `Queries` object. Each thread has a separate entry.
    """

    def __init__(self, compute: Callable[[Queries], T]):
        self._compute = compute
        self._of_thread = threading.local()

    def __call__(self, queries: Queries) -> T:
        last: tuple[Queries, T] | None = getattr(self._of_thread, "last", None)
        if last is None or last[0] is not queries:
            last = self._of_thread.last = (queries, self._compute(queries))
        return last[1]


def mask_left_out(scores: np.ndarray, queries: Queries) -> np.ndarray:
    """Set the scores of padding, seen and blocked items to -inf, in place; return `scores`.

    Args:
        scores: dense (B, N + 1) scores.
    """
    scores[:, 0] = -np.inf
    if queries.blocked is not None:
        np.copyto(scores, -np.inf, where=queries.blocked)
    for row, items in zip(scores, queries.seen, strict=True):
        row[items] = -np.inf
    return scores


def top_k(scores: np.ndarray, k: int) -> Candidates:
    """Return the k best items of each row of dense (B, N + 1) scores.

    Of equal scores, the smaller item_idx comes first. A score of -inf becomes padding.
    """
    k = min(k, scores.shape[1])
    item_idx = np.empty((len(scores), k), dtype=np.int64)
    score = np.empty((len(scores), k), dtype=np.float32)
    for row, values in enumerate(scores):
        best = best_places(values, k)
        item_idx[row], score[row] = best, values[best]
    item_idx[np.isneginf(score)] = 0
    return Candidates(item_idx=item_idx, score=score)


def pad_lists(item_idx: np.ndarray, k: int) -> np.ndarray:
    """Cut or pad (B, K) lists to exactly k positions; added positions are 0."""
    return np.pad(item_idx[:, :k], ((0, 0), (0, max(0, k - item_idx.shape[1]))))


def best_places(values: np.ndarray, k: int) -> np.ndarray:
    """Return the (k,) positions of the largest of (N,) values, largest first.

    Values must not be NaN. Of equal values, the smaller position comes first.
    """
    if k == 0:
        return np.empty(0, dtype=np.int64)
    # `np.partition` takes a third of the time of `np.argpartition`.
    least = np.partition(values, len(values) - k)[len(values) - k]
    above = np.flatnonzero(values > least)
    equal = np.flatnonzero(values == least)[: k - len(above)]
    order = np.argsort(-values[above], kind="stable")
    return np.concatenate([above[order], equal])


def newest(
    history: np.ndarray, values: np.ndarray | None = None, *, max_history: int
) -> np.ndarray:
    """Return the newest `max_history` events of right-padded (B, L) histories: (B, M).

    The result is right-padded too. M is the length of the longest row, at least 1, to avoid the
    cost of columns that hold only padding.

    Args:
        values: (B, L), aligned with `history`; these are returned instead of item_idx.
    """
    assert history.shape[1] > 0, "a history has at least one column, padded if need be"
    lengths = (history > 0).sum(1)
    kept = np.minimum(lengths, max_history)
    column = np.arange(max(int(kept.max(initial=0)), 1))
    source = np.minimum((lengths - kept)[:, None] + column, history.shape[1] - 1)
    values = history if values is None else values
    return np.where(column < kept[:, None], np.take_along_axis(values, source, axis=1), 0)
