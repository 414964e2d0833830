"""Builds FAISS indexes, and reads what an IVF index (inverted lists) stores.

Shapes: N items, D dim.
"""

import math
from typing import Any

import faiss
import numpy as np

from models.index.config import IndexConfig

SPARE_ITEMS = 4
"""An IVF search reads enough lists to compare at least this many items per item that is wanted."""
POINTS_PER_LIST = 64
"""Number of sampled items per IVF list that k-means reads."""
ALL_THREADS = faiss.omp_get_max_threads()
"""Number of threads that FAISS uses by default."""


def build_index(rows: np.ndarray, config: IndexConfig) -> faiss.Index:
    """Return an index of `rows` (N, D) float32, whose ids are 1 to N."""
    num_items, dim = rows.shape
    index_type = config.type_of(num_items)
    if index_type == "ivf":
        index = _trained_lists(rows, config.num_lists(num_items))
    elif index_type == "exact":
        index = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))
    else:
        graph = faiss.IndexHNSWFlat(dim, config.neighbours, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = config.ef_construction
        graph.hnsw.efSearch = config.ef_search
        index = faiss.IndexIDMap2(graph)
    item_idx = np.arange(1, num_items + 1, dtype=np.int64)
    index.add_with_ids(rows, item_idx)  # pyright: ignore[reportCallIssue]
    return index


def _trained_lists(rows: np.ndarray, num_lists: int) -> faiss.IndexIVFFlat:
    """Return an empty IVF index whose centroids are the k-means of a sample of `rows` (N, D)."""
    dim = rows.shape[1]
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, num_lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1  # no warning on stdout for small catalogues
    index.cp.max_points_per_centroid = POINTS_PER_LIST
    faiss.omp_set_num_threads(ALL_THREADS)
    index.train(rows)  # pyright: ignore[reportCallIssue]
    return index


def vectors_of_lists(index: faiss.IndexIVFFlat) -> np.ndarray:
    """Return the vectors of an IVF index in the order of item_idx: (N, D) float32."""
    vectors = np.empty((index.ntotal, index.d), dtype=np.float32)
    lists: Any = index.invlists
    for number in range(index.nlist):
        size = lists.list_size(number)
        if size:
            codes = faiss.rev_swig_ptr(lists.get_codes(number), size * index.code_size)
            ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
            vectors[ids - 1] = codes.view(np.float32).reshape(size, index.d)
    return vectors


def num_probes(index: faiss.IndexIVFFlat, depth: int, *, share: float) -> int:
    """Return the number of lists to read for `depth` items if a share of all items is allowed."""
    probes = math.ceil(index.nprobe / math.sqrt(share))
    enough = math.ceil(SPARE_ITEMS * depth / share / (index.ntotal / index.nlist))
    return min(max(probes, enough), index.nlist)


def inner_index(index: faiss.Index) -> Any:
    """Return the index of a type with data: an IndexIDMap2 wraps one."""
    index = faiss.downcast_index(index)
    return faiss.downcast_index(index.index) if isinstance(index, faiss.IndexIDMap2) else index
