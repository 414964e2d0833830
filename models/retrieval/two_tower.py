"""Two-tower retrieval: the score is the dot product of the outputs of a query and an item tower.

Query tower: attention-pooled history + embeddings of user attributes (profile) + user and context
features. Item tower: id embedding + category embeddings + optional content (gated modalities, see
models/content/). Both outputs are unit vectors. The loss is
a softmax over in-batch and uniform negatives with the logQ correction (Yi et al. 2019; Yang et al.
2020; Khrylchenko et al. 2025).

Items without a training event (cold items) use the embedding of the unknown id. Training replaces
random item ids by it, so that it is trained too. The vector of a cold item then depends only on its
categories and content.

Shapes: B requests, M positives, K negatives, L history, A profile attributes, F dense features,
D dim, N items.
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
from models.content.config import ContentFeatures, FusionConfig
from models.content.gated import GatedFusion
from models.content.modalities import ContentEncoder
from models.data import TrainingData, Validation
from models.layers import AttentionPool, Dropout, FeedForward, ItemEmbedding, prepare
from models.queries import Queries, newest
from models.retrieval.requests import (
    RequestBatch,
    RequestExamples,
    sampled_loss,
    train_on_requests,
)
from models.sampling import MixedNegatives
from models.training import OptimiserConfig, TrainingOptions
from models.vector_source import VectorSource, load_source
from shortlist.config import Config
from shortlist.features.finalize import (
    CONTEXT_FEATURES,
    CONTEXT_ON_DEMAND,
    MAX_HISTORY,
    USER_TARGET_FEATURES,
)
from shortlist.items.catalogue import Catalogue

CONTEXT_COLUMNS = [CONTEXT_FEATURES.index(name) for name in CONTEXT_ON_DEMAND]
"""Columns of the context features that the query tower reads: those of the request's time.

Excludes the context trend (recent activity of the request's context): it depends on events outside
the training window, so training and serving would disagree. For the same reason, the tower reads
only the user features of target events, the event types that models learn to predict.
"""


def _dense(queries: Queries) -> np.ndarray:
    """Return the dense user and context features of the query tower: (B, F) float32."""
    of_user = queries.user[:, : len(USER_TARGET_FEATURES)]
    return np.concatenate([of_user, queries.context[:, CONTEXT_COLUMNS]], axis=1)


class TwoTowerConfig(Config):
    """Hyperparameters of the two-tower model."""

    kind: Literal["two_tower"] = "two_tower"
    embedding_dim: int = Field(64, ge=1)
    max_history: int = Field(50, ge=1, le=MAX_HISTORY)
    dropout: float = Field(0.2, ge=0, lt=1)
    content: ContentFeatures | None = None
    """Content that the item tower reads beside id and categories (docs/content.md); None: none."""
    fusion: FusionConfig = FusionConfig()
    """How the modalities of `content` become one vector."""
    unknown_item_rate: float = Field(0.1, ge=0, lt=1)
    """Share of item ids that training replaces by the unknown id."""
    temperature: float = Field(0.1, gt=0)
    num_negatives: int = Field(1024, ge=1)
    batch_size: int = Field(256, ge=1)
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=3e-3)


class ItemTower(nn.Module):
    """Item tower: item embeddings (..., D) -> unit vectors (..., D)."""

    def __init__(self, config: TwoTowerConfig):
        super().__init__()
        dim = config.embedding_dim
        self.norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, hidden=2 * dim, dropout=config.dropout)

    def forward(self, embedded: Tensor) -> Tensor:
        return F.normalize(embedded + self.feed_forward(self.norm(embedded)), dim=-1)


class QueryTower(nn.Module):
    """Query tower: embedded history, profile, user and context features -> unit vectors (B, D)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: TwoTowerConfig, *, profile_cardinalities: tuple[int, ...]):
        super().__init__()
        dim = config.embedding_dim
        self.pool = AttentionPool(dim, max_length=config.max_history)
        self.profile = nn.ModuleList(nn.Embedding(n, dim) for n in profile_cardinalities)
        num_features = len(USER_TARGET_FEATURES) + len(CONTEXT_COLUMNS)
        self.features = nn.Linear(num_features, dim)
        self.dropout = Dropout(config.dropout)
        self.norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, hidden=2 * dim, dropout=config.dropout)
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("deviation", torch.ones(num_features))

    def standardise(self, examples: RequestExamples) -> None:
        """Set `mean` and `deviation` of the dense features from the training requests."""
        every = examples.queries(np.arange(len(examples.at)))
        features = _dense(every)
        self.mean.copy_(torch.from_numpy(features.mean(0)))
        self.deviation.copy_(torch.from_numpy(features.std(0).clip(min=1e-3)))

    def forward(
        self, history: Tensor, mask: Tensor, *, profile: Tensor, features: Tensor
    ) -> Tensor:
        """Encode history (B, L, D), mask (B, L), profile (B, A), features (B, F) -> (B, D)."""
        standard = ((features - self.mean) / self.deviation).clamp(-3, 3)
        x = self.pool(history, mask) + self.features(standard)
        for column, embedding in enumerate(self.profile):
            x = x + embedding(profile[:, column])
        x = self.dropout(x)
        return F.normalize(x + self.feed_forward(self.norm(x)), dim=-1)


