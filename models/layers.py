"""Layers that several models share.

Shapes: B batch, L positions, D dim, H heads, N items.

Layers draw random numbers from a generator that the model sets. Several models train in parallel
threads. If all drew from torch's global generator, the results would depend on the thread order.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortlist.contracts import EVENT_CODE


class Dropout(nn.Module):
    """Dropout that draws one random byte per element, from the generator set by `prepare`.

    The rate is rounded to a multiple of 1/256. Each 64-bit random number gives eight bytes, which
    takes a quarter of the time of `torch.rand`.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.dropped = round(rate * 256)
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.dropped == 0:
            return x
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device)
        words.random_(-(2**63), None, generator=self.generator)
        drawn = words.view(torch.uint8)[: x.numel()].view(x.shape)
        # Float arithmetic is five times as fast as a comparison of bytes with `torch.where`.
        kept = drawn.to(x.dtype).sub_(self.dropped - 1).clamp_(0, 1)
        return x * kept.mul_(256 / (256 - self.dropped))


def prepare(model: nn.Module, generator: torch.Generator) -> None:
    """Initialise all weights and set the generator of every `Dropout`, for repeatable training.

    Weight matrices are drawn from a normal distribution with standard deviation 1 / sqrt(inputs),
    embeddings with 1 / sqrt(D). Biases are 0.
    """
    for module in model.modules():
        if isinstance(module, Dropout):
            module.generator = generator
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5, generator=generator)
        elif isinstance(module, nn.Linear | nn.GRU):
            for parameter in module.parameters(recurse=False):
                if parameter.ndim == 2:
                    std = parameter.shape[1] ** -0.5
                    nn.init.normal_(parameter, std=std, generator=generator)
                else:
                    nn.init.zeros_(parameter)


def scale_down_residuals(model: nn.Module) -> None:
    """Multiply the output weights of every attention and feed-forward branch by 0.1.

    A residual block then starts close to the identity. The first predictions depend on the last
    item's embedding instead of on a random mixture of the history.
    """
    for module in model.modules():
        if isinstance(module, Attention):
            module.out.weight.data.mul_(0.1)
        elif isinstance(module, FeedForward | GatedFeedForward):
            module.down.weight.data.mul_(0.1)


MAX_FROZEN = 200_000
"""Maximum number of items for which `ItemEmbedding.freeze` stores the embeddings."""


class ItemEmbedding(nn.Module):
    """Item embedding: id embedding + projection of categories + projection of content vectors.

    Row 0 of the id embedding belongs to the unknown id, which items without a training event (cold
    items) use. The projection of content vectors is optional and starts at zero.

    In training, models replace random ids by the unknown id (`drop_id`), so that its row is trained
    too. The vector of a cold item is this row plus the projections of its categories and content.
    """

    categories: Tensor
    known: Tensor
    content: Tensor

    def __init__(
        self,
        categories: np.ndarray,
        *,
        known: np.ndarray,
        dim: int,
        content: np.ndarray | None = None,
        fuse: nn.Module | None = None,
    ):
        """
        Args:
            categories: (N + 1, K) multi-hot.
            known: (N + 1,) bool, True for items with training events.
            content: (N + 1, F) float32 content vectors, row 0 zeros. They are saved with the
                weights but not trained.
            fuse: module that maps content vectors (..., F) to (..., D); None: a linear projection.
        """
        super().__init__()
        self.id = nn.Embedding(len(categories), dim)
        has_categories = categories.shape[1] > 0
        self.category = nn.Linear(categories.shape[1], dim, bias=False) if has_categories else None
        self.register_buffer("categories", torch.from_numpy(categories), persistent=False)
        self.register_buffer("known", torch.from_numpy(known & (np.arange(len(known)) > 0)))
        self.frozen: Tensor | None = None
        self.of_content = None
        self.fuse = fuse
        if content is not None:
            if fuse is None:
                self.of_content = nn.Parameter(torch.zeros(dim, content.shape[1]))
            self.register_buffer("content", torch.from_numpy(content))

    @torch.no_grad()
    def freeze(self) -> None:
        """Store the embeddings of all items, to speed up a model that is no longer trained.

        Does nothing if the catalogue has more than MAX_FROZEN items, to save memory.
        """
        if len(self.known) <= MAX_FROZEN:
            self.frozen = self.forward(self.all_items())

    @property
    def device(self) -> torch.device:
        return self.known.device

    def all_items(self) -> Tensor:
        """Return all item_idx with padding: (N + 1,) int64."""
        return torch.arange(len(self.known), device=self.device)

    def ids(self, items: Tensor, *, drop_id: Tensor | None = None) -> Tensor:
        """Return the id-embedding row of each item; 0 if it is unknown or `drop_id` is True."""
        ids = torch.where(self.known[items], items, 0)
        return ids if drop_id is None else ids.masked_fill(drop_id, 0)

    def forward(self, items: Tensor, *, drop_id: Tensor | None = None) -> Tensor:
        """Embed items: (...) item_idx -> (..., D). `drop_id` (...) bool: use the unknown id."""
        if self.frozen is not None and drop_id is None:
            return F.embedding(items, self.frozen)
        ids = self.ids(items, drop_id=drop_id)
        x = self.id(ids)
        if self.category is not None:
            x = x + self.category(self.categories[items])
        if self.of_content is not None:
            x = x + F.linear(self.content[items], self.of_content)
        if self.fuse is not None:
            x = x + self.fuse(self.content[items])
        return x


