"""Content model: retrieval by item vectors from texts and categories, without id embeddings.

New items without events therefore get useful vectors too. The query vector is a learned function of
an attention-weighted mean of the history's item vectors. The model is trained in the same way as
the two-tower model (models/retrieval/requests.py).

Shapes: B requests, M positives, K negatives, L history, D dim, F content features, N items.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from models import one_query
from models.content.text import text_vectors
from models.content.vectors import unit_rows
from models.data import TrainingData, Validation
from models.layers import AttentionPool, Dropout, FeedForward, prepare
from models.queries import Queries, newest
from models.retrieval.requests import (
    RequestBatch,
    RequestExamples,
    sampled_loss,
    train_on_requests,
)
from models.sampling import MixedNegatives
from models.training import OptimiserConfig, TrainingOptions, limited_threads
from models.vector_source import VectorSource, load_source
from shortlist.catalogue import Catalogue
from shortlist.config import Config
from shortlist.features.finalize import MAX_HISTORY


class ContentConfig(Config):
    """Hyperparameters of the content model."""

    kind: Literal["content"] = "content"
    embedding_dim: int = Field(64, ge=1)
    max_history: int = Field(50, ge=1, le=MAX_HISTORY)
    dropout: float = Field(0.2, ge=0, lt=1)
    temperature: float = Field(0.07, gt=0)
    num_negatives: int = Field(1024, ge=1)
    negatives: Literal["catalogue", "used"] = "used"
    """Items that uniform negatives are drawn from: `used` (items with training events) or
    `catalogue` (all items). With `catalogue`, new items are negatives but never positives, which
    teaches the model not to recommend them."""
    batch_size: int = Field(256, ge=1)
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=3e-3)


class ContentModel(nn.Module):
    """Module that maps content features to item vectors, and histories to query vectors."""

    table: Tensor

    def __init__(self, config: ContentConfig, *, num_items: int, num_features: int):
        super().__init__()
        dim = config.embedding_dim
        self.config = config
        self.project = nn.Linear(num_features, dim)
        self.item_norm = nn.LayerNorm(dim)
        self.item_feed_forward = FeedForward(dim, hidden=2 * dim, dropout=config.dropout)
        self.pool = AttentionPool(dim, max_length=config.max_history)
        self.start = nn.Parameter(torch.zeros(dim))
        self.dropout = Dropout(config.dropout)
        self.norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, hidden=2 * dim, dropout=config.dropout)
        # Item vectors, set by `freeze`, so that serving needs neither texts nor the text encoder.
        self.register_buffer("table", torch.zeros(num_items + 1, dim))
        self.features: Tensor | None = None

    def sizes(self) -> dict[str, Any]:
        return {"num_features": self.project.in_features}

    def project_items(self, features: Tensor) -> Tensor:
        """Project content features (..., F) of items to unit vectors (..., D)."""
        x = self.project(features)
        return F.normalize(x + self.item_feed_forward(self.item_norm(x)), dim=-1)

    def item_vectors(self) -> Tensor:
        return self.table if self.features is None else self.project_items(self.features)

    def encode(self, queries: Queries) -> Tensor:
        history = self.history(queries)
        in_history = F.embedding(history, self.item_vectors())
        return self.query_vectors(queries, in_history, history > 0)

    def one_query(self) -> Callable[[Queries], np.ndarray] | None:
        """Return `encode` of a single query in numpy: (D,). None before `freeze`."""
        if self.features is not None:
            return None
        max_history, table = self.config.max_history, one_query.array(self.table)
        start, pool = one_query.array(self.start), one_query.attention_pool(self.pool)
        norm, feed_forward = (
            one_query.layer_norm(self.norm),
            one_query.feed_forward(self.feed_forward),
        )

        def encode(queries: Queries) -> np.ndarray:
            history, _ = one_query.newest_items(queries, max_history=max_history)
            x = start + pool(table[history])
            return one_query.normalised(x + feed_forward(norm(x)))

        return encode

    def loss(self, batch: RequestBatch, sampler: MixedNegatives) -> Tensor:
        return sampled_loss(self, batch, sampler, temperature=self.config.temperature)

    def history(self, queries: Queries) -> Tensor:
        history = newest(queries.history, max_history=self.config.max_history)
        return torch.from_numpy(history).to(self.table.device)

    def embed_items(self, item_idx: Tensor, *, generator: torch.Generator) -> Tensor:
        assert self.features is not None, "the model is frozen"
        return self.project_items(self.features[item_idx])

    def items(self, embedded: Tensor) -> Tensor:
        return embedded  # the same vectors for histories and for scores

    def query_vectors(self, queries: Queries, in_history: Tensor, mask: Tensor) -> Tensor:
        x = self.dropout(self.start + self.pool(in_history, mask))
        return F.normalize(x + self.feed_forward(self.norm(x)), dim=-1)

    def freeze(self) -> None:
        """Store the final item vectors in `table` and drop the content features."""
        with torch.no_grad():
            self.table.copy_(self.item_vectors())
        self.features = None


def content_features(catalogue: Catalogue, *, options: TrainingOptions) -> np.ndarray:
    """Return (N + 1, F) float32: text and category unit vectors side by side; row 0 is zeros."""
    texts = text_vectors(catalogue.texts, cache=options.cache, device=options.device)
    return np.concatenate([texts, unit_rows(catalogue.category_matrix)], axis=1)


def fit_content(
    config: ContentConfig, data: TrainingData, validation: Validation, options: TrainingOptions
) -> VectorSource:
    """Encode the catalogue's texts, train the model and index its item vectors."""
    with limited_threads(options.num_threads):
        features = content_features(data.catalogue, options=options)
    examples = RequestExamples(
        data, max_history=config.max_history, rng=options.rng("content batches")
    )
    model = ContentModel(config, num_items=data.num_items, num_features=features.shape[1])
    model.features = torch.from_numpy(features).to(options.device)
    model.to(options.device)
    prepare(model, options.generator("content weights"))
    history = train_on_requests(
        model,
        examples,
        name="content",
        config=config,
        validation=validation,
        options=options,
        only_used=config.negatives == "used",
    )
    model.freeze()
    return VectorSource.build(
        "content", config=config, model=model.cpu(), history=history, index=options.index
    )


def load_content(folder: Path, catalogue: Catalogue) -> VectorSource:
    def build(config: dict[str, Any], sizes: dict[str, Any]) -> tuple[Config, ContentModel]:
        parsed = ContentConfig.model_validate(config)
        model = ContentModel(
            parsed, num_items=catalogue.num_items, num_features=sizes["num_features"]
        )
        return parsed, model

    return load_source("content", folder, catalogue, build=build)
