"""Content model: retrieval by item vectors from text, images and other content, without ids.

New items without events therefore get useful vectors too. The item vector is a gated sum of the
item's modalities (gated.py), followed by a feed-forward layer. The query vector is a learned
function of an attention-weighted mean of the history's item vectors.

The loss is contrastive on interactions, as in the two-tower model (models/retrieval/requests.py).
A second loss can be added: the regression of an item's collaborative vector from its content.

Shapes: B requests, M positives, K negatives, L history, D dim, F content features, N items.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from models import one_query
from models.content.collaborative import collaborative_vectors
from models.content.config import ContentFeatures, FusionConfig
from models.content.gated import GatedFusion
from models.content.modalities import TEXT, ContentEncoder
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
from models.search.pairs import MAX_PAIRS
from models.search.query_map import fit_query_map
from models.training import OptimiserConfig, TrainingOptions
from models.vector_source import SourceError, VectorSource, load_source
from shortlist.config import Config
from shortlist.features.finalize import MAX_HISTORY
from shortlist.items.catalogue import Catalogue

MAX_ENCODED = 100_000
"""Maximum number of stored vectors of items that were added after training. Encoding takes
milliseconds an item, and each posted change of an item builds the catalogue again."""


class ContentConfig(Config):
    """Hyperparameters of the content model."""

    kind: Literal["content"] = "content"
    features: ContentFeatures = ContentFeatures()
    """The modalities that are read (docs/content.md)."""
    fusion: FusionConfig = FusionConfig()
    """How the modalities become one vector."""
    collaborative: float = Field(0.0, ge=0)
    """Weight of the second loss: 1 - cosine between a projection of an item's vector and its
    collaborative vector (a truncated SVD of the user-item matrix). 0: only the contrastive loss."""
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

    def __init__(self, config: ContentConfig, *, num_items: int, encoder: ContentEncoder):
        super().__init__()
        dim = config.embedding_dim
        self.config = config
        self.encoder = encoder
        self.fuse = GatedFusion(encoder.widths, dim, config.fusion)
        self.item_norm = nn.LayerNorm(dim)
        self.item_feed_forward = FeedForward(dim, hidden=2 * dim, dropout=config.dropout)
        self.pool = AttentionPool(dim, max_length=config.max_history)
        self.start = nn.Parameter(torch.zeros(dim))
        self.dropout = Dropout(config.dropout)
        self.norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, hidden=2 * dim, dropout=config.dropout)
        # Item vectors, set by `freeze`, so that serving encodes only new items.
        self.register_buffer("table", torch.zeros(num_items + 1, dim))
        self.encoded: dict[bytes, np.ndarray] = {}
        # The following are set only for training.
        self.features: Tensor | None = None
        self.collaborative: Tensor | None = None
        self.regress: nn.Linear | None = None
        self.query_map: nn.Linear | None = None
        """Map from text features of a search to item vectors, if searches were learned from."""

    def sizes(self) -> dict[str, Any]:
        return self.encoder.sizes() | {"query_map": self.query_map is not None}

    def project_items(self, features: Tensor) -> Tensor:
        """Project content features (..., F) of items to unit vectors (..., D)."""
        x = self.fuse(features)
        return F.normalize(x + self.item_feed_forward(self.item_norm(x)), dim=-1)

    @torch.no_grad()
    def encode_items(self, catalogue: Catalogue, item_idx: np.ndarray) -> np.ndarray:
        """Return the vectors of items that were added after training: (V, D) float32.

        Raises:
            TextEncoderError: the text encoder can't be loaded.
        """
        keys = self.encoder.keys(catalogue, item_idx)
        missing = [row for row, key in enumerate(keys) if key not in self.encoded]
        if len(self.encoded) + len(missing) > MAX_ENCODED:
            self.encoded.clear()
            missing = list(range(len(keys)))
        if missing:
            features = torch.from_numpy(self.encoder.encode_new(catalogue, item_idx[missing]))
            found = self.project_items(features).numpy()
            self.encoded.update(zip((keys[row] for row in missing), found, strict=True))
        return np.stack([self.encoded[key] for key in keys])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray | None:
        """Return unit vectors of search queries in the space of the items: (Q, D) float32.

        None if the model doesn't read texts. A query without a word that the encoder knows has a
        vector of zeros.

        Raises:
            TextEncoderError: the text encoder can't be loaded.
        """
        features = self.encoder.encode_queries(texts)
        return None if features is None else self.project_queries(features)

    @torch.no_grad()
    def project_queries(self, features: np.ndarray) -> np.ndarray:
        """Return the vectors of queries with features (Q, F): (Q, D) float32."""
        given = torch.from_numpy(features)
        vectors = self.project_items(given)
        if self.query_map is not None:
            vectors = F.normalize(vectors + self.query_map(given), dim=-1)
        return np.where(features.any(axis=1, keepdims=True), vectors.numpy(), np.float32(0))

    def without_query_map(self) -> "ContentModel":
        """Return a copy, for comparisons, whose `encode_texts` doesn't use the map."""
        other = copy.copy(self)
        other._modules = {**self._modules, "query_map": None}
        return other

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
        loss = sampled_loss(self, batch, sampler, temperature=self.config.temperature)
        if self.regress is None or self.collaborative is None or self.features is None:
            return loss
        positives = torch.from_numpy(batch.positives).to(self.table.device)
        predicted = self.regress(self.project_items(self.features[positives]))
        near = F.cosine_similarity(predicted, self.collaborative[positives], dim=-1)
        return loss + self.config.collaborative * (1 - near).mean()

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
        """Store the final item vectors in `table` and drop what only training needs."""
        with torch.no_grad():
            self.table.copy_(self.item_vectors())
        self.features = self.collaborative = self.regress = None


