"""GRU4Rec (Hidasi et al. 2016) with full softmax over the catalogue."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.data import TrainingData, Validation
from models.layers import Dropout
from models.sequence.fit import fit_sequence, load_sequence
from models.sequence.model import SequenceConfig, SequenceEncoder
from models.sequence.packing import Layout
from models.training import TrainingOptions
from models.vector_source import VectorSource
from shortlist.catalogue import Catalogue


class GruConfig(SequenceConfig):
    """One recurrent layer of width `embedding_dim`."""

    kind: Literal["gru"] = "gru"


class GruEncoder(SequenceEncoder):
    """Dropout, GRU, dropout, linear: (R, W, D) -> (R, W, D).

    It walks one history after the other, so they are taken out of their rows and put back.
    """

    def __init__(self, config: GruConfig):
        super().__init__()
        dim = config.embedding_dim
        self.dropout = Dropout(config.dropout)
        self.gru = nn.GRU(dim, dim, batch_first=True)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        place, length = layout.unpacked
        rows = self.dropout(x).flatten(0, 1)[place]
        walked = pack_padded_sequence(rows, length.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.gru(walked)[0], batch_first=True)
        real = torch.arange(place.shape[1], device=x.device) < length[:, None]
        flat = torch.zeros_like(x).flatten(0, 1)
        flat = flat.index_copy(0, place[real], states[real])
        return self.out(self.dropout(flat.view_as(x)))


def fit_gru(
    config: GruConfig, data: TrainingData, validation: Validation, options: TrainingOptions
) -> VectorSource:
    return fit_sequence(config.kind, config, GruEncoder(config), data, validation, options)


def load_gru(folder: Path, catalogue: Catalogue) -> VectorSource:
    return load_sequence("gru", folder, catalogue, config_class=GruConfig, encoder=GruEncoder)
