"""Settings of the vector indexes, under `[train] index` of a run's TOML."""

from typing import Literal

from pydantic import Field

from shortlist.config import Config


class IndexConfig(Config):
    """Type and parameters of the indexes of vector sources (models/index/faiss_index.py)."""

    kind: Literal["auto", "exact", "hnsw"] = "auto"
    """auto: exact up to `exact_up_to` items, HNSW above."""
    exact_up_to: int = Field(default=50_000, ge=0)
    neighbours: int = Field(default=32, ge=2)
    """Edges per item of the HNSW graph; each takes 8 bytes."""
    ef_construction: int = Field(default=200, ge=1)
    """Candidates per step while the graph is built."""
    ef_search: int = Field(default=256, ge=1)
    """Candidates per step of a search: more cost time and raise the recall."""
    scan_up_to: float = Field(default=0.02, ge=0, le=1)
    """Share of allowed items up to which they are scanned exactly, instead of a search in FAISS."""

    def is_exact(self, num_items: int) -> bool:
        """Whether an index of so many items is exact."""
        return self.kind == "exact" or (self.kind == "auto" and num_items <= self.exact_up_to)
