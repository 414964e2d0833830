"""Leave-one-out evaluation of ordered sequences over the full catalogue.

A user's last item is the test item, the one before it the validation item. At test time, the
validation item is part of the history. Items of the history are not ranked; ties count against the
model. Only users with at least three items are evaluated; the others are used for training only.

Shapes: U users, E events, B users of a chunk, L history, N items.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from models.data import TrainingData
from models.queries import Queries
from shortlist import columns as c
from shortlist.features.finalize import CONTEXT_FEATURES, USER_FEATURES
from shortlist.features.searches import NO_SEARCHES
from shortlist.items.catalogue import Catalogue

CHUNK = 512
"""Number of users ranked at once. With 12,000 items, their scores take 25 MB."""
MISS = np.iinfo(np.int64).max
"""Rank of an item that is masked, isn't a candidate, or has no valid score."""
MINUTE = 60_000_000

Scorer = Callable[[Queries], np.ndarray]
"""Function of B queries that returns (B, N + 1) scores. Column 0 is ignored. The caller may modify
the array."""


class FormatError(ValueError):
    """A sequences file or an option is invalid.

    The message says what is wrong, where, and what would be valid.
    """


@dataclass(frozen=True)
class Sequences:
    """Every user's items, oldest first; user row u has `item_idx[offsets[u]:offsets[u + 1]]`."""

    item_ids: list[str]
    user_ids: list[str]
    offsets: np.ndarray  # (U + 1,) int64: first event of each user row, then E
    item_idx: np.ndarray  # (E,) int64 from 1: index in `item_ids` plus 1

    @classmethod
    def read(cls, path: Path) -> "Sequences":
        """Read lines of the form "user item item ...", in the order of the file.

        Raises:
            FormatError: the file is not text, a line has no item, a user has two lines, or no user
                has enough items for training and evaluation.
        """
        lines = [line.split() for line in _text(path).splitlines()]
        _check_lines(path, lines)
        lines = [parts for parts in lines if parts]
        names = np.array([item for parts in lines for item in parts[1:]])
        item_ids, item_idx = np.unique(names, return_inverse=True)
        lengths = np.array([len(parts) - 1 for parts in lines], dtype=np.int64)
        return cls(
            item_ids=item_ids.tolist(),
            user_ids=[parts[0] for parts in lines],
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            item_idx=item_idx.astype(np.int64) + 1,
        )

    @property
    def num_items(self) -> int:
        return len(self.item_ids)

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    @cached_property
    def judged(self) -> np.ndarray:
        """Rows of the users with at least three items, who are evaluated."""
        return np.flatnonzero(self.lengths >= 3)

    @cached_property
    def catalogue(self) -> Catalogue:
        n = self.num_items
        return Catalogue.from_items(
            pa.table(
                {
                    c.ITEM_ID: self.item_ids,
                    c.CATEGORIES: pa.array([[]] * n, pa.list_(pa.string())),
                    c.AVAILABLE: [True] * n,
                }
            )
        )

    def training(self, *, held_out: int) -> TrainingData:
        """Return all items, except the last `held_out` (0, 1 or 2) of each evaluated user.

        The file has no times. Event i of a user gets minute i as its time, which only encodes the
        order.
        """
        lengths = self.lengths.copy()
        lengths[self.judged] -= held_out
        user = np.repeat(np.arange(len(lengths)), self.lengths)
        nth = np.arange(len(self.item_idx)) - self.offsets[user]
        kept = nth < lengths[user]
        return TrainingData(
            catalogue=self.catalogue,
            user_ids=self.user_ids,
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            item_idx=self.item_idx[kept],
            time=nth[kept] * MINUTE,
            value=np.full(int(kept.sum()), np.nan, dtype=np.float32),
            type_code=np.zeros(int(kept.sum()), dtype=np.int64),
            profile=np.zeros((len(lengths), 1), dtype=np.int64),
            profile_cardinalities=(1,),
        )

    def chunks(
        self, *, held_out: int, users: np.ndarray | None = None, size: int = CHUNK
    ) -> Iterator[tuple[Queries, np.ndarray]]:
        """Yield queries for chunks of users, each with the relevant item of every user, (B,).

        The history is all but the last `held_out` items (1: test, 2: validation), and the relevant
        item is the next one. Users are sorted by history length, to reduce padding.
        """
        rows = self.judged if users is None else users
        rows = rows[np.argsort(self.lengths[rows], kind="stable")]
        for i in range(0, len(rows), size):
            part = rows[i : i + size]
            begin, length = self.offsets[part], self.lengths[part] - held_out
            column = np.arange(length.max())
            real = column < length[:, None]
            index = np.minimum(begin[:, None] + column, len(self.item_idx) - 1)
            history = np.where(real, self.item_idx[index], 0)
            target = self.item_idx[begin + length]
            yield queries_of(history, users=[self.user_ids[r] for r in part]), target


