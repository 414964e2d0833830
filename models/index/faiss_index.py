"""Inner-product search over item vectors: exact for small catalogues, IVF for larger ones.

IVF (inverted lists): k-means groups the items into lists; a search reads the lists whose centroids
have the largest inner product with the query (Jegou, Douze & Schmid 2011). HNSW, a graph of
neighbours (Malkov & Yashunin 2018), can be chosen too. docs/decisions.md has their figures.

Shapes: B queries, D dim, N items; vectors have N + 1 rows and row 0 is padding.
"""

from pathlib import Path
from typing import Literal

import faiss
import numpy as np

from models.index.build import (
    ALL_THREADS,
    build_index,
    inner_index,
    num_probes,
    vectors_of_lists,
)
from models.index.config import IndexConfig
from models.index.exact import drop_excluded, is_in, scan
from models.queries import Candidates

SMALL_BATCH = 16
"""Number of queries up to which a search runs on the calling thread only."""
DROP_UP_TO = 0.05
"""If at most this share of the items is not allowed, a search ignores the filter, returns some more
items, and drops those that are not allowed."""
DROP_DEPTH = 1.2
"""Length of the list of such a search over the number of items that are wanted."""
SCAN_CELLS = 16_000_000
"""Maximum number of scores that `measure_recall` holds at a time."""
ROUNDING = 1e-5
"""Scores that differ by less than this share of the largest one count as equal."""
MIN_PROBES = 16
"""Smallest number of IVF lists per search if the configuration doesn't set it."""
TUNING_QUERIES = 64
"""Number of queries with which the number of IVF lists per search is chosen."""


