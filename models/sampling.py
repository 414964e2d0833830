"""Negative samplers for sampled losses.

Shapes: N items, M positives of a batch.
"""

import torch
from torch import Tensor


def draw_uniform(
    shape: tuple[int, ...],
    *,
    num_items: int,
    generator: torch.Generator | None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return int64 item_idx of the given shape, drawn uniformly from 1 to N with replacement."""
    return torch.randint(1, num_items + 1, shape, generator=generator, device=device)


def draw_distinct(
    num_drawn: int,
    *,
    num_items: int,
    generator: torch.Generator | None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return min(num_drawn, N) distinct item_idx, drawn uniformly from 1 to N, ascending."""
    order = torch.randperm(num_items, generator=generator, device=device)
    return order[:num_drawn].sort().values + 1


class MixedNegatives:
    """Sampler whose negatives are the positives of the batch and uniform draws from the catalogue.

    In-batch negatives follow popularity; uniform negatives cover the long tail. The logQ correction
    needs the expected number of times that an item is among the negatives, which is the sum over
    both parts. Source: Yang et al. 2020, "Mixed Negative Sampling for Learning Two-tower Neural
    Networks".
    """

    def __init__(
        self,
        item_counts: Tensor,
        *,
        num_uniform: int,
        generator: torch.Generator,
        only_used: bool = False,
    ):
        """
        Args:
            item_counts: (N + 1,) number of training events of each item; row 0 is padding.
            num_uniform: number of uniform draws per batch.
            only_used: draw uniform negatives only from items with a training event. If new items
                are negatives but never positives, a content model learns never to recommend them
                (measured in the simulated shop, docs/decisions.md).
        """
        self.share = item_counts.double() / item_counts.sum().clamp(min=1)
        self.num_uniform = num_uniform
        self.generator = generator
        self.used = torch.nonzero(item_counts > 0).ravel() if only_used else None

    def draw(self, positives: Tensor) -> tuple[Tensor, Tensor]:
        """Return the negatives of a batch and the log of the expected count of each.

        (M,) item_idx -> (M + num_uniform,) item_idx, (M + num_uniform,) float32.
        """
        shape, device = (self.num_uniform,), positives.device
        num_items = len(self.share) - 1 if self.used is None else len(self.used)
        uniform = draw_uniform(shape, num_items=num_items, generator=self.generator, device=device)
        if self.used is not None:
            uniform = self.used[uniform - 1]
        negatives = torch.cat([positives, uniform])
        expected = len(positives) * self.share[negatives] + self.num_uniform / num_items
        return negatives, expected.log().float()