def fit_content(
    config: ContentConfig, data: TrainingData, validation: Validation, options: TrainingOptions
) -> VectorSource:
    """Encode the catalogue's content, train the model and index its item vectors.

    Raises:
        ContentError: a vector column is not valid, or items have no content.
        TextEncoderError: a text encoder can't be loaded.
    """
    encoder, features = ContentEncoder.fit(
        config.features,
        data.catalogue,
        reviews=data.reviews if config.features.reviews else None,
        options=options,
        queries=() if data.searches is None else data.searches.newest(MAX_PAIRS).distinct,
    )
    examples = RequestExamples(
        data, max_history=config.max_history, rng=options.rng("content batches")
    )
    empty = ContentEncoder(config.features, encoder.widths)  # `prepare` resets what it contains
    model = ContentModel(config, num_items=data.num_items, encoder=empty)
    model.features = torch.from_numpy(features).to(options.device)
    if config.collaborative:
        targets = collaborative_vectors(data, dim=config.embedding_dim, rng=options.rng("svd"))
        model.collaborative = torch.from_numpy(targets).to(options.device)
        model.regress = nn.Linear(config.embedding_dim, targets.shape[1], bias=False)
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
    model.encoder = encoder
    source = VectorSource.build(
        "content", config=config, model=model.cpu(), history=history, index=options.index
    )
    source.notes = {"content": encoder.report}
    if data.searches is not None and TEXT in encoder.widths:
        model.query_map, figures = fit_query_map(
            data.searches,
            encode=partial(_encoded, model, options),
            item_vectors=source.item_vectors,
            temperature=config.temperature,
            options=options,
        )
        source.notes["queries"] = figures
    return source


def _encoded(
    model: ContentModel, options: TrainingOptions, texts: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the features of queries (Q, F), and their vectors without a query map (Q, D)."""
    features = model.encoder.encode_queries(texts, cache=options.cache, device=options.device)
    assert features is not None, "only called for models that read texts"
    return features, model.project_queries(features)


def load_content(folder: Path, catalogue: Catalogue) -> VectorSource:
    def build(config: dict[str, Any], sizes: dict[str, Any]) -> tuple[Config, ContentModel]:
        if "widths" not in sizes:
            raise SourceError(
                f"{folder}: content was saved by another version of this code; train a new release"
            )
        parsed = ContentConfig.model_validate(config)
        encoder = ContentEncoder.from_sizes(sizes)
        model = ContentModel(parsed, num_items=catalogue.num_items, encoder=encoder)
        if sizes.get("query_map"):
            model.query_map = nn.Linear(encoder.num_features, parsed.embedding_dim, bias=False)
        return parsed, model

    return load_source("content", folder, catalogue, build=build)
