"""Listwise transformer ranker: all candidates of a request attend to one another.

Source: Pei et al. 2019, "Personalized Re-ranking for Recommendation", without its position
encoding: the score of a candidate doesn't depend on the order of the others. Candidates also attend
to the history as in DIN. The score of a candidate depends on the other candidates.

Shapes: B requests, C candidates, L history, F' numeric features, D dim.
"""

from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from models.layers import TransformerBlock, scale_down_residuals
from models.ranking.neural.config import HistoryConfig
from models.ranking.neural.inputs import Events, Rows, Sizes
from models.ranking.neural.parts import HistoryNetwork, hidden_layers


class TransformerConfig(HistoryConfig):
    """Hyperparameters of the listwise transformer."""

    kind: Literal["transformer"] = "transformer"
    model_dim: PositiveInt = 64
    """Width of a candidate's vector in the transformer blocks."""
    num_blocks: PositiveInt = 1
    num_heads: PositiveInt = 2


class TransformerNet(HistoryNetwork):
    """Hidden layers for each candidate, transformer blocks over the candidates of a request."""

    listwise = True

    def __init__(self, config: TransformerConfig, sizes: Sizes):
        super().__init__(config, sizes)
        dims = (*config.hidden_dims, config.model_dim)
        self.hidden = hidden_layers(self.input_width, dims, dropout=config.dropout)
        self.blocks = nn.ModuleList(
            [
                TransformerBlock(
                    config.model_dim,
                    num_heads=config.num_heads,
                    hidden=2 * config.model_dim,
                    dropout=config.dropout,
                )
                for _ in range(config.num_blocks)
            ]
        )
        self.norm = nn.LayerNorm(config.model_dim)
        self.out = nn.Linear(config.model_dim, 1)

    def forward(self, rows: Rows, events: Events) -> Tensor:
        """Score candidates: (B, C) and histories (B, L) -> (B, C). Padding has item_idx 0."""
        x = self.hidden(self.inputs(rows, events))
        real = rows.item_idx > 0
        # Padding attends to itself, so that no row of the mask is empty, which would give NaN.
        itself = torch.eye(real.shape[1], dtype=torch.bool, device=real.device)
        mask = real[:, None] | itself
        for block in self.blocks:
            x = block(x, mask)
        return self.out(self.norm(x)).squeeze(-1)

    def prepare(self, generator: torch.Generator) -> None:
        """Initialise the weights; each block starts close to the identity."""
        super().prepare(generator)
        scale_down_residuals(self)
