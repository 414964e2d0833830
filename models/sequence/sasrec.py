"""SASRec (Kang & McAuley 2018) with pre-norm blocks and full softmax over the catalogue.

Of all changes to the paper's model, full softmax instead of one sampled negative improves it most
(Klenitskiy & Vasilev 2023, "Turning Dross Into Gold Loss").

Shapes: R rows of W positions with packed histories (see `batches.py`), D dim.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from models import one_query
from models.layers import Dropout, LigrBlock, TransformerBlock
from models.sequence.batches import Layout
from models.sequence.model import SequenceConfig, SequenceEncoder

BLOCKS = {"transformer": TransformerBlock, "ligr": LigrBlock}


class SasrecConfig(SequenceConfig):
    """Hyperparameters of SASRec."""

    kind: Literal["sasrec"] = "sasrec"
    num_blocks: int = Field(1, ge=1)
    dropout: float = Field(0.4, ge=0, lt=1)
    num_heads: int = Field(2, ge=1)
    hidden_factor: int = Field(4, ge=1)
    """Hidden width of the feed-forward layers, as a multiple of `embedding_dim`; 1 in the paper."""
    block: Literal["transformer", "ligr"] = "transformer"
    """Type of the encoder's blocks; `ligr` adds a learned gate to each residual branch."""


class SasrecEncoder(SequenceEncoder):
    """Encoder: position embeddings, dropout, causal blocks, norm; (R, W, D) -> (R, W, D)."""

    def __init__(self, config: SasrecConfig):
        super().__init__()
        dim = config.embedding_dim
        self.input_scale = dim**0.5
        self.position = nn.Parameter(torch.zeros(config.max_history + 1, dim))
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            BLOCKS[config.block](
                dim,
                num_heads=config.num_heads,
                hidden=config.hidden_factor * dim,
                dropout=config.dropout,
            )
            for _ in range(config.num_blocks)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        x = self.dropout(x + F.embedding(layout.position, self.position))
        for block in self.blocks:
            x = block(x, layout.mask)
        return self.norm(x)

    def last_state(self) -> Callable[[np.ndarray], np.ndarray] | None:
        position, norm = one_query.array(self.position), one_query.layer_norm(self.norm)
        blocks = [one_query.block(each) for each in self.blocks]

        def apply(x: np.ndarray) -> np.ndarray:
            x = x + position[: len(x)]
            for number, each in enumerate(blocks, start=1):
                x = each(x, number == len(blocks))
            return norm(x[-1])

        return apply
