"""Settings of the vector indexes, under `[train] index` of a run's TOML file."""

import math
from typing import Literal

from pydantic import Field

from shortlist.config import Config

LISTS_PER_ROOT = 2.0
"""Number of IVF lists over the square root of the number of items. A search then compares a query
with about as many centroids as items."""


class IndexConfig(Config):
    """Type and parameters of the indexes that sources with item vectors search (faiss_index.py)."""

    kind: Literal["auto", "exact", "ivf", "hnsw"] = "auto"
    """Type of index. `auto`: exact up to `exact_up_to` items, IVF (inverted lists) above."""
    exact_up_to: int = Field(default=50_000, ge=0)
    """Number of items up to which `auto` searches exactly."""
    lists: int | None = Field(default=None, ge=1)
    """Number of inverted lists of IVF. None: 2 times the square root of the number of items."""
    probes: int | None = Field(default=None, ge=1)
    """Number of lists that an IVF search without filter reads. More lists raise recall and take
    longer. If a filter allows the share s of the items, 1/sqrt(s) times as many are read. None: the
    smallest power of 2 from 16 on that reaches `recall`."""
    recall: float = Field(default=0.98, gt=0, le=1)
    """Recall@100 that `probes` must reach for the means of random pairs of item vectors."""
    neighbours: int = Field(default=32, ge=2)
    """Edges per item of the HNSW graph; each takes 8 bytes."""
    ef_construction: int = Field(default=200, ge=1)
    """Size of HNSW's candidate list while the graph is built."""
    ef_search: int = Field(default=256, ge=1)
    """Size of HNSW's candidate list in a search. A larger list raises recall and takes longer."""
    scan_up_to: float = Field(default=0.015, ge=0, le=1)
    """If at most this share of the items may be shown, all of them are compared exactly instead of
    searching in FAISS."""

    def type_of(self, num_items: int) -> Literal["exact", "ivf", "hnsw"]:
        """Return the type of an index of `num_items` items."""
        if self.kind == "auto":
            return "exact" if num_items <= self.exact_up_to else "ivf"
        return self.kind

    def num_lists(self, num_items: int) -> int:
        """Return the number of IVF lists for `num_items` items."""
        wanted = self.lists or round(LISTS_PER_ROOT * math.sqrt(num_items))
        return max(1, min(wanted, num_items))
