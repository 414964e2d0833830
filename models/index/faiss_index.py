"""Inner-product search over item vectors: exact for small catalogues, HNSW for larger ones.

HNSW: Malkov & Yashunin 2018.

Shapes: B queries, D dim, N items; vectors have N + 1 rows and row 0 is padding.
"""

from pathlib import Path
from typing import Literal

import faiss
import numpy as np

from models.queries import Candidates
from shortlist.config import Config

SMALL_BATCH = 16
"""Batches of at most this many queries are searched on the calling thread only."""
ALL_THREADS = faiss.omp_get_max_threads()


class IndexConfig(Config):
    """Size limit of exact search, and the parameters of the HNSW graph."""

    exact_up_to: int = 50_000
    neighbours: int = 32
    ef_construction: int = 200
    ef_search: int = 256


class VectorIndex:
    """FAISS index whose ids are item_idx, so results need no translation."""

    def __init__(self, index: faiss.Index, kind: str):
        self.index = index
        self.kind: Literal["exact", "hnsw"] = "exact" if kind == "exact" else "hnsw"

    @classmethod
    def build(
        cls,
        vectors: np.ndarray,
        *,
        config: IndexConfig | None = None,
    ) -> "VectorIndex":
        """Index rows 1 to N of `vectors` (N + 1, D); row 0 is padding.

        Raises:
            ValueError: vectors are not two-dimensional or not finite, or there is no item.
        """
        config = config or IndexConfig()
        if vectors.ndim != 2:
            raise ValueError(f"index: vectors have shape {vectors.shape}, want (N + 1, D)")
        if not np.isfinite(vectors).all():
            rows = np.flatnonzero(~np.isfinite(vectors).all(1))
            raise ValueError(
                f"index: {len(rows)} vectors are not finite, the first is row {rows[0]}"
            )
        item_idx = np.arange(1, len(vectors))
        if len(item_idx) == 0:
            raise ValueError("index: there is no item to index")
        rows = np.ascontiguousarray(vectors[item_idx], dtype=np.float32)
        if len(item_idx) <= config.exact_up_to:
            kind, flat = "exact", faiss.IndexFlatIP(rows.shape[1])
        else:
            kind = "hnsw"
            flat = faiss.IndexHNSWFlat(rows.shape[1], config.neighbours, faiss.METRIC_INNER_PRODUCT)
            flat.hnsw.efConstruction = config.ef_construction
            flat.hnsw.efSearch = config.ef_search
        index = faiss.IndexIDMap2(flat)
        index.add_with_ids(rows, item_idx.astype(np.int64))
        return cls(index, kind)

    @property
    def dim(self) -> int:
        return self.index.d

    def search(
        self,
        queries: np.ndarray,
        k: int,
        *,
        exclude: list[np.ndarray] | None = None,
        blocked: np.ndarray | None = None,
    ) -> Candidates:
        """The k items with the largest inner product for each of (B, D) queries.

        Searches k + the longest exclusion, then filters; missing results are padding.

        Args:
            exclude: item_idx to leave out, one array per query.
            blocked: item_idx to leave out for all queries.

        Raises:
            ValueError: k is below 1, queries have another dimension than the index, or the number
                of exclusions is not the number of queries.
        """
        if k < 1:
            raise ValueError(f"index: k is {k}, want at least 1")
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ValueError(f"index: queries have shape {queries.shape}, want (B, {self.dim})")
        if exclude is not None and len(exclude) != len(queries):
            raise ValueError(
                f"index: {len(exclude)} exclusions for {len(queries)} queries, want one a query"
            )
        longest = max((len(items) for items in exclude), default=0) if exclude else 0
        longest += 0 if blocked is None else len(blocked)
        depth = min(k + longest, self.index.ntotal)
        score, item_idx = self._search(queries, depth)
        dropped = item_idx < 0
        if blocked is not None and len(blocked):
            dropped |= np.isin(item_idx, blocked)
        if exclude is not None:
            for row, items in enumerate(exclude):
                if len(items):
                    dropped[row] |= np.isin(item_idx[row], items)
        # A stable sort by 'dropped' moves the remaining items to the front, in order of score.
        order = np.argsort(dropped, axis=1, kind="stable")[:, :k]
        item_idx = np.where(dropped, 0, item_idx)
        score = np.where(dropped, np.float32(-np.inf), score)
        item_idx = np.take_along_axis(item_idx, order, axis=1)
        score = np.take_along_axis(score, order, axis=1)
        missing = k - item_idx.shape[1]
        if missing > 0:
            item_idx = np.pad(item_idx, ((0, 0), (0, missing)))
            score = np.pad(score, ((0, 0), (0, missing)), constant_values=-np.inf)
        return Candidates(item_idx=item_idx, score=score)

    def _search(self, queries: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
        """Raw FAISS search, -1 where nothing was found. Doesn't change the index."""
        params = None
        if self.kind == "hnsw":
            # Passed with the search: set on the graph, it would slow down all later searches.
            graph = faiss.downcast_index(self.index.index)
            params = faiss.SearchParametersHNSW(efSearch=max(graph.hnsw.efSearch, depth))
        # FAISS and torch each have an OpenMP pool. On a busy machine, waking FAISS's pool for one
        # query takes longer than the search. The setting applies to the calling thread only.
        faiss.omp_set_num_threads(1 if len(queries) <= SMALL_BATCH else ALL_THREADS)
        return self.index.search(np.ascontiguousarray(queries, np.float32), depth, params=params)

    def measure_recall(self, queries: np.ndarray, *, k: int = 100) -> float:
        """Recall@k of the index against exact search, averaged over (B, D) queries."""
        k = min(k, self.index.ntotal)
        found = self.search(queries, k).item_idx
        stored = faiss.vector_to_array(self.index.id_map)
        flat = faiss.downcast_index(self.index.index)
        rows = flat.reconstruct_n(0, self.index.ntotal)
        exact = faiss.IndexFlatIP(self.dim)
        exact.add(rows)
        wanted = stored[exact.search(np.ascontiguousarray(queries, np.float32), k)[1]]
        hits = [len(np.intersect1d(a, b)) for a, b in zip(found, wanted, strict=True)]
        return float(np.mean(hits) / k)

    def save(self, path: Path) -> None:
        """Write the index in FAISS's file format."""
        faiss.write_index(self.index, str(path))

    @classmethod
    def load(cls, path: Path) -> "VectorIndex":
        """Load an index; raises ValueError if the file is missing or not a FAISS index."""
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            reason = str(error).splitlines()[0][:200]
            raise ValueError(f"{path}: cannot be read as a FAISS index: {reason}") from None
        inner = faiss.downcast_index(index.index)
        return cls(index, "exact" if isinstance(inner, faiss.IndexFlat) else "hnsw")
