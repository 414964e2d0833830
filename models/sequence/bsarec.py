"""BSARec: transformer blocks that combine attention with a frequency filter over the history.

Source: Shin et al. 2024, "An Attentive Inductive Bias for Sequential Recommendation beyond the
Self-Attention". The paper's filter is a discrete Fourier transform over the padded window, in which
a position reads later positions too. Each prefix of a history must therefore be a separate training
row. Here, the same low-pass filter is a causal sum over earlier positions. At the last position of
a history it equals the transform, and all positions are trained at once. Blocks are pre-norm.

Shapes: R rows of W positions with packed histories (see `batches.py`), D dim.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from models.layers import Attention, Dropout, FeedForward
from models.sequence.batches import Layout
from models.sequence.model import SequenceConfig, SequenceEncoder


class BsarecConfig(SequenceConfig):
    """Hyperparameters of BSARec's transformer and frequency filter."""

    kind: Literal["bsarec"] = "bsarec"
    num_blocks: int = Field(2, ge=1)
    num_heads: int = Field(1, ge=1)
    dropout: float = Field(0.5, ge=0, lt=1)
    hidden_factor: int = Field(4, ge=1)
    filter_share: float = Field(0.7, ge=0, le=1)
    """Weight of the filter's output in a block; attention has the weight 1 - filter_share."""
    num_frequencies: int = Field(3, ge=1)
    """Number of Fourier frequencies in the low-pass part, including the constant (frequency 0)."""


def low_pass(length: int, *, num_frequencies: int) -> Tensor:
    """Return the weights of the low-pass filter: (length,), where [i] is the weight at lag i.

    They are the inverse real Fourier transform, over `length` positions, of a spectrum that is 1
    for the lowest frequencies and 0 above.
    """
    lag = torch.arange(length, dtype=torch.float64)
    weight = torch.full((length,), 1 / length, dtype=torch.float64)
    for f in range(1, min(num_frequencies, (length + 1) // 2)):
        weight += 2 / length * torch.cos(2 * math.pi * f * lag / length)
    return weight.float()


class FrequencyFilter(nn.Module):
    """Frequency filter: low-pass part + squared learned factor * high-pass part.

    (R, W, D) -> (R, W, D).
    """

    weight: Tensor

    def __init__(self, dim: int, *, length: int, num_frequencies: int):
        super().__init__()
        weight = low_pass(length, num_frequencies=num_frequencies)
        self.register_buffer("weight", weight, persistent=False)
        self.fast = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        slow = torch.where(layout.mask, self.weight[layout.lag], 0) @ x
        return slow + self.fast.square() * (x - slow)


class BsarecBlock(nn.Module):
    """Pre-norm block: x + weighted mean of filter and attention, then x + feed-forward."""

    def __init__(self, config: BsarecConfig):
        super().__init__()
        dim = config.embedding_dim
        self.share = config.filter_share
        self.mix_norm = nn.LayerNorm(dim)
        self.filter = FrequencyFilter(
            dim, length=config.max_history + 1, num_frequencies=config.num_frequencies
        )
        self.attention = Attention(dim, num_heads=config.num_heads)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(
            dim, hidden=config.hidden_factor * dim, dropout=config.dropout
        )
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        normed = self.mix_norm(x)
        filtered = self.filter(normed, layout)
        attended = self.attention(normed, layout.mask)
        x = x + self.dropout(self.share * filtered + (1 - self.share) * attended)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class BsarecEncoder(SequenceEncoder):
    """Encoder: position embeddings, dropout, BSARec blocks, norm; (R, W, D) -> (R, W, D)."""

    def __init__(self, config: BsarecConfig):
        super().__init__()
        dim = config.embedding_dim
        self.input_scale = dim**0.5
        self.position = nn.Parameter(torch.zeros(config.max_history + 1, dim))
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(BsarecBlock(config) for _ in range(config.num_blocks))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        x = self.dropout(x + F.embedding(layout.position, self.position))
        for block in self.blocks:
            x = block(x, layout)
        return self.norm(x)
