"""The plain average of the history's item embeddings: what an encoder of order has to beat."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from models.data import TrainingData, Validation
from models.layers import Dropout
from models.sequence.fit import fit_sequence, load_sequence
from models.sequence.model import SequenceConfig, SequenceEncoder
from models.sequence.packing import Layout
from models.training import OptimiserConfig, TrainingOptions
from models.vector_source import VectorSource
from shortlist.catalogue import Catalogue


class AverageConfig(SequenceConfig):
    """What every sequence model has; its epochs are cheap, and its figure wavers at first."""

    kind: Literal["average"] = "average"
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=2e-3, patience=4)


class AverageEncoder(SequenceEncoder):
    """Running mean of a history, its start included, dropout, linear: (R, W, D) -> (R, W, D)."""

    def __init__(self, config: AverageConfig):
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.out = nn.Linear(config.embedding_dim, config.embedding_dim)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        weight = layout.mask / (layout.position + 1)[..., None]
        return self.out(self.dropout(torch.where(layout.segment[..., None] > 0, weight @ x, 0)))


def fit_average(
    config: AverageConfig, data: TrainingData, validation: Validation, options: TrainingOptions
) -> VectorSource:
    return fit_sequence(config.kind, config, AverageEncoder(config), data, validation, options)


def load_average(folder: Path, catalogue: Catalogue) -> VectorSource:
    return load_sequence(
        "average", folder, catalogue, config_class=AverageConfig, encoder=AverageEncoder
    )