class VectorIndex:
    """FAISS index over item vectors; its ids are item_idx."""

    def __init__(
        self, index: faiss.Index, config: IndexConfig, *, vectors: np.ndarray | None = None
    ):
        """
        Args:
            vectors: (N, D) float32, the indexed vectors in the order of item_idx; None: they are
                read from the index. An IVF index stores them by list, so they are copied.
        """
        self.index = index
        self.config = config
        inner = inner_index(index)
        if isinstance(inner, faiss.IndexIVFFlat):
            self.kind: Literal["exact", "ivf", "hnsw"] = "ivf"
            self.vectors = vectors_of_lists(inner) if vectors is None else vectors
        else:
            self.kind = "exact" if isinstance(inner, faiss.IndexFlat) else "hnsw"
            flat = inner if self.kind == "exact" else faiss.downcast_index(inner.storage)
            # A view of FAISS's memory, without a copy: valid only as long as `index` exists.
            pointer, size = flat.get_xb(), index.ntotal * index.d
            self.vectors = faiss.rev_swig_ptr(pointer, size).reshape(-1, index.d)
        """(N, D) float32: row i belongs to item_idx i + 1."""

    @classmethod
    def build(cls, vectors: np.ndarray, *, config: IndexConfig | None = None) -> "VectorIndex":
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
        if len(vectors) < 2:
            raise ValueError("index: there is no item to index")
        rows = np.ascontiguousarray(vectors[1:], dtype=np.float32)
        built = cls(build_index(rows, config), config, vectors=rows)
        if built.kind == "ivf":
            built._choose_probes()
        return built

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
        scanned exactly. If nearly all are (DROP_UP_TO), the search ignores the filter, and items
        that are not allowed are dropped. Otherwise FAISS skips them during its search.

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
            found = scan(queries, self.vectors, allowed, depth=depth)
        else:
            found = self._search(queries, depth, allowed=allowed, share=self._share(blocked))
        result = drop_excluded(*found, exclude=exclude, k=k)
        if self.kind != "exact":
            for row in np.flatnonzero(result.item_idx[:, -1] == 0):
                alone = self._search_one(queries[row, None], k, exclude[row], blocked)
                result.item_idx[row], result.score[row] = alone.item_idx[0], alone.score[0]
        return result

    def _search_one(
        self, query: np.ndarray, k: int, exclude: np.ndarray | None, blocked: np.ndarray | None
    ) -> Candidates:
        """Return the result of `search` for one query (1, D).

        With one query, excluded items can be part of the filter. With several, they are dropped
        from a longer result.
        """
        if self.kind != "exact":
            found = self._search_and_drop(query, k, exclude, blocked)
            if found is not None:
                return found
        allowed = np.ones(self.num_items, dtype=bool) if blocked is None else ~blocked[1:]
        if exclude is not None:
            allowed[exclude - 1] = False
        num_allowed = int(np.count_nonzero(allowed))
        if self.kind == "exact" or num_allowed <= self._few(k):
            score, item_idx = scan(query, self.vectors, allowed, depth=k)
        else:
            score, item_idx = self._search(query, k, allowed=allowed, share=self._share(blocked))
            if np.count_nonzero(item_idx > 0) < min(k, num_allowed):
                score, item_idx = scan(query, self.vectors, allowed, depth=k)
        found = item_idx[0] > 0
        out = Candidates(np.zeros((1, k), np.int64), np.full((1, k), -np.inf, np.float32))
        count = int(np.count_nonzero(found))
        out.item_idx[0, :count], out.score[0, :count] = item_idx[0, found], score[0, found]
        return out

    def _search_and_drop(
        self, query: np.ndarray, k: int, exclude: np.ndarray | None, blocked: np.ndarray | None
    ) -> Candidates | None:
        """Search without a filter and drop items that are not allowed.

        Returns:
            (1, k) candidates; None if too many items are not allowed, or fewer than k are left.
        """
        excluded = 0 if exclude is None else len(exclude)
        num_blocked = excluded + (0 if blocked is None else int(np.count_nonzero(blocked)))
        if num_blocked > DROP_UP_TO * self.num_items:
            return None
        depth = k + excluded if blocked is None else round(k * DROP_DEPTH) + excluded
        score, item_idx = (each[0] for each in self._search(query, depth, allowed=None))
        kept = item_idx > 0
        if blocked is not None:
            kept &= ~blocked[item_idx]
        if exclude is not None:
            kept &= ~is_in(item_idx, exclude)
        kept = np.flatnonzero(kept)[:k]
        if len(kept) < k:
            return None
        return Candidates(item_idx[None, kept], score[None, kept])

    def _few(self, depth: int) -> float:
        """Return the number of allowed items up to which an exact scan is faster than FAISS."""
        return max(depth, self.config.scan_up_to * self.num_items)

    def _choose_probes(self) -> None:
        """Set the number of IVF lists per search, which the index file stores."""
        inner = inner_index(self.index)
        inner.nprobe = min(self.config.probes or MIN_PROBES, inner.nlist)
        if self.config.probes is not None:
            return
        # A user's vector lies between the vectors of several items, like a mean of two.
        pairs = np.random.default_rng(0).integers(self.num_items, size=(TUNING_QUERIES, 2))
        queries = self.vectors[pairs].mean(1)
        while inner.nprobe < inner.nlist and self.measure_recall(queries) < self.config.recall:
            inner.nprobe = min(2 * inner.nprobe, inner.nlist)

    def _share(self, blocked: np.ndarray | None) -> float:
        """Return the share of the items that are not blocked; 1 if nearly all (DROP_UP_TO) are."""
        if blocked is None:
            return 1.0
        share = 1 - np.count_nonzero(blocked[1:]) / self.num_items
        return 1.0 if share >= 1 - DROP_UP_TO else max(share, 1 / self.num_items)

    def _search(
        self,
        queries: np.ndarray,
        depth: int,
        *,
        allowed: np.ndarray | None,
        share: float = 1.0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return scores and item_idx (B, min(depth, N)) of a FAISS search; item_idx -1 if missing.

        Search parameters are passed with the call. If they were set on the graph, they would change
        all later searches.

        Args:
            allowed: (N,) bool; None: all items.
            share: result of `_share`. It decides how many lists an IVF search reads.
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
        elif self.kind == "ivf":
            probes = num_probes(inner_index(self.index), depth, share=share)
            params = faiss.SearchParametersIVF(sel=selector, nprobe=probes)  # pyright: ignore[reportCallIssue]
        else:
            params = None if selector is None else faiss.SearchParameters(sel=selector)  # pyright: ignore[reportCallIssue]
        # On a busy machine, starting FAISS's OpenMP threads for one query takes longer than the
        # search. The setting applies to the calling thread only.
        faiss.omp_set_num_threads(1 if len(queries) <= SMALL_BATCH else ALL_THREADS)
        return self.index.search(queries, depth, params=params)

    def measure_recall(self, queries: np.ndarray, *, k: int = 100) -> float:
        """Return the recall@k of the index: the share of the k best items that it finds.

        The k best items are those of an exact search. An item with the score of the last of them
        counts as found: items without training events can have equal vectors. The result is the
        mean over (B, D) queries.
        """
        k = min(k, self.index.ntotal)
        found = self.search(queries, k).score
        queries = np.ascontiguousarray(queries, np.float32)
        step = max(1, SCAN_CELLS // self.num_items)
        parts = [queries[start : start + step] for start in range(0, len(queries), step)]
        wanted = np.concatenate([scan(part, self.vectors, None, depth=k)[0] for part in parts])
        least = wanted[:, -1:] - ROUNDING * np.abs(wanted).max(1, keepdims=True)
        return float((found >= least).mean())

    def save(self, path: Path) -> None:
        """Write the index in FAISS's file format."""
        faiss.write_index(self.index, str(path))

    @classmethod
    def load(
        cls,
        path: Path,
        config: IndexConfig | None = None,
        *,
        vectors: np.ndarray | None = None,
    ) -> "VectorIndex":
        """Load an index. Raises ValueError if the file is missing or not a FAISS index.

        Args:
            config: the config with which the index was built.
            vectors: (N + 1, D) float32, the vectors of which it was built, to save a copy.
        """
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            reason = str(error).splitlines()[0][:200]
            raise ValueError(f"{path}: cannot be read as a FAISS index: {reason}") from None
        rows = None
        if vectors is not None and vectors.shape == (index.ntotal + 1, index.d):
            rows = vectors[1:]
        return cls(index, config or IndexConfig(), vectors=rows)