class TwoTower(nn.Module):
    """Query tower and item tower with shared item embeddings."""

    def __init__(
        self,
        config: TwoTowerConfig,
        *,
        categories: np.ndarray,
        known: np.ndarray,
        profile_cardinalities: tuple[int, ...],
        content: np.ndarray | None = None,
        widths: dict[str, int] | None = None,
    ):
        """
        Args:
            content: (N + 1, F) content features; None if the config has no content.
            widths: number of features of each modality in `content`.
        """
        super().__init__()
        self.config = config
        self.profile_cardinalities = profile_cardinalities
        self.widths = widths
        dim = config.embedding_dim
        self.embed = ItemEmbedding(
            categories,
            known=known,
            dim=dim,
            content=content,
            fuse=GatedFusion(widths, dim, config.fusion) if widths is not None else None,
        )
        self.items = ItemTower(config)
        self.query = QueryTower(config, profile_cardinalities=profile_cardinalities)
        self.encoder: ContentEncoder | None = None
        """Encodes the content of items that are added later; set after training, because `prepare`
        resets what it contains."""

    def sizes(self) -> dict[str, Any]:
        sizes: dict[str, Any] = {"profile_cardinalities": list(self.profile_cardinalities)}
        if self.encoder is not None:
            sizes["encoder"] = self.encoder.sizes()
        return sizes if self.widths is None else sizes | {"widths": self.widths}

    def item_vectors(self) -> Tensor:
        return self.items(self.embed(self.embed.all_items()))

    def encode(self, queries: Queries) -> Tensor:
        history = self.history(queries)
        return self.query_vectors(queries, self.embed(history), history > 0)

    def one_query(self) -> Callable[[Queries], np.ndarray]:
        """Return `encode` of a single query in numpy: (D,)."""
        query, max_history = self.query, self.config.max_history
        embed, pool = one_query.embedding(self.embed), one_query.attention_pool(query.pool)
        features, norm = one_query.linear(query.features), one_query.layer_norm(query.norm)
        feed_forward = one_query.feed_forward(query.feed_forward)
        profile = [one_query.array(each.weight) for each in query.profile]  # pyright: ignore
        mean, deviation = one_query.array(query.mean), one_query.array(query.deviation)

        def encode(queries: Queries) -> np.ndarray:
            history, _ = one_query.newest_items(queries, max_history=max_history)
            standard = ((_dense(queries)[0] - mean) / deviation).clip(-3, 3)
            x = pool(embed(history)) + features(standard)
            for embedded, code in zip(profile, queries.profile[0], strict=True):
                x = x + embedded[code]
            return one_query.normalised(x + feed_forward(norm(x)))

        return encode

    def loss(self, batch: RequestBatch, sampler: MixedNegatives) -> Tensor:
        return sampled_loss(self, batch, sampler, temperature=self.config.temperature)

    def history(self, queries: Queries) -> Tensor:
        history = newest(queries.history, max_history=self.config.max_history)
        return torch.from_numpy(history).to(self.embed.device)

    def embed_items(self, item_idx: Tensor, *, generator: torch.Generator) -> Tensor:
        """Embed the U distinct items of a batch: (U,) item_idx -> (U, D).

        Replaces random ids by the unknown id. A replaced id is unknown to both towers.
        """
        chance = torch.rand(len(item_idx), generator=generator, device=item_idx.device)
        return self.embed(item_idx, drop_id=chance < self.config.unknown_item_rate)

    def query_vectors(self, queries: Queries, in_history: Tensor, mask: Tensor) -> Tensor:
        return self.query(
            in_history,
            mask,
            profile=torch.from_numpy(queries.profile).to(mask.device),
            features=torch.from_numpy(_dense(queries)).to(mask.device),
        )


