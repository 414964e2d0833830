"""Gated sum of an item's modalities, which tolerates missing ones.

Shapes: M modalities, F content features of all modalities side by side, D dim.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.content.config import FusionConfig
from models.layers import Dropout


class GatedFusion(nn.Module):
    """Sum of learned projections of the modalities, each multiplied by a gate between 0 and 1.

    A gate depends on the projection of its modality. A modality whose features are all zeros is
    missing and adds nothing. In training, random modalities are hidden.
    """

    def __init__(self, widths: Mapping[str, int], dim: int, config: FusionConfig):
        """
        Args:
            widths: number of features of each modality, in the order in which they stand.
        """
        super().__init__()
        self.widths = list(widths.values())
        self.project = nn.ModuleList(nn.Linear(width, dim, bias=False) for width in self.widths)
        self.bias = nn.Parameter(torch.zeros(dim))
        learned = config.gates == "learned" and len(self.widths) > 1
        # The gates start almost open, so that the untrained module is a plain sum.
        self.gate_weight = nn.Parameter(torch.zeros(len(self.widths), dim)) if learned else None
        self.gate_bias = nn.Parameter(torch.full((len(self.widths),), 2.0)) if learned else None
        self.hide = Dropout(config.modality_dropout if len(self.widths) > 1 else 0)

    def forward(self, features: Tensor) -> Tensor:
        """Fuse content features: (..., F) -> (..., D)."""
        parts = features.split(self.widths, dim=-1)
        weights = self._weights(parts)
        out = self.bias.expand(*features.shape[:-1], -1)
        for number, (part, project) in enumerate(zip(parts, self.project, strict=True)):
            vectors = project(part)
            if self.gate_weight is not None and self.gate_bias is not None:
                logit = vectors @ self.gate_weight[number] + self.gate_bias[number]
                vectors = vectors * logit.sigmoid().unsqueeze(-1)
            out = out + (
                vectors if weights is None else vectors * weights[..., number : number + 1]
            )
        return out

    def _weights(self, parts: tuple[Tensor, ...]) -> Tensor | None:
        """Draw the weights of modality dropout: (..., M); None outside training.

        If all modalities of an item would be hidden, none is.
        """
        if not self.training or self.hide.dropped == 0:
            return None
        there = torch.stack([(part != 0).any(-1) for part in parts], dim=-1).float()
        drawn = self.hide(torch.ones_like(there))
        some = (drawn * there).amax(-1, keepdim=True) > 0
        return torch.where(some, drawn, 1.0)
