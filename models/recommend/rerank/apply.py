"""Re-ranks a batch of scored candidates, as configured.

Shapes: B requests, C candidates, P candidates in the pool.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.queries import Queries, Source
from models.recommend.cold_start.new_items import CONTENT
from models.recommend.rerank.calibration import calibrate, category_shares, interests
from models.recommend.rerank.config import CalibrationConfig, MmrConfig, vector_source
from models.recommend.rerank.item_vectors import ItemVectors
from models.recommend.rerank.mmr import mmr
from models.vector_source import VectorSource
from shortlist.items.catalogue import Catalogue


@dataclass(frozen=True)
class Reranker:
    """Re-orders the best candidates of each request by MMR or calibration."""

    config: MmrConfig | CalibrationConfig
    catalogue: Catalogue
    vectors: ItemVectors | None = None
    """Item vectors that MMR compares; None: it compares categories."""

    def order(
        self, queries: Queries, item_idx: np.ndarray, score: np.ndarray, *, k: int
    ) -> np.ndarray:
        """Return (B, C) positions into the candidates: the first k re-ranked, then the others.

        The first places don't depend on k: a longer list starts with the shorter one.

        Args:
            item_idx: (B, C), best first; padding (0) comes last.
            score: (B, C), the same order.
            k: number of places that must be final.
        """
        order = np.tile(np.arange(item_idx.shape[1]), (len(item_idx), 1))
        for row, places in enumerate(order):
            real = int((item_idx[row, : self.config.pool] > 0).sum())
            if real < 2:
                continue
            picked = self._picked(
                queries.history[row], item_idx[row, :real], score[row, :real], k=min(k, real)
            )
            left = np.ones(real, dtype=bool)
            left[picked] = False
            places[:real] = np.concatenate([picked, np.flatnonzero(left)])
        return order

    def _picked(
        self, history: np.ndarray, items: np.ndarray, score: np.ndarray, *, k: int
    ) -> np.ndarray:
        """Return the positions of the first k items of one request: (min(k, P),).

        Args:
            history: (L,) item_idx.
            items: (P,) item_idx of the pool, best first.
            score: (P,) their scores.
        """
        strength = self.config.strength
        if isinstance(self.config, MmrConfig):
            vectors = self.catalogue.category_matrix[items]
            if self.vectors is not None:
                vectors = self.vectors(items)
            return mmr(score, vectors, k=k, strength=strength)
        matrix = self.catalogue.category_matrix
        wanted = interests(history, matrix)
        shares = category_shares(matrix[items])
        return calibrate(score, shares, wanted, k=k, strength=strength)


def reranker_of(
    config: MmrConfig | CalibrationConfig | None,
    sources: Mapping[str, Source],
    catalogue: Catalogue,
    *,
    new_content: np.ndarray | None = None,
) -> Reranker | None:
    """Return the re-ranker that a config describes; None without a config.

    MMR compares categories if the source of its configured vectors is not in `sources`.

    Args:
        sources: the chain's sources by name.
        new_content: (V, D) content vectors of the items that were added after training.
    """
    if config is None:
        return None
    name = vector_source(config)
    source = sources.get(name) if name is not None else None
    vectors = None
    if isinstance(source, VectorSource):
        new = new_content if name == CONTENT else None
        vectors = ItemVectors(source.item_vectors, catalogue, new=new)
    return Reranker(config, catalogue, vectors)
