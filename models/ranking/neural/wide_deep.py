"""Wide-and-deep ranker: a linear model over many sparse features plus a deep network.

Source: Cheng et al. 2016. The wide part has one weight for each item, code and interval of each
numeric feature, and for hashed pairs of item and codes. It memorises; the deep part generalises.

Shapes: B requests, C candidates, F' numeric features, A codes, D dim, P pairs.
"""

from itertools import combinations
from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from models.ranking.neural.config import NeuralConfig
from models.ranking.neural.inputs import Events, Rows, Sizes
from models.ranking.neural.parts import Fields, Network, hidden_layers, last_width

HASH = 2_654_435_761
"""Multiplier of the hash of pairs (Knuth's multiplicative hashing)."""


class WideDeepConfig(NeuralConfig):
    """Hyperparameters of wide-and-deep."""

    kind: Literal["wide_deep"] = "wide_deep"
    num_intervals: PositiveInt = 8
    """Number of intervals of a numeric feature's quantiles in the wide part."""
    num_pair_weights: PositiveInt = 4096
    """Number of weights that all pairs of item and codes share by hashing."""


class _SumOfWeights(torch.autograd.Function):
    """Sum of the weights (W,) at the places (..., P) -> (...).

    Its gradient is a count, which takes a fraction of the time of an embedding's gradient.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.size = len(weights)
        return weights[places].sum(-1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        each = grad_outputs[0][..., None].expand(places.shape)
        total = torch.bincount(places.flatten(), each.flatten(), minlength=ctx.size)
        return total.to(each.dtype), None


class WideDeepNet(Network):
    """Sum of the wide and the deep part. The weights of the wide part start at 0."""

    def __init__(self, config: WideDeepConfig, sizes: Sizes):
        super().__init__()
        self.num_intervals, self.num_pairs = config.num_intervals, config.num_pair_weights
        self.biases = nn.ModuleList([nn.Embedding(size, 1) for size in sizes.tables])
        self.intervals = nn.Parameter(torch.zeros(sizes.num_numeric * config.num_intervals))
        self.pairs = nn.Embedding(config.num_pair_weights, 1)
        start = torch.arange(sizes.num_numeric) * config.num_intervals
        self.start: Tensor
        self.register_buffer("start", start, persistent=False)
        self.fields = Fields(sizes.tables, config.embedding_dim)
        width = sizes.num_numeric + self.fields.width
        self.hidden = hidden_layers(width, config.hidden_dims, dropout=config.dropout)
        self.out = nn.Linear(last_width(width, config.hidden_dims), 1)

    def forward(self, rows: Rows, events: Events) -> Tensor:
        """Score candidates: (B, C) -> (B, C). The history is not used."""
        deep = self.out(self.hidden(torch.cat([rows.z, self.fields(rows)], dim=-1)))
        return self.wide(rows) + deep.squeeze(-1)

    def wide(self, rows: Rows) -> Tensor:
        """Return the sum of the weights of each candidate's sparse features: (B, C)."""
        fields = [rows.item_row, *rows.codes.unbind(-1)]
        biases = [table(field) for table, field in zip(self.biases, fields, strict=True)]
        total = torch.stack(biases).sum(0)  # (B, C, 1)
        place = ((rows.z + 1) / 2 * self.num_intervals).long().clamp(0, self.num_intervals - 1)
        total = total + _SumOfWeights.apply(self.intervals, place + self.start)[..., None]
        pairs = [
            ((first * HASH + second + number) * HASH) % 2**31 % self.num_pairs
            for number, (first, second) in enumerate(combinations(fields, 2))
        ]
        if pairs:
            total = total + self.pairs(torch.stack(pairs, dim=-1)).sum(-2)  # from (B, C, P, 1)
        return total.squeeze(-1)
