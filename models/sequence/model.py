"""The parts that all sequence models share: config, item embeddings, scores and loss.

An encoder maps item embeddings to states, one per position. It must be causal: a state depends only
on events of the same history up to its position. Each history begins with a learned start vector,
so that an empty history has a state too.

Shapes: R rows of W positions with packed histories (see `batches.py`), D dim, N items,
M predictions, K negatives.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from models import one_query
from models.layers import EventTypes, ItemEmbedding
from models.losses import (
    binary_cross_entropy,
    calibrated_binary_cross_entropy,
    full_softmax,
    sampled_softmax,
    shared_softmax,
)
from models.queries import Queries
from models.sampling import draw_distinct, draw_uniform
from models.sequence.batches import GAP_BUCKETS, SequenceBatch, gap_buckets, pack_queries
from models.training import OptimiserConfig
from shortlist.config import Config
from shortlist.features.finalize import MAX_HISTORY

Loss = Literal["full_softmax", "sampled_softmax", "gbce", "bce"]


class SequenceConfig(Config):
    """Hyperparameters that all sequence models share."""

    model_config = ConfigDict(allow_inf_nan=False)

    kind: str
    """The source type; fixed by each architecture."""
    embedding_dim: int = Field(64, ge=1)
    max_history: int = Field(50, ge=1, le=MAX_HISTORY)
    dropout: float = Field(0.2, ge=0, lt=1)
    unknown_item_rate: float = Field(0.05, ge=0, lt=1)
    """Share of item ids and event types that training replaces by the unknown id or type."""
    batch_size: int = Field(32, ge=1)
    loss: Loss = "full_softmax"
    num_negatives: int = Field(256, ge=1)
    shared_negatives: bool = True
    """True: all predictions of a batch share one draw of negatives. False: each prediction has a
    separate draw, which changes the loss and is much slower."""
    calibration: float = Field(0.75, ge=0, le=1)
    """Parameter t of the loss `gbce`, from 0 (plain binary cross-entropy) to 1 (fully calibrated).
    The other losses ignore it."""
    temperature: float = Field(0, ge=0)
    """If above 0, the score is the cosine of state and item, divided by this. If 0, it is their
    inner product plus an item bias."""
    learn_start: bool = True
    """Whether the model is also trained on empty histories, to predict a user's first event."""
    time_gaps: bool = False
    """Whether each position also has an embedding of the time since the previous event."""
    event_types: bool | None = None
    """Whether the model reads event types. None: yes if the training histories have more than one
    type. The saved config contains true or false."""
    content: bool | None = None
    """Whether item embeddings include projected content vectors (of the text and of the catalogue's
    columns `vector_<modality>`). A source has them only if this is true. None: true if the caller
    of `train_sequence` passes content vectors."""
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=2e-3)


