"""The ranker protocol, and the training data and evaluation of rankers.

Shapes: G requests (groups), R candidates of all groups together, C candidates of the largest group,
F features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from models.data import mean_over_users
from models.queries import Queries
from models.ranking.requests import History, Requests
from models.ranking.schema import RankingSchema, Schema
from shortlist.behaviour.value import discounted, value_of


class RankingError(ValueError):
    """A ranker can't be trained on the given data; the message says what is missing."""


@runtime_checkable
class Ranker(Protocol):
    """A model that scores the candidates of a request; higher is better.

    Scores are comparable only within a request.
    """

    name: str

    def predict(
        self, x: np.ndarray, item_idx: np.ndarray, requests: Requests | None = None
    ) -> np.ndarray:
        """Score candidates: x (R, F) float32 in schema order, item_idx (R,) -> (R,) float32.

        Args:
            requests: group sizes and histories, which some rankers read. None: all rows are
                candidates of one request without a history.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write all files that `load` needs into an existing empty folder. No pickle."""
        ...


@dataclass(frozen=True)
class RankingData:
    """Requests with candidates, features and labels; the rows of a request are contiguous."""

    x: np.ndarray  # (R, F) float32 features
    item_idx: np.ndarray  # (R,) int64, from 1
    label: np.ndarray  # (R,) float32, 1 if relevant
    group: np.ndarray  # (G,) int64: number of candidates of each request
    users: list[str]  # user id of each request
    num_relevant: np.ndarray  # (G,) int64: also counts relevant items that are no candidates
    schema: Schema
    history: History | None = None
    """Histories of the requests; None: no request has one."""
    outcomes: np.ndarray | None = None
    """(R, S) float32: what the user did with each candidate, in the order of NAMES in
    shortlist/behaviour/value.py; None: nothing reads it."""
    position: np.ndarray | None = None
    """(R,) int64: position at which the item was shown, from 1; 0 if it wasn't. None: no item was.
    Only training reads it."""
    propensity: np.ndarray | None = None
    """(R,) float32: probability with which the item was shown, NaN if unknown. None: all are. Only
    training reads it."""

    @classmethod
    def from_requests(
        cls,
        x: np.ndarray,
        candidates: np.ndarray,
        relevant: Sequence[np.ndarray],
        *,
        users: Sequence[str],
        schema: Schema,
        queries: Queries | None = None,
        outcomes: np.ndarray | None = None,
    ) -> "RankingData":
        """Build the data from arrays that are padded to C candidates per request.

        Args:
            x: (G, C, F) features, or (R, F) if those of padding are already left out.
            candidates: (G, C) item_idx, padded with 0.
            relevant: relevant item_idx of each request.
            users: user id of each request.
            queries: the requests, whose histories are kept; None: no histories.
            outcomes: (G, C, S); None: there are none.
        """
        real = candidates > 0
        label = np.stack(
            [np.isin(row, wanted) for row, wanted in zip(candidates, relevant, strict=True)]
        )
        return cls(
            x=x[real] if x.ndim == 3 else x,
            item_idx=candidates[real],
            label=label[real].astype(np.float32),
            group=real.sum(1),
            users=list(users),
            num_relevant=np.array([len(np.unique(wanted)) for wanted in relevant], dtype=np.int64),
            schema=schema,
            history=None if queries is None else History.of(queries),
            outcomes=None if outcomes is None else outcomes[real],
        )

    @classmethod
    def concat(
        cls, parts: Sequence["RankingData"], *, x: np.ndarray | None = None
    ) -> "RankingData":
        """Concatenate the requests of parts with equal schemas.

        Args:
            x: (R, F) features of all parts. If the parts' `x` are views of one array, pass that
                array to avoid a copy.
        """
        assert len({part.schema for part in parts}) == 1, "parts of different schemas, or none"
        return cls(
            x=np.concatenate([part.x for part in parts]) if x is None else x,
            item_idx=np.concatenate([part.item_idx for part in parts]),
            label=np.concatenate([part.label for part in parts]),
            group=np.concatenate([part.group for part in parts]),
            users=[user for part in parts for user in part.users],
            num_relevant=np.concatenate([part.num_relevant for part in parts]),
            schema=parts[0].schema,
            history=History.concat([part.requests.history for part in parts]),
            outcomes=_joined(parts, "outcomes"),
            position=_joined(parts, "position", missing=0),
            propensity=_joined(parts, "propensity", missing=np.nan),
        )

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self.group)

    @property
    def requests(self) -> Requests:
        """What rankers read beside the features."""
        history = self.history
        if history is None:
            return Requests.alone(self.group)
        return Requests(self.group, lambda: history)

    @cached_property
    def rows(self) -> np.ndarray:
        """(G, C) int64: row of each candidate of each request, -1 for padding."""
        return pad_groups(self.group)

    def take(self, requests: np.ndarray) -> "RankingData":
        """Return the data of the given requests, in the given order."""
        rows = self.rows[requests]
        rows = rows[rows >= 0]
        return RankingData(
            x=self.x[rows],
            item_idx=self.item_idx[rows],
            label=self.label[rows],
            group=self.group[requests],
            users=[self.users[i] for i in requests],
            num_relevant=self.num_relevant[requests],
            schema=self.schema,
            history=None if self.history is None else self.history.take(requests),
            outcomes=None if self.outcomes is None else self.outcomes[rows],
            position=None if self.position is None else self.position[rows],
            propensity=None if self.propensity is None else self.propensity[rows],
        )

    def without_sources(self, sources: Sequence[str]) -> "RankingData":
        """Return the same candidates without the features of these sources.

        The features over all sources (MERGE in source_features.py) keep their values.
        """
        assert isinstance(self.schema, RankingSchema), "these columns don't belong to sources"
        schema = replace(
            self.schema, sources=tuple(s for s in self.schema.sources if s not in sources)
        )
        place = {name: column for column, name in enumerate(self.schema.names)}
        return replace(self, x=self.x[:, [place[name] for name in schema.names]], schema=schema)

    def user_weights(self, requests: np.ndarray | None = None) -> np.ndarray:
        """Return (G,) float32 request weights that give each user the same total weight; mean 1.

        Args:
            requests: the requests to weigh; None: all.
        """
        users = np.asarray(self.users)
        users = users if requests is None else users[requests]
        _, rows, counts = np.unique(users, return_inverse=True, return_counts=True)
        weights = 1 / counts[rows]
        return (weights / weights.mean()).astype(np.float32)

    def learnable(self) -> "RankingData":
        """Return the requests with at least one relevant and one irrelevant candidate.

        A ranking loss learns nothing from other requests.

        Raises:
            RankingError: no request has both.
        """
        return self.take(self.learnable_requests())

    def count_learnable(self) -> int:
        """Return the number of requests of `learnable`, which may be 0."""
        return int(self._is_learnable().sum())

    def _is_learnable(self) -> np.ndarray:
        owner = np.repeat(np.arange(len(self)), self.group)
        relevant = np.bincount(owner, weights=self.label, minlength=len(self))
        return (relevant > 0) & (relevant < self.group)

    def learnable_requests(self) -> np.ndarray:
        """Return the numbers of the requests of `learnable`."""
        kept = np.flatnonzero(self._is_learnable())
        if len(kept) == 0:
            raise RankingError(
                f"none of {len(self)} requests has both a relevant and an irrelevant candidate;"
                " a ranker cannot learn from them (do the candidate sources find any items?)"
            )
        return kept

    def ndcg(self, scores: np.ndarray, *, k: int = 10) -> np.ndarray:
        """Return the nDCG@k of (R,) scores per request, (G,); NaN without relevant items.

        Relevant items that no source retrieved count as missed.
        """
        gain = np.append(self.label, 0)[self.best(scores, k=k)]
        discount = 1 / np.log2(np.arange(2, k + 2))
        ideal = np.concatenate([[np.nan], np.cumsum(discount)])
        return gain @ discount[: gain.shape[1]] / ideal[np.minimum(self.num_relevant, k)]

    def value(self, scores: np.ndarray, weights: Mapping[str, float], *, k: int = 10) -> np.ndarray:
        """Return the discounted value of the first k items by (R,) scores per request: (G,).

        Args:
            weights: weights of the outcomes, the run's `[value]`.
        """
        assert self.outcomes is not None, "the run has no [value]"
        value = np.append(value_of(self.outcomes, weights), 0)
        return discounted(value[self.best(scores, k=k)])

    def best(self, scores: np.ndarray, *, k: int) -> np.ndarray:
        """Return the rows of the best k candidates of each request, best first, -1 for padding."""
        padded = np.append(scores, -np.inf)[self.rows]  # row -1 reads the appended padding
        depth = min(k, padded.shape[1])
        best = np.sort(np.argpartition(-padded, depth - 1, axis=1)[:, :depth], axis=1)
        order = np.argsort(-np.take_along_axis(padded, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        return np.take_along_axis(self.rows, best, axis=1)

    def mean_ndcg(self, scores: np.ndarray, *, k: int = 10) -> float:
        """Return the nDCG@k of (R,) scores: mean per user, then over users."""
        return mean_over_users(self.users, self.ndcg(scores, k=k))


def _joined(
    parts: Sequence[RankingData], name: str, *, missing: float | None = None
) -> np.ndarray | None:
    """Concatenate an optional array of candidates; None if no part has it.

    Args:
        missing: value for the candidates of parts that lack the array; None: no part may lack it.
    """
    arrays = [getattr(part, name) for part in parts]
    if all(values is None for values in arrays):
        return None
    assert missing is not None or all(values is not None for values in arrays)
    kind = next(values.dtype for values in arrays if values is not None)
    return np.concatenate(
        [
            np.full(len(part.label), missing, dtype=kind) if values is None else values
            for part, values in zip(parts, arrays, strict=True)
        ]
    )


def pad_groups(group: np.ndarray) -> np.ndarray:
    """Return the row numbers of groups of (G,) sizes: (G, C) int64, right padded with -1."""
    starts = np.cumsum(group) - group
    place = np.arange(group.max(initial=0))
    return np.where(place < group[:, None], starts[:, None] + place, -1)


def ndcg_of(ranker: Ranker, data: RankingData, *, k: int = 10) -> float:
    """Return the nDCG@k of a ranker on `data`: mean per user, then over users."""
    return data.mean_ndcg(scores_of(ranker, data), k=k)


def scores_of(ranker: Ranker, data: RankingData) -> np.ndarray:
    """Return a ranker's scores of all candidates of `data`: (R,) float32."""
    return ranker.predict(data.x, data.item_idx, data.requests)
