"""Negative sampling for sampled losses, with the expected counts that the logQ correction needs."""

import torch
from torch import Tensor


def draw_uniform(
    shape: tuple[int, ...],
    *,
    num_items: int,
    generator: torch.Generator | None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw `shape` item_idx uniformly from 1 to N, with replacement."""
    return torch.randint(1, num_items + 1, shape, generator=generator, device=device)


def draw_distinct(
    num_drawn: int,
    *,
    num_items: int,
    generator: torch.Generator | None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw min(num_drawn, N) distinct item_idx uniformly from 1 to N; returned sorted."""
    order = torch.randperm(num_items, generator=generator, device=device)
    return order[:num_drawn].sort().values + 1


class MixedNegatives:
    """The positives of the batch together with uniform draws from the catalogue.

    In-batch negatives follow popularity; uniform negatives cover the long tail. The correction uses
    the expected count of both together, which removes the bias of each.
    Source: Yang et al. 2020, "Mixed Negative Sampling for Learning Two-tower Neural Networks".
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
            item_counts: (N + 1,) number of times each item is a positive; row 0 is padding.
            only_used: draw uniform negatives only from items that occur as a positive. If new items
                are negatives but never positives, a content model learns never to recommend them
                (measured in the simulated shop, docs/decisions.md).
        """
        self.share = item_counts.double() / item_counts.sum().clamp(min=1)
        self.num_uniform = num_uniform
        self.generator = generator
        self.used = torch.nonzero(item_counts > 0).ravel() if only_used else None

    def draw(self, positives: Tensor) -> tuple[Tensor, Tensor]:
        """(M,) positives -> (M + num_uniform,) negatives and the log of their expected counts."""
        shape, device = (self.num_uniform,), positives.device
        num_items = len(self.share) - 1 if self.used is None else len(self.used)
        uniform = draw_uniform(shape, num_items=num_items, generator=self.generator, device=device)
        if self.used is not None:
            uniform = self.used[uniform - 1]
        negatives = torch.cat([positives, uniform])
        expected = len(positives) * self.share[negatives] + self.num_uniform / num_items
        return negatives, expected.log().float()
