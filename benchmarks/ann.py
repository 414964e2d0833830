"""`shortlist bench ann`: recall and speed of the vector index, without and with filters.

A filter allows only a share of the items. The vectors are random, clustered and of 64 dimensions.
Queries run one at a time on one thread. Their speed is compared with an exact scan of all vectors
without a filter, in the same run. Recall@100 is the share of the exact 100 best allowed items that
the index finds.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks._result import about_machine, report
from models.index.config import IndexConfig
from models.index.faiss_index import VectorIndex

DIM, K = 64, 100
SHARES = (1.0, 0.5, 0.1, 0.01, 0.001)
"""Shares of allowed items to measure."""
CLUSTER_SIZE = 500
"""Mean number of vectors per cluster."""
SPREAD = 0.35
"""Standard deviation inside a cluster; that of the cluster centres is 1."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=float, default=1e6)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    number = int(arguments.vectors)
    vectors = clustered(number + 1, seed=0)
    vectors[0] = 0
    started = time.perf_counter()
    index = VectorIndex.build(vectors, config=IndexConfig(exact_up_to=0))
    build_seconds = time.perf_counter() - started
    # A query is the mean of two item vectors, because a user's vector lies between items too.
    rng = np.random.default_rng(1)
    pairs = rng.integers(1, number + 1, size=(arguments.queries, 2))
    queries = vectors[pairs].mean(1).astype(np.float32)
    with threadpool_limits(limits=1):
        faiss.omp_set_num_threads(1)
        exact_ms = median_ms([lambda q=q: scan(vectors, q) for q in queries[:50, None]])
        rows = [measure(index, queries, share, exact_ms=exact_ms) for share in SHARES]
    result = {
        "command": f"shortlist bench ann --vectors {number} --queries {arguments.queries}",
        **about_machine(),
        "vectors": number,
        "dim": DIM,
        "build_seconds": round(build_seconds, 1),
        "exact_scan_ms": round(exact_ms, 3),
        "rows": rows,
    }
    report(result, arguments.out)


def clustered(number: int, *, seed: int) -> np.ndarray:
    """Return unit vectors around random cluster centres: (number, DIM) float32."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(number // CLUSTER_SIZE, 1), DIM)).astype(np.float32)
    vectors = rng.normal(scale=SPREAD, size=(number, DIM)).astype(np.float32)
    vectors += centres[rng.integers(len(centres), size=number)]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def scan(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return the indices of the K best of all vectors for one query (1, DIM), unordered."""
    scores = vectors @ query[0]
    return np.argpartition(-scores, K)[:K]


def measure(
    index: VectorIndex, queries: np.ndarray, share: float, *, exact_ms: float
) -> dict[str, Any]:
    """Return recall@100 and milliseconds per query if a random share of the items is allowed.

    Args:
        exact_ms: milliseconds of the exact scan, for comparison.
    """
    rng = np.random.default_rng(2)
    blocked = np.zeros(index.num_items + 1, dtype=bool)
    if share < 1:
        blocked[1:] = rng.random(index.num_items) >= share
    seen = [rng.integers(1, index.num_items + 1, size=50) for _ in queries]
    found = [
        index.search(query[None], K, exclude=[items], blocked=blocked).item_idx[0]
        for query, items in zip(queries, seen, strict=True)
    ]
    recalls = []
    for query, items, mine in zip(queries, seen, found, strict=True):
        allowed = ~blocked
        allowed[[0, *items]] = False
        rows = np.flatnonzero(allowed)
        best = rows[np.argsort(-(index.vectors[rows - 1] @ query), kind="stable")[:K]]
        recalls.append(len(np.intersect1d(best, mine)) / len(best))
    milliseconds = median_ms(
        [
            lambda query=query, items=items: index.search(
                query[None], K, exclude=[items], blocked=blocked
            )
            for query, items in zip(queries, seen, strict=True)
        ]
    )
    return {
        "allowed": share,
        "recall@100": round(float(np.mean(recalls)), 4),
        "ms": round(milliseconds, 3),
        "over_exact_scan": round(exact_ms / milliseconds, 1),
    }


def median_ms(calls: list[Any]) -> float:
    """Return the median milliseconds of the calls, after up to 20 untimed ones."""
    for call in calls[:20]:
        call()
    taken = []
    for call in calls:
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken)) * 1e3


if __name__ == "__main__":
    main()
