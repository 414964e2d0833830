"""Training on requests, shared by the two-tower and the content model.

A request is a distinct (user, timestamp) of the training window. Its positives are the items of the
user's target events (events of the types that models learn to predict) at that timestamp. These are
items consumed for the first time, or again if repeats are allowed. Its history and user features
contain only events that were known before. Each request becomes a row of `Queries`, so models read
training and serving requests through the same code. The loss is a softmax over sampled negatives
with the logQ correction.

Shapes: R requests in total, B requests in a batch, M positives, K negatives, U distinct items of a
batch, L history, D dim.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.data import TrainingData, Validation
from models.incremental import Increment
from models.losses import sampled_softmax
from models.queries import Queries
from models.sampling import MixedNegatives
from models.training import OptimiserConfig, TrainingOptions, train
from models.vector_source import exact_ndcg
from shortlist.features.event_groups import empty_group_state
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
    """B requests and their M positives; positive m belongs to request `row[m]`, from 0."""

    queries: Queries
    row: np.ndarray  # (M,) int64: request of each positive
    positives: np.ndarray  # (M,) int64 item_idx


class RequestExamples:
    """The R requests of a training window, as examples for a request model."""

    def __init__(
        self,
        data: TrainingData,
        *,
        max_history: int,
        rng: np.random.Generator,
        increment: Increment | None = None,
    ):
        """
        Args:
            increment: use only new requests and a sample of the older ones; None: all.
        """
        self.data = data
        self.increment = increment
        self.max_history = max_history
        self.rng = rng
        log = data.all_events.in_catalogue
        new = log.target_rows()
        self.item_idx, time, user_row = log.item_idx[new], log.time[new], log.user_row[new]
        first = np.ones(len(new), dtype=bool)
        first[1:] = (np.diff(time) != 0) | (np.diff(user_row) != 0)
        self.begin = np.flatnonzero(first)  # (R,) index of the first positive of each request
        self.end = np.append(self.begin[1:], len(new))[: len(self.begin)]
        self.user_row = user_row[self.begin]
        self.at = time[self.begin]
        self._offsets = np.searchsorted(user_row, np.arange(data.num_users + 1))
        self._known = log.known_by(self.user_row, self.at)
        self.user_features = self._user_features()

    def batches(self, batch_size: int) -> Iterator[RequestBatch]:
        """Yield the batches of one epoch: its requests in a new random order."""
        every = np.arange(len(self.begin))
        if self.increment is not None:
            every = self.increment.examples(self.at, self.rng)
        order = self.rng.permutation(every)
        for i in range(0, len(order), batch_size):
            requests = order[i : i + batch_size]
            sizes = self.end[requests] - self.begin[requests]
            row = np.repeat(np.arange(len(requests)), sizes)
            nth = np.arange(len(row)) - (np.cumsum(sizes) - sizes)[row]
            positives = self.item_idx[self.begin[requests][row] + nth]
            yield RequestBatch(self.queries(requests), row, positives)

    def queries(self, requests: np.ndarray) -> Queries:
        """Return the requests with the given numbers (B,) as `Queries`.

        Their histories contain the newest `max_history` events before each request.
        """
        data, begin, user = self.data, self.begin[requests], self.user_row[requests]
        log = data.all_events.in_catalogue
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
        """Compute (R, len(USER_FEATURES)) float32 by the same `finalize_user` as in serving.

        The training data contains only target events. So the features of other events (event
        groups, searches) are computed from empty states.
        """
        every = self.data.all_events
        R = len(self.begin)
        state = every.states(self.user_row, self.at)
        of_items = every.with_items
        rows = RequestRows(
            user_ids=[],
            context_ids=[],
            at=self.at,
            user={f"user_{name}": values for name, values in state.items()}
            | empty_group_state("user", R),
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


class RequestModel(Protocol):
    """A model that `sampled_loss` can train.

    D' is the width of item embeddings in histories, which may differ from D.
    """

    def history(self, queries: Queries) -> Tensor:
        """Return the part of the histories that the model reads: (B, L) item_idx, 0 padding."""
        ...

    def embed_items(self, item_idx: Tensor, *, generator: torch.Generator) -> Tensor:
        """Embed items for use in histories: (U,) item_idx -> (U, D')."""
        ...

    def items(self, embedded: Tensor, /) -> Tensor:
        """Map item embeddings (U, D') to the item vectors that are scored: (U, D) unit vectors."""
        ...

    def query_vectors(self, queries: Queries, in_history: Tensor, mask: Tensor) -> Tensor:
        """Map embedded histories (B, L, D') with mask (B, L) to unit query vectors (B, D)."""
        ...


def sampled_loss(
    model: RequestModel, batch: RequestBatch, sampler: MixedNegatives, *, temperature: float
) -> Tensor:
    """Return the sampled-softmax loss of a batch of requests. Each distinct item is embedded once.

    Args:
        temperature: divisor of the inner products of query and item vectors.
    """
    history = model.history(batch.queries)
    positives = torch.from_numpy(batch.positives).to(history.device)
    negatives, log_expected = sampler.draw(positives)
    used = torch.cat([history.ravel(), positives, negatives])
    unique, inverse = torch.unique(used, return_inverse=True)
    embedded = model.embed_items(unique, generator=sampler.generator)
    history_place, positive_place, negative_place = inverse.split(
        [history.numel(), len(positives), len(negatives)]
    )
    in_history = F.embedding(history_place, embedded).view(*history.shape, -1)
    queries = model.query_vectors(batch.queries, in_history, history > 0)
    queries = queries[torch.from_numpy(batch.row).to(history.device)] / temperature
    vectors = model.items(embedded)
    return sampled_softmax(
        (queries * F.embedding(positive_place, vectors)).sum(1),
        queries @ F.embedding(negative_place, vectors).T,
        positives,
        negatives,
        log_expected,
    )


class RequestConfig(Protocol):
    """The hyperparameters that `train_on_requests` reads."""

    batch_size: int
    num_negatives: int
    optimiser: OptimiserConfig

    def model_dump(self, *, mode: str = ...) -> dict[str, Any]: ...


def train_on_requests(
    model: Any,
    examples: RequestExamples,
    *,
    name: str,
    config: RequestConfig,
    validation: Validation,
    options: TrainingOptions,
    only_used: bool = False,
) -> Any:
    """Train a model by its `loss(batch, sampler)`, with early stopping on validation nDCG.

    Args:
        name: name of the source, which names its random streams and its checkpoint.
        only_used: draw uniform negatives only from items with a training event.

    Returns:
        The `TrainingHistory` from `train`.
    """
    sampler = MixedNegatives(
        torch.from_numpy(examples.data.item_counts).to(options.device),
        num_uniform=config.num_negatives,
        generator=options.generator(f"{name} negatives"),
        only_used=only_used,
    )
    return train(
        model,
        lambda epoch: examples.batches(config.batch_size),
        name=name,
        loss=lambda batch: model.loss(batch, sampler),
        config=config.optimiser,
        validate=lambda: exact_ndcg(model, validation),
        options=options,
        about={"config": config.model_dump(mode="json"), "data": examples.data.about},
    )
