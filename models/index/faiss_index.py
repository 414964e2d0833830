"""Inner-product search over item vectors: exact for small catalogues, HNSW for larger ones.

HNSW: Malkov & Yashunin 2018.

Shapes: B queries, D dim, N items; vectors have N + 1 rows and row 0 is padding.
"""

from pathlib import Path
from typing import Literal

import faiss
import numpy as np

from models.index.config import IndexConfig
from models.queries import Candidates, no_candidates, top_k

SMALL_BATCH = 16
"""Number of queries up to which a search runs on the calling thread only."""
ALL_THREADS = faiss.omp_get_max_threads()
"""Number of threads that FAISS uses by default."""
SCAN_ALL = 0.1
"""If more than this share of the items is allowed, an exact scan scores all items and masks those
that are not allowed."""


class VectorIndex:
    """FAISS index over item vectors; its ids are item_idx."""

    def __init__(self, index: faiss.Index, config: IndexConfig):
        self.index = index
        self.config = config
        inner = faiss.downcast_index(index.index)
        self.kind: Literal["exact", "hnsw"] = (
            "exact" if isinstance(inner, faiss.IndexFlat) else "hnsw"
        )
        flat = inner if self.kind == "exact" else faiss.downcast_index(inner.storage)
        size = index.ntotal * index.d
        # A view of FAISS's memory, without a copy: valid only as long as `index` exists.
        self.vectors = faiss.rev_swig_ptr(flat.get_xb(), size).reshape(-1, index.d)
        """(N, D) float32: row i belongs to item_idx i + 1."""

    @classmethod
    def build(
        cls,
        vectors: np.ndarray,
        *,
        config: IndexConfig | None = None,
    ) -> "VectorIndex":
        """Build an index of rows 1 to N of `vectors` (N + 1, D); row 0 is padding.

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
        if config.is_exact(len(item_idx)):
            flat = faiss.IndexFlatIP(rows.shape[1])
        else:
            flat = faiss.IndexHNSWFlat(rows.shape[1], config.neighbours, faiss.METRIC_INNER_PRODUCT)
            flat.hnsw.efConstruction = config.ef_construction
            flat.hnsw.efSearch = config.ef_search
        index = faiss.IndexIDMap2(flat)
        index.add_with_ids(rows, item_idx.astype(np.int64))
        return cls(index, config)

    @property
    def num_items(self) -> int:
        return self.index.ntotal

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
        """Return the k allowed items with the largest inner product for each of (B, D) queries.

        If fewer are found, the rest is padding. If few items are allowed (see `_few`), they are
        scanned exactly. Otherwise FAISS skips items that are not allowed during its search.

        Args:
            exclude: item_idx that are not allowed, one array per query.
            blocked: (N + 1,) bool, True for items that are not allowed for any query.

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
                f"index: {len(exclude)} exclusions for {len(queries)} queries, want one per query"
            )
        queries = np.ascontiguousarray(queries, np.float32)
        if len(queries) == 1:
            return self._search_one(queries, k, None if exclude is None else exclude[0], blocked)
        exclude = exclude or [np.empty(0, dtype=np.int64)] * len(queries)
        allowed = None if blocked is None else ~blocked[1:]
        depth = k + max((len(items) for items in exclude), default=0)
        if allowed is not None and np.count_nonzero(allowed) <= self._few(depth):
            found = self._scan(queries, allowed, depth=depth)
        else:
            found = self._search(queries, depth, allowed=allowed)
        return _drop(*found, exclude=exclude, k=k)

    def _search_one(
        self, query: np.ndarray, k: int, exclude: np.ndarray | None, blocked: np.ndarray | None
    ) -> Candidates:
        """Return the result of `search` for one query (1, D).

        With one query, excluded items can be part of the filter. With several, they are dropped
        from a longer result.
        """
        allowed = np.ones(self.num_items, dtype=bool) if blocked is None else ~blocked[1:]
        if exclude is not None:
            allowed[exclude - 1] = False
        num_allowed = int(np.count_nonzero(allowed))
        if self.kind == "exact" or num_allowed <= self._few(k):
            score, item_idx = self._scan(query, allowed, depth=k)
        else:
            score, item_idx = self._search(query, k, allowed=allowed)
        found = item_idx[0] > 0
        out = Candidates(np.zeros((1, k), np.int64), np.full((1, k), -np.inf, np.float32))
        count = int(np.count_nonzero(found))
        out.item_idx[0, :count], out.score[0, :count] = item_idx[0, found], score[0, found]
        return out

    def _few(self, depth: int) -> float:
        """Return the number of allowed items up to which an exact scan is faster than FAISS."""
        return max(depth, self.config.scan_up_to * self.num_items)

    def _scan(
        self,
        queries: np.ndarray,
        allowed: np.ndarray | None,
        *,
        depth: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return scores and item_idx of the best allowed items by exact search, best first.

        Both are (B, M) with M = min(depth, number of scored items); item_idx is 0 where missing.

        Args:
            allowed: (N,) bool; None: all items.
            depth: number of items to return per query.
        """
        rows = None
        if allowed is None:
            scores = queries @ self.vectors.T
        elif np.count_nonzero(allowed) > SCAN_ALL * self.num_items:
            # Faster than copying the vectors of many allowed items.
            scores = queries @ self.vectors.T
            scores[:, ~allowed] = -np.inf
        else:
            rows = np.flatnonzero(allowed)
            scores = queries @ self.vectors[rows].T
        best = top_k(scores, max(depth, 1)) if scores.shape[1] else no_candidates(len(queries))
        place = best.item_idx if rows is None else rows[best.item_idx]
        return best.score, np.where(np.isneginf(best.score), 0, place + 1)

    def _search(
        self, queries: np.ndarray, depth: int, *, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return scores and item_idx (B, min(depth, N)) of a FAISS search; item_idx -1 if missing.

        Search parameters are passed with the call. If they were set on the graph, they would change
        all later searches.

        Args:
            allowed: (N,) bool; None: all items.
        """
        depth = min(depth, self.num_items)
        selector = None
        if allowed is not None:
            bits = np.packbits(np.concatenate([[False], allowed]), bitorder="little")
            selector = faiss.IDSelectorBitmap(bits)  # pyright: ignore[reportCallIssue]
        if self.kind == "hnsw":
            graph = faiss.downcast_index(self.index.index)
            params = faiss.SearchParametersHNSW(
                sel=selector, efSearch=max(graph.hnsw.efSearch, depth)
            )
        else:
            params = None if selector is None else faiss.SearchParameters(sel=selector)  # pyright: ignore[reportCallIssue]
        # On a busy machine, starting FAISS's OpenMP threads for one query takes longer than the
        # search. The setting applies to the calling thread only.
        faiss.omp_set_num_threads(1 if len(queries) <= SMALL_BATCH else ALL_THREADS)
        return self.index.search(queries, depth, params=params)

    def measure_recall(self, queries: np.ndarray, *, k: int = 100) -> float:
        """Return the recall@k of the index: the share of the k best items that it finds.

        The k best items are those of an exact search. The result is the mean over (B, D) queries.
        """
        k = min(k, self.index.ntotal)
        found = self.search(queries, k).item_idx
        one_by_one = np.ascontiguousarray(queries, np.float32)[:, None]
        wanted = [self._scan(query, None, depth=k)[1][0] for query in one_by_one]
        hits = [len(np.intersect1d(a, b)) for a, b in zip(found, wanted, strict=True)]
        return float(np.mean(hits) / k)

    def save(self, path: Path) -> None:
        """Write the index in FAISS's file format."""
        faiss.write_index(self.index, str(path))

    @classmethod
    def load(cls, path: Path, config: IndexConfig | None = None) -> "VectorIndex":
        """Load an index. Raises ValueError if the file is missing or not a FAISS index.

        Args:
            config: the config with which the index was built.
        """
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            reason = str(error).splitlines()[0][:200]
            raise ValueError(f"{path}: cannot be read as a FAISS index: {reason}") from None
        return cls(index, config or IndexConfig())


def _drop(
    score: np.ndarray,
    item_idx: np.ndarray,
    *,
    exclude: list[np.ndarray],
    k: int,
) -> Candidates:
    """Return (B, k) candidates from (B, depth) search results without excluded items.

    If fewer than k are left, the rest is padding on the right.
    """
    dropped = item_idx <= 0
    for row, items in enumerate(exclude):
        if len(items):
            dropped[row] |= np.isin(item_idx[row], items)
    # A stable sort by `dropped` moves the remaining items to the front and keeps their order.
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