class SequenceEncoder(nn.Module):
    """Base class of encoders: item embeddings (R, W, D) and a `Layout` -> states (R, W, D)."""

    input_scale: float = 1.0
    """Factor by which item embeddings are multiplied at the encoder's input. Their standard
    deviation starts at 1 / sqrt(D), which suits the softmax and the gates of a GRU. Encoders with
    residual blocks use sqrt(D), so that inputs are about as large as the blocks' outputs."""

    def last_state(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """Return the last state of a single history in numpy (models/one_query.py).

        (W, D) inputs, start first -> (D,). None if there is no numpy version.
        """
        return None


class SequenceModel(nn.Module):
    """Sequence model: item embeddings and an encoder.

    An item's score is the inner product of state and item embedding plus the item's bias, or their
    cosine / temperature if `config.temperature` > 0.
    """

    def __init__(
        self,
        config: SequenceConfig,
        encoder: SequenceEncoder,
        *,
        categories: np.ndarray,
        known: np.ndarray,
        content: np.ndarray | None = None,
    ):
        super().__init__()
        dim = config.embedding_dim
        self.config = config
        self.encoder = encoder
        self.embed = ItemEmbedding(categories, known=known, dim=dim, content=content)
        self.bias = nn.Parameter(torch.zeros(len(known))) if config.temperature == 0 else None
        self.start = nn.Parameter(torch.zeros(dim))
        self.gap = nn.Embedding(GAP_BUCKETS, dim) if config.time_gaps else None
        self.types = EventTypes(dim) if config.event_types else None
        self.generator: torch.Generator | None = (
            None  # draws unknown ids, unknown event types and negatives
        )

    def sizes(self) -> dict[str, Any]:
        if self.embed.of_content is None:
            return {}
        return {"num_content": self.embed.of_content.shape[1]}

    def item_vectors(self) -> Tensor:
        """Return item vectors: (N + 1, D), or (N + 1, D + 1) with the bias as last dimension.

        Inner products with the vectors of `encode` then include the bias.
        """
        every = self.embed.all_items()
        vectors = self._for_scores(self.embed(every))
        if self.bias is None:
            return vectors
        return torch.cat([vectors, self.bias[self.embed.ids(every)][:, None]], dim=1)

    def states(self, batch: SequenceBatch, *, embedded: Tensor | None = None) -> Tensor:
        """Return states (R, W, D); unit vectors / temperature if the temperature isn't 0.

        Args:
            embedded: (N + 1, D) embeddings of all items, if already computed.
        """
        x = self.embed(batch.items) if embedded is None else F.embedding(batch.items, embedded)
        if self.types is not None:
            x = self.types(x, batch.types)
        event = (batch.layout.position > 0).to(x.dtype)[..., None]
        x = x * (event * self.encoder.input_scale) + self.start * (1 - event)
        if self.gap is not None:
            x = x + self.gap(batch.gaps)
        x = self.encoder(x, batch.layout)
        if self.config.temperature:
            return F.normalize(x, dim=-1) / self.config.temperature
        return x

    def encode(self, queries: Queries) -> Tensor:
        """Return each query's last state: (B, D), or (B, D + 1) with a 1 for the item bias.

        The 1 is multiplied by the bias in the last dimension of `item_vectors`.
        """
        batch, index = pack_queries(
            queries, max_history=self.config.max_history, device=self.embed.device
        )
        states = self.states(batch).flatten(0, 1)[index]
        if self.bias is None:
            return states
        return torch.cat([states, torch.ones_like(states[:, :1])], dim=1)

    def one_query(self) -> Callable[[Queries], np.ndarray] | None:
        """Return `encode` of a single query in numpy: (D,) or (D + 1,). None if there is none."""
        last_state = self.encoder.last_state()
        if last_state is None:
            return None
        config, embed = self.config, one_query.embedding(self.embed)
        start, scale = one_query.array(self.start), np.float32(self.encoder.input_scale)
        gap_of = None if self.gap is None else one_query.array(self.gap.weight)
        gain = shift = None
        if self.types is not None:
            gain, shift = one_query.array(self.types.gain), one_query.array(self.types.shift)
        with_bias = self.bias is not None

        def encode(queries: Queries) -> np.ndarray:
            items, first = one_query.newest_items(queries, max_history=config.max_history)
            events = embed(items)
            if gain is not None and shift is not None:
                types = queries.history_type[0, first : first + len(items)]
                events = events * (1 + gain[types]) + shift[types]
            x = np.concatenate([start[None], events * scale])
            if gap_of is not None:
                times = queries.history_time[0, max(first - 1, 0) : first + len(items)]
                gaps = np.zeros(len(x), dtype=np.int64)
                known = len(times) - 1  # a user's first event has no gap
                if known > 0:
                    gaps[-known:] = gap_buckets(np.diff(times))
                x = x + gap_of[gaps]
            state = last_state(x)
            if config.temperature:
                state = one_query.normalised(state) / np.float32(config.temperature)
            return np.append(state, np.float32(1)) if with_bias else state

        return encode

    def loss(self, batch: SequenceBatch) -> Tensor:
        """Return the mean loss over the positions that have a target.

        Random item ids and event types are replaced by the unknown id or type. This trains the
        unknown ones, which serving needs for items without training events and for missing types.
        """
        if self.types is not None:
            lost = torch.rand(batch.types.shape, generator=self.generator, device=self.embed.device)
            types = batch.types.masked_fill(lost < self.config.unknown_item_rate, 0)
            batch = replace(batch, types=types)
        chance = torch.rand(
            len(self.embed.known), generator=self.generator, device=self.embed.device
        )
        drop_id = chance < self.config.unknown_item_rate
        every = self.embed.all_items()
        embedded = self.embed(every, drop_id=drop_id)
        target_index = torch.nonzero(batch.targets.ravel()).ravel()
        states = self.states(batch, embedded=embedded).flatten(0, 1)[target_index]
        targets = batch.targets.ravel()[target_index]
        items = self._for_scores(embedded)
        bias = None if self.bias is None else self.bias[self.embed.ids(every, drop_id=drop_id)]
        if self.config.loss == "full_softmax":
            return full_softmax(states, items, targets, bias=bias)
        if self.config.loss == "sampled_softmax" and self.config.shared_negatives:
            negatives = draw_distinct(
                self.config.num_negatives,
                num_items=len(items) - 1,
                generator=self.generator,
                device=targets.device,
            )
            return shared_softmax(states, items, targets, negatives, bias=bias)
        return self._sampled(states, items, targets, bias=bias)

    def _sampled(
        self, states: Tensor, items: Tensor, targets: Tensor, *, bias: Tensor | None
    ) -> Tensor:
        """Return the loss with uniform negatives: (M, D), (N + 1, D), (M,) -> scalar."""
        config, num_items = self.config, len(items) - 1
        shape = () if config.shared_negatives else (len(targets),)
        negatives = draw_uniform(
            (*shape, config.num_negatives),
            num_items=num_items,
            generator=self.generator,
            device=targets.device,
        )
        positive = (states * F.embedding(targets, items)).sum(1)
        drawn = F.embedding(negatives, items)
        if config.shared_negatives:
            negative = states @ drawn.T
        else:
            negative = torch.bmm(drawn, states[:, :, None]).squeeze(2)
        if bias is not None:
            positive, negative = positive + bias[targets], negative + bias[negatives]
        if config.loss == "sampled_softmax":
            # Draws are uniform, so each item has the same expected count.
            expected = torch.full_like(
                negatives, config.num_negatives / num_items, dtype=items.dtype
            )
            return sampled_softmax(positive, negative, targets, negatives, expected.log())
        if config.loss == "gbce":
            return calibrated_binary_cross_entropy(
                positive, negative, num_items=num_items, calibration=config.calibration
            )
        return binary_cross_entropy(positive, negative)

    def _for_scores(self, embedded: Tensor) -> Tensor:
        return F.normalize(embedded, dim=-1) if self.config.temperature else embedded
