"""Training requests for models that encode a whole query: the training window as a service sees it.

A request is a distinct (user, timestamp); its history is strictly before, its positives are the
events at it. Each becomes a row of `Queries`, so that a model has one way to read a query, in
training as in service.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from models.data import TrainingData
from models.queries import Queries
from shortlist.event_kinds import no_kinds
from shortlist.features import (
    CONTEXT_FEATURES,
    CONTEXT_ON_DEMAND,
    HALF_LIFE,
    USER_STATE,
    RequestRows,
    finalize_user,
    time_features,
)
from shortlist.searches import NO_SEARCHES


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
        first = np.ones(len(data.time), dtype=bool)
        first[1:] = (np.diff(data.time) != 0) | (np.diff(data.user_row) != 0)
        self.begin = np.flatnonzero(first)  # (R,) first event of the request's set
        self.end = np.append(self.begin[1:], len(data.time))
        self.user_row = data.user_row[self.begin]
        self.at = data.time[self.begin]
        self.user_features = self._user_features()

    def batches(self, batch_size: int) -> Iterator[RequestBatch]:
        """One epoch over all requests, in new order."""
        order = self.rng.permutation(len(self.begin))
        for i in range(0, len(order), batch_size):
            requests = order[i : i + batch_size]
            sizes = self.end[requests] - self.begin[requests]
            row = np.repeat(np.arange(len(requests)), sizes)
            nth = np.arange(len(row)) - (np.cumsum(sizes) - sizes)[row]
            positives = self.data.item_idx[self.begin[requests][row] + nth]
            yield RequestBatch(self.queries(requests), row, positives)

    def queries(self, requests: np.ndarray) -> Queries:
        """(B,) request numbers -> Queries with the newest `max_history` events before each."""
        data, begin, user = self.data, self.begin[requests], self.user_row[requests]
        length = np.minimum(begin - data.offsets[user], self.max_history)
        column = np.arange(max(int(length.max(initial=0)), 1))
        event = np.minimum((begin - length)[:, None] + column, len(data.time) - 1)
        real = column < length[:, None]
        at = self.at[requests]
        times = time_features(at)
        context = np.zeros((len(requests), len(CONTEXT_FEATURES)), dtype=np.float32)
        for name in CONTEXT_ON_DEMAND:
            context[:, CONTEXT_FEATURES.index(name)] = times[name]
        return Queries(
            user_ids=[data.user_ids[u] for u in user],
            at=at,
            history=np.where(real, data.item_idx[event], 0),
            history_time=np.where(real, data.time[event], 0),
            history_value=np.where(real, data.value[event], np.float32(0)),
            history_type=np.where(real, data.type_code[event], 0),
            seen=[data.item_idx[data.offsets[u] : b] for u, b in zip(user, begin, strict=True)],
            user=self.user_features[requests],
            context=context,
            profile=data.profile[user],
            searches=[NO_SEARCHES] * len(requests),
        )

    def _user_features(self) -> np.ndarray:
        """(R, len(USER_FEATURES)) float32, by the house's own `finalize_user`."""
        data = self.data
        R, start = len(self.begin), data.offsets[self.user_row]
        count = self.begin - start
        known = count > 0
        newest = np.maximum(self.begin - 1, 0)
        valued = data.value != 0
        value_sum = np.concatenate([[0], np.cumsum(data.value, dtype=np.float64)])
        value_count = np.concatenate([[0], np.cumsum(valued)])
        state: dict[str, np.ndarray] = {name: np.zeros(R) for name in USER_STATE}
        state |= no_kinds("user", R)  # the training window holds target events only
        state["user_events"] = count.astype(np.float64)
        state["user_last_time"] = np.where(known, data.time[newest], 0)
        state["user_first_time"] = np.where(known, data.time[start], 0)
        state["user_value_sum"] = value_sum[self.begin] - value_sum[start]
        state["user_value_count"] = (value_count[self.begin] - value_count[start]).astype(float)
        state["user_decayed"] = self._decayed(self.end - self.begin)
        for name, total in (("value_decayed", value_sum), ("value_weight", value_count)):
            state[f"user_{name}"] = self._decayed(total[self.end] - total[self.begin])
        history_times = [data.time[s:b] for s, b in zip(start, self.begin, strict=True)]
        rows = RequestRows(
            user_ids=[],
            context_ids=[],
            at=self.at,
            user=state,
            history_items=[],
            history_times=history_times,
            history_values=[],
            history_types=[],
            attributes=[],
            context={},
            searches=[NO_SEARCHES] * R,
        )
        return finalize_user(rows)

    def _decayed(self, added: np.ndarray) -> np.ndarray:
        """(R,) each user's decayed sum before the request, as of the newest event before it; (R,)
        what the events of each request add.
        """
        out = np.zeros(len(self.begin))
        for r in range(1, len(self.begin)):
            if self.user_row[r] == self.user_row[r - 1]:
                held = 0.0
                if self.begin[r - 1] > self.data.offsets[self.user_row[r]]:
                    gap = self.at[r - 1] - self.data.time[self.begin[r - 1] - 1]
                    held = out[r - 1] * 2.0 ** (-gap / HALF_LIFE)
                out[r] = held + added[r - 1]
        return out
