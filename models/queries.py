"""A batch of queries, and the protocol of a candidate source that answers it.

Shape legend for all of `models`: B users, L history, D dim, N items, C candidates, H heads.
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
    """B requests as arrays for the models. Histories contain only events strictly before `at`."""

    user_ids: list[str]
    at: np.ndarray  # (B,) int64 microseconds
    history: np.ndarray  # (B, L) int64 item_idx, oldest first, padded with 0 on the RIGHT
    history_time: np.ndarray  # (B, L) int64 microseconds, 0 where padded
    history_value: np.ndarray  # (B, L) float32, NaN where padded or without value
    history_type: np.ndarray  # (B, L) int64 EVENT_CODE, 0 where padded or unknown
    seen: list[np.ndarray]  # B arrays of item_idx the user consumed or refused; never retrieved
    user: np.ndarray  # (B, len(USER_FEATURES)) float32
    context: np.ndarray  # (B, len(CONTEXT_FEATURES)) float32
    profile: np.ndarray  # (B, A) int64 codes, 0 unknown
    searches: list[Searches]  # strictly before `at`, B of them
    places: np.ndarray | None = None  # (B, 2) int64 codes of surface and device; None: unknown
    blocked: np.ndarray | None = None
    """(N + 1,) bool: items that must not be shown for any of the requests, because they are
    unavailable or filtered; padding is True. None: all items may be shown."""

    def __len__(self) -> int:
        return len(self.user_ids)

    @property
    def lengths(self) -> np.ndarray:
        """(B,) int64: number of real positions in each history."""
        return (self.history > 0).sum(1)

    def allowed(self, row: int, num_items: int) -> np.ndarray:
        """(N + 1,) bool: items that request `row` may be shown; padding is False."""
        if self.blocked is None:
            allowed = np.ones(num_items + 1, dtype=bool)
            allowed[0] = False
        else:
            allowed = ~self.blocked
        allowed[self.seen[row]] = False
        return allowed

    def take(self, rows: slice) -> "Queries":
        """The requests of a slice. `blocked` holds for all requests and stays."""
        per_request = {name: value for name, value in vars(self).items() if name != "blocked"}
        return replace(
            self,
            **{name: None if value is None else value[rows] for name, value in per_request.items()},
        )

    def known(self, num_items: int) -> "Queries":
        """A copy restricted to the first `num_items` items, for models that have no others."""
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
    """Candidates of each query, best first, padded with item_idx 0 and score -inf."""

    item_idx: np.ndarray  # (B, C) int64
    score: np.ndarray  # (B, C) float32


def no_candidates(num_queries: int) -> Candidates:
    """Lists of length 0."""
    none = np.empty((num_queries, 0), dtype=np.int64)
    return Candidates(none, none.astype(np.float32))


@runtime_checkable
class Source(Protocol):
    """A candidate source: any baseline, retrieval, sequence or content model."""

    name: str

    def retrieve(self, queries: Queries, items: ItemState, *, k: int) -> Candidates:
        """The k best items of the catalogue for each query, without seen and blocked items."""
        ...

    def score(self, queries: Queries, items: ItemState, candidates: np.ndarray) -> np.ndarray:
        """Score given candidates: (B, C) item_idx -> (B, C) float32, on the scale of `retrieve`."""
        ...

    def save(self, folder: Path) -> None:
        """Write everything that `load` needs into an existing empty folder. No pickle."""
        ...


class OncePerBatch(Generic[T]):
    """Caches a function's result for the last batch of queries of each thread.

    `retrieve` and `score` of one batch need the same vectors. The cache compares the `Queries`
    object by identity, so a new batch is always computed. Requests of other threads don't evict it.
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
    """Set padding, seen and blocked items of dense (B, N + 1) scores to -inf, in place."""
    scores[:, 0] = -np.inf
    if queries.blocked is not None:
        np.copyto(scores, -np.inf, where=queries.blocked)
    for row, items in zip(scores, queries.seen, strict=True):
        row[items] = -np.inf
    return scores


def top_k(scores: np.ndarray, k: int) -> Candidates:
    """Dense (B, N + 1) scores -> the k best; ties go to the smaller item_idx; -inf is padding."""
    k = min(k, scores.shape[1])
    item_idx = np.empty((len(scores), k), dtype=np.int64)
    score = np.empty((len(scores), k), dtype=np.float32)
    for row, values in enumerate(scores):
        best = best_places(values, k)
        item_idx[row], score[row] = best, values[best]
    item_idx[np.isneginf(score)] = 0
    return Candidates(item_idx=item_idx, score=score)


def best_places(values: np.ndarray, k: int) -> np.ndarray:
    """(N,) values without NaN -> (k,) positions of the largest, ties by position.

    Partitioning values takes a third of the time of partitioning positions.
    """
    if k == 0:
        return np.empty(0, dtype=np.int64)
    least = np.partition(values, len(values) - k)[len(values) - k]
    above = np.flatnonzero(values > least)
    equal = np.flatnonzero(values == least)[: k - len(above)]
    order = np.argsort(-values[above], kind="stable")
    return np.concatenate([above[order], equal])


def newest(
    history: np.ndarray, values: np.ndarray | None = None, *, max_history: int
) -> np.ndarray:
    """Cut right-padded (B, L) histories to the newest `max_history` real events: (B, M).

    The result is right-padded too. M is the length of the longest row, because columns of padding
    cost as much time as real ones.

    Args:
        values: (B, L) values to return instead of item indices, aligned with `history`.
    """
    assert history.shape[1] > 0, "a history has at least one column, padded if need be"
    lengths = (history > 0).sum(1)
    kept = np.minimum(lengths, max_history)
    column = np.arange(max(int(kept.max(initial=0)), 1))
    source = np.minimum((lengths - kept)[:, None] + column, history.shape[1] - 1)
    values = history if values is None else values
    return np.where(column < kept[:, None], np.take_along_axis(values, source, axis=1), 0)
