"""DeepFM ranker: sum of a linear, a factorisation-machine and a deep part with shared embeddings.

Source: Guo et al. 2017. The embedding of a numeric field is its normalised value times the field's
vector, as in the paper.

Shapes: B requests, C candidates, F' numeric features, A codes, D dim.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from models.ranking.neural.config import NeuralConfig
from models.ranking.neural.inputs import Events, Rows, Sizes
from models.ranking.neural.parts import Network, hidden_layers, last_width


class DeepfmConfig(NeuralConfig):
    """Hyperparameters of DeepFM."""

    kind: Literal["deepfm"] = "deepfm"
    logarithms: bool = False
    """Whether each numeric feature is also read as its standardised logarithm, beside its quantile.
    Off, because its gain on MovieLens-100K, where the main job trains DeepFM, isn't measured."""


class DeepfmNet(Network):
    """DeepFM network over normalised numeric features, codes and the item id."""

    def __init__(self, config: DeepfmConfig, sizes: Sizes):
        super().__init__()
        dim = config.embedding_dim
        self.numeric_vector = nn.Parameter(torch.empty(sizes.num_numeric, dim))
        self.linear = nn.Linear(sizes.num_numeric, 1)
        self.vectors = nn.ModuleList([nn.Embedding(size, dim) for size in sizes.tables])
        self.biases = nn.ModuleList([nn.Embedding(size, 1) for size in sizes.tables])
        width = sizes.num_numeric + dim * len(sizes.tables)
        hidden = hidden_layers(width, config.hidden_dims, dropout=config.dropout)
        self.deep = nn.Sequential(*hidden, nn.Linear(last_width(width, config.hidden_dims), 1))

    def forward(self, rows: Rows, events: Events) -> Tensor:
        """Score candidates: (B, C) -> (B, C). The history is not used."""
        z, fields = rows.z, [rows.item_row, *rows.codes.unbind(-1)]
        vectors = [table(field) for table, field in zip(self.vectors, fields, strict=True)]
        biases = [table(field) for table, field in zip(self.biases, fields, strict=True)]
        first = self.linear(z) + sum(biases)
        total = z @ self.numeric_vector + sum(vectors)
        squares = z.square() @ self.numeric_vector.square() + sum(v.square() for v in vectors)
        second = 0.5 * (total.square() - squares).sum(-1, keepdim=True)
        deep = self.deep(torch.cat([z, *vectors], dim=-1))
        return (first + second + deep).squeeze(-1)

    def prepare(self, generator: torch.Generator) -> None:
        """Initialise the weights.

        The linear part and the factorisation machine start near zero, so that the deep part
        dominates at first.
        """
        super().prepare(generator)
        nn.init.normal_(self.numeric_vector, std=0.01, generator=generator)
        nn.init.zeros_(self.linear.weight)
