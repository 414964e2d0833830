"""DIN ranker: attention of each candidate over the history, then a deep network.

Source: Zhou et al. 2018, "Deep Interest Network for Click-Through Rate Prediction". The attention
also reads the time from each event to the request, and the event's type (`HistoryAttention`).

Shapes: B requests, C candidates, L history, F' numeric features.
"""

from typing import Literal

from torch import Tensor, nn

from models.ranking.neural.config import HistoryConfig
from models.ranking.neural.inputs import Events, Rows, Sizes
from models.ranking.neural.parts import HistoryNetwork, hidden_layers, last_width


class DinConfig(HistoryConfig):
    """Hyperparameters of DIN."""

    kind: Literal["din"] = "din"


class DinNet(HistoryNetwork):
    """Deep network over numeric features, embeddings and the attended history."""

    def __init__(self, config: DinConfig, sizes: Sizes):
        super().__init__(config, sizes)
        width, dims = self.input_width, config.hidden_dims
        self.hidden = hidden_layers(width, dims, dropout=config.dropout)
        self.out = nn.Linear(last_width(width, dims), 1)

    def forward(self, rows: Rows, events: Events) -> Tensor:
        """Score candidates: (B, C) and histories (B, L) -> (B, C)."""
        return self.out(self.hidden(self.inputs(rows, events))).squeeze(-1)
