"""Settings of the vector indexes, under `[train] index` of a run's TOML file."""

from typing import Literal

from pydantic import Field

from shortlist.config import Config


class IndexConfig(Config):
    """Type and parameters of the indexes that sources with item vectors search (faiss_index.py)."""

    kind: Literal["auto", "exact", "hnsw"] = "auto"
    """Type of index. `auto`: exact up to `exact_up_to` items, HNSW above."""
    exact_up_to: int = Field(default=50_000, ge=0)
    neighbours: int = Field(default=32, ge=2)
    """Edges per item of the HNSW graph; each takes 8 bytes."""
    ef_construction: int = Field(default=200, ge=1)
    """Size of HNSW's candidate list while the graph is built."""
    ef_search: int = Field(default=256, ge=1)
    """Size of HNSW's candidate list in a search. A larger list raises recall and takes longer."""
    scan_up_to: float = Field(default=0.02, ge=0, le=1)
    """If at most this share of the items may be shown, all of them are compared exactly instead of
    searching in FAISS."""

    def is_exact(self, num_items: int) -> bool:
        """Return whether an index of `num_items` items is exact."""
        return self.kind == "exact" or (self.kind == "auto" and num_items <= self.exact_up_to)