def fit_two_tower(
    config: TwoTowerConfig, data: TrainingData, validation: Validation, options: TrainingOptions
) -> VectorSource:
    """Train a two-tower model on all requests of the training window, and index its items.

    The seed determines initial weights, dropout, negatives and the order of requests.
    """
    examples = RequestExamples(
        data, max_history=config.max_history, rng=options.rng("two_tower batches")
    )
    widths = features = encoder = None
    if config.content is not None:
        encoder, features = ContentEncoder.fit(
            config.content,
            data.catalogue,
            reviews=data.reviews if config.content.reviews else None,
            options=options,
        )
        widths = encoder.widths
    model = untrained(
        config,
        data,
        options,
        profile_cardinalities=data.profile_cardinalities,
        content=features,
        widths=widths,
    )
    model.query.standardise(examples)
    history = train_on_requests(
        model, examples, name="two_tower", config=config, validation=validation, options=options
    )
    model.encoder = encoder
    return VectorSource.build(
        "two_tower", config=config, model=model.cpu(), history=history, index=options.index
    )


def untrained(
    config: TwoTowerConfig,
    data: TrainingData,
    options: TrainingOptions,
    *,
    profile_cardinalities: tuple[int, ...],
    content: np.ndarray | None,
    widths: dict[str, int] | None,
) -> TwoTower:
    """Return a model with initial weights, over the catalogue of `data`; other arguments are those
    of `TwoTower`.
    """
    model = TwoTower(
        config,
        categories=data.catalogue.category_matrix,
        known=data.item_counts > 0,
        profile_cardinalities=profile_cardinalities,
        content=content,
        widths=widths,
    ).to(options.device)
    prepare(model, options.generator("two_tower weights"))
    return model


def load_two_tower(folder: Path, catalogue: Catalogue) -> VectorSource:
    def build(config: dict[str, Any], sizes: dict[str, Any]) -> tuple[Config, TwoTower]:
        parsed = TwoTowerConfig.model_validate(config)
        widths = sizes.get("widths")
        content = None
        if widths is not None:
            shape = (catalogue.num_items + 1, sum(widths.values()))
            content = np.zeros(shape, dtype=np.float32)
        model = TwoTower(
            parsed,
            categories=catalogue.category_matrix,
            known=np.zeros(catalogue.num_items + 1, dtype=bool),
            profile_cardinalities=tuple(sizes["profile_cardinalities"]),
            content=content,
            widths=widths,
        )
        if "encoder" in sizes:  # not in files from before 2026-12
            model.encoder = ContentEncoder.from_sizes(sizes["encoder"])
        return parsed, model

    return load_source("two_tower", folder, catalogue, build=build)