def _text(path: Path) -> str:
    wanted = "want a text file with lines of the form 'user item item ...'"
    if not path.is_file():
        raise FormatError(f"{path}: no such file, {wanted}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: byte {error.start} is not UTF-8, {wanted}") from None
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}), {wanted}") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise FormatError(f"{path}: line {line} has a zero byte, {wanted}")
    return text


def _check_lines(path: Path, lines: list[list[str]]) -> None:
    first: dict[str, int] = {}
    for number, parts in enumerate(lines, 1):
        if len(parts) == 1:
            raise FormatError(f"{path}: line {number} has a user without items")
        if parts and first.setdefault(parts[0], number) != number:
            raise FormatError(
                f"{path}: line {number} has user '{parts[0]}' again, who is on line"
                f" {first[parts[0]]}; want one line for each user, oldest item first"
            )
    longest = max((len(parts) - 1 for parts in lines), default=0)
    if longest < 3:
        raise FormatError(
            f"{path}: no user with three items, want lines of the form 'user item item ...'"
        )
    if longest == 3 and not any(len(parts) - 1 == 2 for parts in lines):
        raise FormatError(
            f"{path}: no user has two items left to train on without the test and validation"
            " items; want users with four items or more"
        )


def queries_of(history: np.ndarray, *, users: list[str]) -> Queries:
    """Build queries from right-padded (B, L) histories; all other features are empty."""
    n = len(history)
    real = history > 0
    return Queries(
        user_ids=users,
        at=np.full(n, history.shape[1] * MINUTE),
        history=history,
        history_time=np.where(real, np.arange(history.shape[1]) * MINUTE, 0),
        history_value=np.full(history.shape, np.nan, dtype=np.float32),
        history_type=np.zeros_like(history),
        seen=[row[row > 0] for row in history],
        user=np.zeros((n, len(USER_FEATURES)), dtype=np.float32),
        context=np.zeros((n, len(CONTEXT_FEATURES)), dtype=np.float32),
        profile=np.zeros((n, 1), dtype=np.int64),
        searches=[NO_SEARCHES] * n,
    )


def without_order(queries: Queries) -> Queries:
    """Return the same queries with each history cut to its newest event.

    A model that ranks as well with them doesn't use the order of the history.
    """
    last = (queries.history > 0).sum(1) - 1
    return replace(queries, history=queries.history[np.arange(len(last)), last][:, None])


def ranks(scorer: Scorer, chunks: Iterator[tuple[Queries, np.ndarray]]) -> np.ndarray:
    """Return the rank of each relevant item in the whole catalogue, from 1.

    The rank is MISS if the item is in the history.
    """
    out = [ranks_of(scorer(queries), queries.history, target) for queries, target in chunks]
    return np.concatenate(out)


def ranks_of(scores: np.ndarray, history: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the ranks of relevant items, from 1: (B,). See `ranks`.

    Args:
        scores: (B, N + 1), modified in place.
        history: (B, L) item_idx of items that are not ranked.
        target: (B,) item_idx of the relevant items.
    """
    row = np.arange(len(scores))
    wanted = scores[row, target]
    scores[row[:, None], history] = -np.inf  # padding sets column 0
    scores[:, 0] = -np.inf
    rank = (scores >= wanted[:, None]).sum(1)
    return np.where(np.isneginf(scores[row, target]) | np.isnan(wanted), MISS, rank)


def figures(rank: np.ndarray) -> dict[str, float]:
    """Return recall and nDCG at 5 and 10, averaged over users.

    Each user has one relevant item, so recall is the hit rate.

    Args:
        rank: rank of each user's relevant item.
    """
    out = {}
    for k in (5, 10):
        hit = rank <= k
        out[f"recall@{k}"] = float(hit.mean())
        out[f"ndcg@{k}"] = float(np.where(hit, 1 / np.log2(np.where(hit, rank, 1) + 1), 0).mean())
    return out