class EventTypes(nn.Module):
    """Modulation of an item embedding by its event type: x * (1 + gain[type]) + shift[type].

    Gain and shift start at zero, so the untrained module returns x unchanged. They stay zero for
    the unknown type (0). Source: FiLM (Perez et al. 2018).
    """

    def __init__(self, dim: int):
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(len(EVENT_CODE) + 1, dim))
        self.shift = nn.Parameter(torch.zeros(len(EVENT_CODE) + 1, dim))

    def forward(self, x: Tensor, types: Tensor) -> Tensor:
        """Modulate embeddings (..., D) by EVENT_CODE `types` (...) -> (..., D)."""
        gain = F.embedding(types, self.gain, padding_idx=0)
        return x * (1 + gain) + F.embedding(types, self.shift, padding_idx=0)


class FeedForward(nn.Module):
    """Feed-forward layer: linear, GELU, dropout, linear; (..., D) -> (..., D)."""

    def __init__(self, dim: int, *, hidden: int, dropout: float):
        super().__init__()
        self.up = nn.Linear(dim, hidden)
        self.down = nn.Linear(hidden, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.dropout(F.gelu(self.up(x))))


class Attention(nn.Module):
    """Multi-head self-attention; position i attends to the positions j with `mask[r, i, j]` True.

    (R, W, D) and mask (R, W, W) bool -> (R, W, D), for R rows of W positions.
    """

    def __init__(self, dim: int, *, num_heads: int):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"embedding_dim {dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        R, W, D = x.shape
        qkv = self.qkv(x).view(R, W, 3, self.num_heads, D // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (R, H, W, D / H)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
        return self.out(attended.transpose(1, 2).reshape(R, W, D))


class TransformerBlock(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, dim: int, *, num_heads: int, hidden: int, dropout: float):
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, num_heads=num_heads)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, hidden=hidden, dropout=dropout)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), mask))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class GatedFeedForward(nn.Module):
    """Gated feed-forward layer SwiGLU (Shazeer 2020): (..., D) -> (..., D)."""

    def __init__(self, dim: int, *, hidden: int, dropout: float):
        super().__init__()
        self.up = nn.Linear(dim, 2 * hidden)
        self.down = nn.Linear(hidden, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.up(x).chunk(2, dim=-1)
        return self.down(self.dropout(F.silu(gate) * value))


class LigrBlock(nn.Module):
    """Pre-norm transformer block with a learned sigmoid gate on each residual branch.

    Source: Borisyuk et al. 2025, "LiGR", as in eSASRec (Tikhonovich et al. 2025).
    """

    def __init__(self, dim: int, *, num_heads: int, hidden: int, dropout: float):
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, num_heads=num_heads)
        self.attention_gate = nn.Linear(dim, dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = GatedFeedForward(dim, hidden=hidden, dropout=dropout)
        self.feed_forward_gate = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        attended = self.dropout(self.attention(self.attention_norm(x), mask))
        x = x + attended * self.attention_gate(x).sigmoid()
        fed = self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return x + fed * self.feed_forward_gate(x).sigmoid()


class AttentionPool(nn.Module):
    """Attention pooling of histories: (B, L, D) and mask (B, L), right padded -> (B, D).

    Returns a weighted mean of the real positions; zeros for an empty history. The weights are the
    softmax of a learned linear score plus a learned bias for the distance from the newest position.
    """

    def __init__(self, dim: int, *, max_length: int):
        super().__init__()
        self.score = nn.Linear(dim, 1)
        self.recency = nn.Parameter(torch.zeros(max_length))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        column = torch.arange(mask.shape[1], device=mask.device)
        from_newest = (mask.sum(1, keepdim=True) - 1 - column).clamp(min=0)
        logits = self.score(x).squeeze(-1) + self.recency[from_newest]
        # Not -inf, which would give NaN outputs and gradients for an empty history.
        weights = logits.masked_fill(~mask, -1e9).softmax(1) * mask
        return torch.einsum("bl,bld->bd", weights, x)
