"""Data for fitting candidate sources (models that retrieve candidates).

These are the users' histories at the end of the training window, and validation requests.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from models.content.reviews import Reviews
from models.queries import Queries, Source
from models.search.pairs import SearchPairs
from models.user_log import UserLog
from shortlist.features.pack import ItemState
from shortlist.items.catalogue import Catalogue
from shortlist.metrics import ndcg


def fingerprint(*arrays: np.ndarray) -> str:
    """Return the first 16 hex digits of a SHA-256 over types, shapes and contents of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class TrainingData:
    """Histories of U users at the end of the training window, with E events in total.

    The histories contain target events: events of the types that models learn to predict. They are
    sorted by user, then by time, then by their order in the log. The events of user row u are
    `offsets[u]:offsets[u + 1]`. A history contains each item once, or every event if repeats are
    allowed (`[data] repeats`). `all_events` always contains all target events.
    """

    catalogue: Catalogue
    user_ids: list[str]
    offsets: np.ndarray  # (U + 1,) int64
    item_idx: np.ndarray  # (E,) int64, from 1
    time: np.ndarray  # (E,) int64 microseconds
    value: np.ndarray  # (E,) float32, NaN where the event has none
    type_code: np.ndarray  # (E,) int64 EVENT_CODE, 0 where unknown
    profile: np.ndarray  # (U, A) int64 codes of A user attributes, 0 for unknown
    profile_cardinalities: tuple[int, ...]  # number of codes of each attribute, including unknown
    log: UserLog | None = None
    """All target events. If None, the arrays above contain all of them (no item is repeated), and
    each event became known one microsecond after its time."""
    read_reviews: Callable[[], Reviews | None] | None = None
    """Reads the reviews that were known before the end of the training window; None: there are
    none."""
    read_searches: Callable[[], SearchPairs | None] | None = None
    """Reads the searches before the end of the training window, with the items that were chosen
    after them; None: there are none."""

    @classmethod
    def from_log(
        cls,
        log: UserLog,
        *,
        catalogue: Catalogue,
        user_ids: list[str],
        profile: np.ndarray,
        profile_cardinalities: tuple[int, ...],
        read_reviews: Callable[[], Reviews | None] | None = None,
        read_searches: Callable[[], SearchPairs | None] | None = None,
    ) -> "TrainingData":
        """Build histories from all target events, as `shortlist/behaviour/counting.py` says."""
        known = log.in_catalogue
        rows = known.history_rows()
        return cls(
            catalogue=catalogue,
            user_ids=user_ids,
            offsets=np.searchsorted(known.user_row[rows], np.arange(log.num_users + 1)),
            item_idx=known.item_idx[rows],
            time=known.time[rows],
            value=known.value[rows].astype(np.float32),
            type_code=known.type_code[rows],
            profile=profile,
            profile_cardinalities=profile_cardinalities,
            log=log,
            read_reviews=read_reviews,
            read_searches=read_searches,
        )

    @cached_property
    def reviews(self) -> Reviews | None:
        """Reviews before the end of the training window. Only sources that use them read them."""
        return None if self.read_reviews is None else self.read_reviews()

    @cached_property
    def searches(self) -> SearchPairs | None:
        """Searches before the end of the training window, and the items chosen after them."""
        return None if self.read_searches is None else self.read_searches()

    @cached_property
    def all_events(self) -> UserLog:
        """All target events, including repeats, events about items outside the catalogue and events
        without an item, with the times at which they became known.
        """
        return self.log or UserLog.build(
            self.user_row,
            num_users=self.num_users,
            num_items=self.num_items,
            item_idx=self.item_idx,
            time=self.time,
            known=self.time + 1,
            value=self.value.astype(np.float64),
            type_code=self.type_code,
        )

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        return self.catalogue.num_items

    @cached_property
    def num_event_types(self) -> int:
        """Number of distinct known event types in the histories."""
        return int(np.count_nonzero(np.unique(self.type_code)))

    @cached_property
    def user_row(self) -> np.ndarray:
        """(E,) int64: the user row of each event."""
        return np.repeat(np.arange(self.num_users), np.diff(self.offsets))

    @cached_property
    def item_counts(self) -> np.ndarray:
        """(N + 1,) int64: number of events of each item in the histories; row 0 is 0."""
        return np.bincount(self.item_idx, minlength=self.num_items + 1)

    @cached_property
    def matrix(self) -> csr_array:
        """(U, N + 1) float32: 1 if the item is in the user's history, else 0."""
        ones = np.ones(len(self.item_idx), dtype=np.float32)
        shape = (self.num_users, self.num_items + 1)
        matrix = csr_array((ones, (self.user_row, self.item_idx)), shape=shape)
        matrix.data[:] = 1
        return matrix

    @cached_property
    def about(self) -> dict[str, int | str]:
        """Sizes and hashes of events, users and items, which identify the data set."""
        names = ("offsets", "item_idx", "time", "value", "type_code", "profile")
        arrays = [getattr(self, name) for name in names]
        return {
            "num_users": self.num_users,
            "num_items": self.num_items,
            "num_events": len(self.item_idx),
            "events": fingerprint(*arrays),
            "users": fingerprint(np.array(self.user_ids)),
            "items": fingerprint(
                np.array(self.catalogue.vocab.ids), self.catalogue.category_matrix
            ),
        }


@dataclass(frozen=True)
class Validation:
    """Requests with known relevant items, for tuning and early stopping."""

    ticks: list[tuple[Queries, ItemState, list[np.ndarray]]]
    """One entry per tick (time at which item features change) with requests: the queries, the item
    features that they read, and the relevant item_idx of each query."""

    def ndcg(self, source: Source, *, k: int = 10) -> float:
        """Return nDCG@k of `source` over the full catalogue: mean per user, then over users."""
        return mean_over_users(self.users, self.ndcg_of_requests(source, k=k))

    def ndcg_of_requests(self, source: Source, *, k: int = 10) -> np.ndarray:
        """Return nDCG@k of each request, in the order of `users`."""
        return self.per_request(
            lambda queries, items, relevant: ndcg(
                source.retrieve(queries, items, k=k).item_idx, relevant, k=k
            )
        )

    @property
    def users(self) -> list[str]:
        """The user id of each request."""
        return [user for queries, _, _ in self.ticks for user in queries.user_ids]

    def per_request(
        self, judge: Callable[[Queries, ItemState, list[np.ndarray]], np.ndarray]
    ) -> np.ndarray:
        """Return a metric of each request; `judge` is that of `mean_per_user`."""
        values = [judge(*tick) for tick in self.ticks]
        return np.concatenate(values) if values else np.zeros(0)

    def mean_per_user(
        self, judge: Callable[[Queries, ItemState, list[np.ndarray]], np.ndarray]
    ) -> float:
        """Return the mean of a metric: first over each user's requests, then over users.

        NaN if there are no requests or all values are NaN.

        Args:
            judge: computes the metric of each query from the arguments (queries, item features,
                relevant item_idx of each query); NaN for a query without relevant items.
        """
        return mean_over_users(self.users, self.per_request(judge))


def mean_over_users(users: list[str], values: np.ndarray) -> float:
    """Return the mean over users of each user's mean value.

    NaN values are ignored. Returns NaN if all values are NaN.

    Args:
        users: the user id of each value.
    """
    kept = ~np.isnan(values)
    if not kept.any():
        return float("nan")
    _, rows = np.unique(np.asarray(users)[kept], return_inverse=True)
    per_user = np.bincount(rows, weights=values[kept]) / np.bincount(rows)
    return float(per_user.mean())
