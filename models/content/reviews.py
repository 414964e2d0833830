"""Review texts of users about items, up to the end of a training window."""

from dataclasses import dataclass

import numpy as np

MAX_CHARACTERS = 2_000
"""Longer reviews are cut."""


@dataclass(frozen=True)
class Reviews:
    """R reviews, oldest first."""

    item_idx: np.ndarray  # (R,) int64
    texts: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def newest(self, num_items: int, *, limit: int) -> list[list[str]]:
        """Return the newest `limit` reviews of each item, newest first: N + 1 lists."""
        out: list[list[str]] = [[] for _ in range(num_items + 1)]
        for item, text in zip(self.item_idx[::-1].tolist(), reversed(self.texts), strict=True):
            if 0 < item <= num_items and len(out[item]) < limit and text.strip():
                out[item].append(text[:MAX_CHARACTERS])
        return out
