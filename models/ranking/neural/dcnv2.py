"""DCNv2 ranker: a cross network, which multiplies features explicitly, beside a deep network.

Source: Wang et al. 2021, "DCN V2". Cross layer l returns x0 * (W x_l + b) + x_l, so that l layers
give products of up to l + 1 features. With a rank r, W = U V^T with r columns. Both parts read the
same input, and one linear layer reads both results (the paper's parallel structure).

Shapes: B requests, C candidates, F' numeric features, W width of the input.
"""

from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from models.ranking.neural.config import NeuralConfig
from models.ranking.neural.inputs import Events, Rows, Sizes
from models.ranking.neural.parts import Fields, Network, hidden_layers, last_width


class Dcnv2Config(NeuralConfig):
    """Hyperparameters of DCNv2."""

    kind: Literal["dcnv2"] = "dcnv2"
    num_cross_layers: PositiveInt = 2
    rank: PositiveInt | None = None
    """Rank of the matrix of a cross layer, to save time if there are many features. None: full."""


class CrossLayer(nn.Module):
    """One cross layer, with a full matrix or a product of two of `rank` columns."""

    def __init__(self, width: int, *, rank: int | None):
        super().__init__()
        if rank is None or rank >= width:
            self.product: nn.Module = nn.Linear(width, width)
        else:
            self.product = nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width))

    def forward(self, first: Tensor, x: Tensor) -> Tensor:
        """Return first * (W x + b) + x: inputs (..., W) -> (..., W)."""
        return first * self.product(x) + x


class Dcnv2Net(Network):
    """Cross network and deep network over numeric features and embeddings."""

    def __init__(self, config: Dcnv2Config, sizes: Sizes):
        super().__init__()
        self.fields = Fields(sizes.tables, config.embedding_dim)
        width = sizes.num_numeric + self.fields.width
        self.cross = nn.ModuleList(
            [CrossLayer(width, rank=config.rank) for _ in range(config.num_cross_layers)]
        )
        self.hidden = hidden_layers(width, config.hidden_dims, dropout=config.dropout)
        self.out = nn.Linear(width + last_width(width, config.hidden_dims), 1)

    def forward(self, rows: Rows, events: Events) -> Tensor:
        """Score candidates: (B, C) -> (B, C). The history is not used."""
        first = torch.cat([rows.z, self.fields(rows)], dim=-1)
        crossed = first
        for layer in self.cross:
            crossed = layer(first, crossed)
        return self.out(torch.cat([crossed, self.hidden(first)], dim=-1)).squeeze(-1)
