"""GRU4Rec (Hidasi et al. 2016) with full softmax over the catalogue."""

from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from models.data import TrainingData, Validation
from models.layers import Dropout
from models.sequence.model import SequenceConfig, fit_sequence, load_sequence
from models.training import TrainingOptions
from models.vector_source import VectorSource
from shortlist.catalogue import Catalogue


class GruConfig(SequenceConfig):
    """One recurrent layer of width `embedding_dim`."""

    kind: Literal["gru"] = "gru"


class GruEncoder(nn.Module):
    """Dropout, GRU, dropout, linear: (B, L + 1, D) -> (B, L + 1, D)."""

    def __init__(self, config: GruConfig):
        super().__init__()
        dim = config.embedding_dim
        self.dropout = Dropout(config.dropout)
        self.gru = nn.GRU(dim, dim, batch_first=True)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.gru(self.dropout(x))
        return self.out(self.dropout(states))


def fit_gru(
    config: GruConfig, data: TrainingData, validation: Validation, options: TrainingOptions
) -> VectorSource:
    return fit_sequence(config.kind, config, GruEncoder(config), data, validation, options)


def load_gru(folder: Path, catalogue: Catalogue) -> VectorSource:
    return load_sequence("gru", folder, catalogue, config_class=GruConfig, encoder=GruEncoder)
