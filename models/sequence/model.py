"""What every sequence model shares: item embeddings around an encoder, and how it is trained.

Shapes: B rows, L events, D dim, N items. An encoder maps (B, L + 1, D) to the same, causally: its
output at position i depends on positions 0..i only. Position 0 is a learned start, so that an
empty history has a state too and right padding changes nothing.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from models.data import TrainingData, Validation
from models.layers import ItemEmbedding, prepare
from models.losses import full_softmax
from models.queries import Queries, newest
from models.sequence.batches import SequenceBatch, SequenceData
from models.training import OptimiserConfig, TrainingOptions, train
from models.vector_source import VectorSource, exact_ndcg, load_source
from shortlist.catalogue import Catalogue
from shortlist.config import Config


class SequenceConfig(Config):
    """The part of a sequence model's config that does not depend on its encoder."""

    embedding_dim: int = Field(64, ge=1)
    max_history: int = Field(50, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    unknown_item_rate: float = Field(0.05, ge=0, lt=1)
    batch_size: int = Field(32, ge=1)
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=2e-3)


class SequenceModel(nn.Module):
    """Item embeddings with a bias, and an encoder. Score of an item: state . embedding + bias."""

    def __init__(
        self,
        config: SequenceConfig,
        encoder: nn.Module,
        *,
        categories: np.ndarray,
        known: np.ndarray,
    ):
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.embed = ItemEmbedding(categories, known=known, dim=config.embedding_dim)
        self.bias = nn.Parameter(torch.zeros(len(known)))
        self.start = nn.Parameter(torch.zeros(config.embedding_dim))
        self.generator: torch.Generator | None = None  # which ids a training step forgets

    def sizes(self) -> dict[str, Any]:
        return {}

    def item_vectors(self, *, forget: Tensor | None = None) -> Tensor:
        """(N + 1, D + 1): the bias rides as one more dimension, so that the index finds it too."""
        every = self.embed.every()
        bias = self.bias[self.embed.ids(every, forget=forget)]
        return torch.cat([self.embed(every, forget=forget), bias[:, None]], dim=1)

    def states(self, embedded: Tensor) -> Tensor:
        """Embedded events (B, L, D), right padded -> (B, L + 1, D + 1); state i has seen i."""
        start = self.start.expand(len(embedded), 1, -1)
        x = self.encoder(torch.cat([start, embedded], dim=1))
        return torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)

    def encode(self, queries: Queries) -> Tensor:
        """(B, D + 1): the state after the last real event."""
        history = newest(queries.history, max_history=self.config.max_history)
        lengths = torch.from_numpy((history > 0).sum(1))
        states = self.states(self.embed(torch.from_numpy(history).to(self.embed.device)))
        return states[torch.arange(len(lengths)), lengths]

    def loss(self, batch: SequenceBatch) -> Tensor:
        """Full softmax at the real positions only."""
        drawn = torch.rand(len(self.bias), generator=self.generator, device=self.embed.device)
        items = self.item_vectors(forget=drawn < self.config.unknown_item_rate)
        states = self.states(F.embedding(batch.history, items[:, :-1]))
        real = batch.targets > 0
        return full_softmax(states[real], items, batch.targets[real])


def fit_sequence(
    kind: str,
    config: SequenceConfig,
    encoder: nn.Module,
    data: TrainingData,
    validation: Validation,
    options: TrainingOptions,
) -> VectorSource:
    """Train a sequence model around `encoder`; the seed decides weights, dropout and batches."""
    model = SequenceModel(
        config,
        encoder,
        categories=data.catalogue.category_matrix,
        known=data.item_counts > 0,
    ).to(options.device)
    model.generator = options.generator(kind)
    prepare(model, model.generator)
    sequences = SequenceData(data, max_history=config.max_history, rng=options.rng(kind))
    history = train(
        model,
        lambda epoch: sequences.batches(config.batch_size, device=options.device),
        name=kind,
        loss=model.loss,
        config=config.optimiser,
        validate=lambda: exact_ndcg(model, validation),
        options=options,
    )
    return VectorSource.build(kind, config=config, model=model.cpu(), history=history)


def load_sequence(
    kind: str,
    folder: Path,
    catalogue: Catalogue,
    *,
    config_class: type[SequenceConfig],
    encoder: Callable[[Any], nn.Module],
) -> VectorSource:
    """Load what `fit_sequence` gave; `encoder` makes the untrained encoder of a config."""

    def build(config: dict[str, Any], sizes: dict[str, Any]) -> tuple[Config, SequenceModel]:
        parsed = config_class.model_validate(config)
        model = SequenceModel(
            parsed,
            encoder(parsed),
            categories=catalogue.category_matrix,
            known=np.zeros(catalogue.num_items + 1, dtype=bool),
        )
        return parsed, model

    return load_source(kind, folder, catalogue, build=build)
