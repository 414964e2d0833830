"""What every sequence model shares: item embeddings around an encoder, and how it is trained.

Shapes: B rows, L events, D dim, N items. An encoder maps (B, L + 1, D) to the same, causally: its
output at position i depends on positions 0..i only. Position 0 is a learned start, so that an
empty history has a state too and right padding changes nothing.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from models.data import TrainingData, Validation
from models.layers import prepare
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
    batch_size: int = Field(32, ge=1)
    optimiser: OptimiserConfig = OptimiserConfig()


class SequenceModel(nn.Module):
    """Item embeddings with a bias, and an encoder. Score of an item: state . embedding + bias."""

    def __init__(self, encoder: nn.Module, *, num_items: int, embedding_dim: int, max_history: int):
        super().__init__()
        self.encoder = encoder
        self.max_history = max_history
        self.item = nn.Embedding(num_items + 1, embedding_dim)
        self.bias = nn.Parameter(torch.zeros(num_items + 1))
        self.start = nn.Parameter(torch.zeros(embedding_dim))

    def sizes(self) -> dict[str, Any]:
        return {"num_items": self.item.num_embeddings - 1}

    def item_vectors(self) -> Tensor:
        """(N + 1, D + 1): the bias rides as one more dimension, so that the index finds it too."""
        return torch.cat([self.item.weight, self.bias[:, None]], dim=1)

    def states(self, history: Tensor) -> Tensor:
        """(B, L) right-padded item_idx -> (B, L + 1, D + 1); state i has seen i events."""
        start = self.start.expand(len(history), 1, -1)
        x = torch.cat([start, self.item(history)], dim=1)
        x = self.encoder(x)
        return torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)

    def encode(self, queries: Queries) -> Tensor:
        """(B, D + 1): the state after the last real event."""
        history = newest(queries.history, max_history=self.max_history)
        lengths = torch.from_numpy((history > 0).sum(1))
        states = self.states(torch.from_numpy(history).to(self.bias.device))
        return states[torch.arange(len(lengths)), lengths]

    def loss(self, batch: SequenceBatch) -> Tensor:
        """Full softmax at the real positions only."""
        states = self.states(batch.history)
        real = batch.targets > 0
        return full_softmax(states[real], self.item_vectors(), batch.targets[real])


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
        encoder,
        num_items=data.num_items,
        embedding_dim=config.embedding_dim,
        max_history=config.max_history,
    ).to(options.device)
    prepare(model, options.generator(kind))
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
            encoder(parsed),
            num_items=sizes["num_items"],
            embedding_dim=parsed.embedding_dim,
            max_history=parsed.max_history,
        )
        return parsed, model

    return load_source(kind, folder, catalogue, build=build)
