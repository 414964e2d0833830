"""Simple encoders: the average of a history, and a recurrent network.

- average: ignores the order of events; a baseline for the encoders that read the order.
- gru: GRU4Rec (Hidasi et al. 2016) with full softmax over the catalogue.

Shapes: R rows of W positions, D dim; see `batches.py`.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models import one_query
from models.layers import Dropout
from models.sequence.batches import Layout
from models.sequence.model import SequenceConfig, SequenceEncoder
from models.training import OptimiserConfig


class AverageConfig(SequenceConfig):
    """Hyperparameters of the average encoder.

    Epochs are cheap and the nDCG of the first ones varies, so patience is longer than the default.
    """

    kind: Literal["average"] = "average"
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=2e-3, patience=4)


class AverageEncoder(SequenceEncoder):
    """Encoder: running mean of start and events, dropout, linear; (R, W, D) -> (R, W, D)."""

    def __init__(self, config: AverageConfig):
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.out = nn.Linear(config.embedding_dim, config.embedding_dim)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        weight = layout.mask / (layout.position + 1)[..., None]
        return self.out(self.dropout(torch.where(layout.segment[..., None] > 0, weight @ x, 0)))

    def last_state(self) -> Callable[[np.ndarray], np.ndarray]:
        out = one_query.linear(self.out)
        return lambda x: out(x.mean(0))


class GruConfig(SequenceConfig):
    """Hyperparameters of the GRU: one recurrent layer of width `embedding_dim`."""

    kind: Literal["gru"] = "gru"


class GruEncoder(SequenceEncoder):
    """Encoder: dropout, GRU, dropout, linear; (R, W, D) -> (R, W, D).

    `nn.GRU` needs one history per row, so histories are unpacked before it and packed after it.
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

    def last_state(self) -> Callable[[np.ndarray], np.ndarray]:
        # Imported here, because importing numba takes a second that many commands don't need.
        from models.sequence.gru_kernel import last_hidden

        array, gru = one_query.array, self.gru
        of_input, input_bias = array(gru.weight_ih_l0).T, array(gru.bias_ih_l0)
        of_hidden = np.ascontiguousarray(array(gru.weight_hh_l0).T)
        hidden_bias, out = array(gru.bias_hh_l0), one_query.linear(self.out)
        return lambda x: out(last_hidden(x @ of_input + input_bias, of_hidden, hidden_bias))
