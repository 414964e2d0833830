"""Training requests for models that encode a whole query: the training window as a service sees it.

A request is a distinct (user, timestamp); its history and its user's features are what was known
strictly before, its positives are the items that the user then touched for the first time, or again
where repeats are allowed. Each becomes a row of `Queries`, so that a model has one way to read a
query, in training as in service.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from models.data import TrainingData
from models.queries import Queries
from shortlist.features.event_groups import no_kinds
from shortlist.features.finalize import (
    CONTEXT_FEATURES,
    CONTEXT_ON_DEMAND,
    RequestRows,
    finalize_user,
    time_features,
)
from shortlist.features.searches import NO_SEARCHES


@dataclass(frozen=True)
class RequestBatch:
    """B requests and their M positives; positive m belongs to request `row[m]`."""

    queries: Queries
    row: np.ndarray  # (M,) int64
    positives: np.ndarray  # (M,) int64 item_idx


class RequestExamples:
    """All requests of the training window; R of them."""

    def __init__(self, data: TrainingData, *, max_history: int, rng: np.random.Generator):
        self.data = data
        self.max_history = max_history
        self.rng = rng
        log = data.every.in_catalogue
        new = log.to_find()
        self.item_idx, time, user_row = log.item_idx[new], log.time[new], log.user_row[new]
        first = np.ones(len(new), dtype=bool)
        first[1:] = (np.diff(time) != 0) | (np.diff(user_row) != 0)
        self.begin = np.flatnonzero(first)  # (R,) first positive of the request
        self.end = np.append(self.begin[1:], len(new))[: len(self.begin)]
        self.user_row = user_row[self.begin]
        self.at = time[self.begin]
        self._offsets = np.searchsorted(user_row, np.arange(data.num_users + 1))
        self._known = log.known_by(self.user_row, self.at)
        self.user_features = self._user_features()

    def batches(self, batch_size: int) -> Iterator[RequestBatch]:
        """One epoch over all requests, in new order."""
        order = self.rng.permutation(len(self.begin))
        for i in range(0, len(order), batch_size):
            requests = order[i : i + batch_size]
            sizes = self.end[requests] - self.begin[requests]
            row = np.repeat(np.arange(len(requests)), sizes)
            nth = np.arange(len(row)) - (np.cumsum(sizes) - sizes)[row]
            positives = self.item_idx[self.begin[requests][row] + nth]
            yield RequestBatch(self.queries(requests), row, positives)

    def queries(self, requests: np.ndarray) -> Queries:
        """(B,) request numbers -> Queries with the newest `max_history` events before each."""
        data, begin, user = self.data, self.begin[requests], self.user_row[requests]
        log = data.every.in_catalogue
        event = log.histories(user, self._known[requests], limit=self.max_history)
        real = event >= 0
        at = self.at[requests]
        times = time_features(at)
        context = np.zeros((len(requests), len(CONTEXT_FEATURES)), dtype=np.float32)
        for name in CONTEXT_ON_DEMAND:
            context[:, CONTEXT_FEATURES.index(name)] = times[name]
        starts = self._offsets[user]
        return Queries(
            user_ids=[data.user_ids[u] for u in user],
            at=at,
            history=np.where(real, log.item_idx[event], 0),
            history_time=np.where(real, log.time[event], 0),
            history_value=np.where(real, log.value[event], np.nan).astype(np.float32),
            history_type=np.where(real, log.type_code[event], 0),
            seen=[self.item_idx[s:b] for s, b in zip(starts, begin, strict=True)],
            user=self.user_features[requests],
            context=context,
            profile=data.profile[user],
            searches=[NO_SEARCHES] * len(requests),
        )

    def _user_features(self) -> np.ndarray:
        """(R, len(USER_FEATURES)) float32, by the same `finalize_user` as in service.

        The training window holds target events only: kinds and searches are empty.
        """
        every = self.data.every
        R = len(self.begin)
        state = every.states(self.user_row, self.at)
        of_items = every.with_items
        rows = RequestRows(
            user_ids=[],
            context_ids=[],
            at=self.at,
            user={f"user_{name}": values for name, values in state.items()} | no_kinds("user", R),
            history_items=[],
            history_times=of_items.history_times(
                self.user_row, of_items.known_by(self.user_row, self.at)
            ),
            history_values=[],
            history_types=[],
            attributes=[],
            context={},
            searches=[NO_SEARCHES] * R,
            refusals=[],
        )
        return finalize_user(rows)
