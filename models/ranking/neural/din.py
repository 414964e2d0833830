"""DIN ranker: attention of each candidate over the history, then a deep network.

Source: Zhou et al. 2018, "Deep Interest Network for Click-Through Rate Prediction". The attention
also reads the time from each event to the request, and the event's type (`HistoryAttention`).

Shapes: B requests, C candidates, L history, F' numeric features.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from models.ranking.neural.config import HistoryConfig
from models.ranking.neural.inputs import Events, Rows, Sizes
from models.ranking.neural.parts import Fields, HistoryAttention, hidden_layers, prepare_ranker


class DinConfig(HistoryConfig):
    """Hyperparameters of DIN."""

    kind: Literal["din"] = "din"


class DinNet(nn.Module):
    """Deep network over numeric features, embeddings and the attended history."""

    listwise = False

    def __init__(self, config: DinConfig, sizes: Sizes):
        super().__init__()
        self.fields = Fields(sizes.tables, config.embedding_dim)
        item = self.fields.vectors[0]
        assert isinstance(item, nn.Embedding)
        self.attention = HistoryAttention(
            item, num_types=sizes.num_types, hidden=config.attention_dim
        )
        width = sizes.num_numeric + self.fields.width + self.attention.width
        self.hidden = hidden_layers(width, config.hidden_dims, dropout=config.dropout)
        self.out = nn.Linear(config.hidden_dims[-1] if config.hidden_dims else width, 1)

    def forward(self, rows: Rows, events: Events) -> Tensor:
        """Score candidates: (B, C) and histories (B, L) -> (B, C)."""
        x = torch.cat([rows.z, self.fields(rows), self.attention(rows, events)], dim=-1)
        return self.out(self.hidden(x)).squeeze(-1)

    def prepare(self, generator: torch.Generator) -> None:
        """Initialise the weights."""
        prepare_ranker(self, generator)
