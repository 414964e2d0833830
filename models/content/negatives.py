"""Negatives for content models: an item that nobody has used yet is no evidence against its
content.
"""

import torch
from torch import Tensor

from models.sampling import MixedNegatives


class UsedNegatives(MixedNegatives):
    """As MixedNegatives, with the uniform draws from items that have a positive somewhere.

    Drawn from the whole catalogue, new items are only ever negatives, and a content model with
    enough parameters learns them by heart: it never shows one (measured in a simulated world, see
    docs/decisions.md).
    """

    def __init__(self, item_counts: Tensor, *, num_uniform: int, generator: torch.Generator):
        super().__init__(item_counts, num_uniform=num_uniform, generator=generator)
        self.used = torch.nonzero(item_counts > 0).ravel()

    def draw(self, positives: Tensor) -> tuple[Tensor, Tensor]:
        """(M,) positives -> (M + num_uniform,) negatives and the log of their expected counts."""
        place = torch.randint(
            len(self.used),
            (self.num_uniform,),
            generator=self.generator,
            device=positives.device,
        )
        negatives = torch.cat([positives, self.used[place]])
        expected = len(positives) * self.share[negatives] + self.num_uniform / len(self.used)
        return negatives, expected.log().float()
