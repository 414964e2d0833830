"""What every model answers: a batch of queries, and the protocol of a candidate source.

Shape legend, everywhere in `models`: B users, L history, D dim, N items, C candidates, H heads.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from shortlist.features.pack import ItemState
from shortlist.features.searches import Searches

T = TypeVar("T")


def nothing() -> np.ndarray:
    """No item_idx."""
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Queries:
    """B requests, ready for the models. Histories are cut strictly before `at`."""

    user_ids: list[str]
    at: np.ndarray  # (B,) int64 microseconds
    history: np.ndarray  # (B, L) int64 item_idx, oldest first, padded with 0 on the RIGHT
    history_time: np.ndarray  # (B, L) int64 microseconds, 0 where padded
    history_value: np.ndarray  # (B, L) float32, NaN where padded or without value
    history_type: np.ndarray  # (B, L) int64 EVENT_CODE, 0 where padded or unknown
    seen: list[np.ndarray]  # item_idx that its user consumed or refused, any length, B; left out
    user: np.ndarray  # (B, len(USER_FEATURES)) float32
    context: np.ndarray  # (B, len(CONTEXT_FEATURES)) float32
    profile: np.ndarray  # (B, A) int64 codes, 0 unknown
    searches: list[Searches]  # strictly before `at`, B of them
    places: np.ndarray | None = None  # (B, 2) int64 codes of surface and device; None: unknown
    blocked: np.ndarray = field(default_factory=nothing)
    """item_idx that none of these may be shown: unavailable, filtered."""

    def __len__(self) -> int:
        return len(self.user_ids)

    @property
    def lengths(self) -> np.ndarray:
        """(B,) int64: real positions in each history."""
        return (self.history > 0).sum(1)

    @property
    def left_out(self) -> list[np.ndarray]:
        """B arrays of item_idx, seen or blocked. For small batches: it repeats what is blocked."""
        return [np.concatenate([seen, self.blocked]) for seen in self.seen]

    def take(self, rows: slice) -> "Queries":
        """The requests of a slice."""
        return Queries(
            user_ids=self.user_ids[rows],
            at=self.at[rows],
            history=self.history[rows],
            history_time=self.history_time[rows],
            history_value=self.history_value[rows],
            history_type=self.history_type[rows],
            seen=self.seen[rows],
            user=self.user[rows],
            context=self.context[rows],
            profile=self.profile[rows],
            searches=self.searches[rows],
            places=None if self.places is None else self.places[rows],
            blocked=self.blocked,
        )

    def known(self, num_items: int) -> "Queries":
        """The same for models of the first `num_items` items: later ones are left out."""
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
            blocked=self.blocked[self.blocked <= num_items],
        )


@dataclass(frozen=True)
class Candidates:
    """For each query its candidates, best first, padded with item_idx 0 and score -inf."""

    item_idx: np.ndarray  # (B, C) int64
    score: np.ndarray  # (B, C) float32


@runtime_checkable
class Source(Protocol):
    """A candidate source: every baseline and every retrieval, sequence and content model is one."""

    name: str

    def retrieve(self, queries: Queries, items: ItemState, *, k: int) -> Candidates:
        """The k best items of the catalogue for each query, those seen or blocked left out."""
        ...

    def score(self, queries: Queries, items: ItemState, candidates: np.ndarray) -> np.ndarray:
        """Scores of given candidates: (B, C) item_idx -> (B, C) float32, on `retrieve`'s scale."""
        ...

    def save(self, folder: Path) -> None:
        """Write everything needed to load it again into an existing empty folder. No pickle."""
        ...


class OncePerBatch(Generic[T]):
    """Remembers the last answer: `retrieve` and `score` of one batch need the same vectors.

    By identity of the Queries, so a new batch is always computed; safe between threads.
    """

    def __init__(self, compute: Callable[[Queries], T]):
        self._compute = compute
        self._last: tuple[Queries, T] | None = None

    def __call__(self, queries: Queries) -> T:
        last = self._last
        if last is None or last[0] is not queries:
            last = self._last = (queries, self._compute(queries))
        return last[1]


def mask_left_out(scores: np.ndarray, queries: Queries) -> np.ndarray:
    """Set padding, seen and blocked items of dense (B, N + 1) scores to -inf, in place."""
    scores[:, 0] = -np.inf
    scores[:, queries.blocked] = -np.inf
    for row, items in zip(scores, queries.seen, strict=True):
        row[items] = -np.inf
    return scores


def top_k(scores: np.ndarray, k: int) -> Candidates:
    """Dense (B, N + 1) scores -> the k best, ties by the smaller item_idx; -inf becomes padding."""
    k = min(k, scores.shape[1])
    part = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    part.sort(axis=1)
    best = np.take_along_axis(scores, part, axis=1)
    order = np.argsort(-best, axis=1, kind="stable")
    item_idx = np.take_along_axis(part, order, axis=1)
    score = np.take_along_axis(best, order, axis=1).astype(np.float32)
    item_idx[np.isneginf(score)] = 0
    return Candidates(item_idx=item_idx, score=score)


def newest(
    history: np.ndarray, values: np.ndarray | None = None, *, max_history: int
) -> np.ndarray:
    """Right-padded (B, L) -> right-padded (B, M): the newest `max_history` real events of each row.

    M is the longest row's length: columns of padding cost as much as real ones.

    Args:
        values: (B, L) to take in place of the item indices, aligned with them.
    """
    assert history.shape[1] > 0, "a history has at least one column, padded if need be"
    lengths = (history > 0).sum(1)
    kept = np.minimum(lengths, max_history)
    column = np.arange(max(int(kept.max(initial=0)), 1))
    source = np.minimum((lengths - kept)[:, None] + column, history.shape[1] - 1)
    values = history if values is None else values
    return np.where(column < kept[:, None], np.take_along_axis(values, source, axis=1), 0)
