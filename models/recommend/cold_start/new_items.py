"""Candidates among the items that were added after training: the newest, and the best by content.

No model of the release (the served set of trained models) has rows for these items. Their item_idx
follow those of the release's N items: N + 1 and up. The content source can still score them,
because it encodes their text, categories, images and vectors.

Shapes: B requests, V new items, D dim, C candidates.
"""

import logging

import numpy as np

from models.content.fusion import ContentModel
from models.content.text import TextEncoderError
from models.queries import Candidates, Queries, top_k
from models.vector_source import VectorSource
from shortlist.items.catalogue import Catalogue

log = logging.getLogger("shortlist.recommend")

NEW = "new"
"""Name of the source that retrieves the newest items."""
CONTENT = "content"
"""Name of the source of the content model. It retrieves known items and new ones."""
AUDIENCE = "audience"
"""Name of the source that predicts the audience of new items from their attributes."""
SLOTS = 10
"""Number of newest items that become candidates of each request."""


class NewItems:
    """The items that were added after training: their order by age, and their content vectors."""

    def __init__(
        self, catalogue: Catalogue, *, num_known: int, content: VectorSource | None = None
    ):
        """
        Args:
            catalogue: the current catalogue; the release's items come first.
            num_known: N, number of items of the release.
            content: the release's content source; None if it has none.
        """
        self.num_known = num_known
        self.num_items = catalogue.num_items
        self.item_idx = np.arange(num_known + 1, catalogue.num_items + 1)
        # Newest first. Ties, such as items without a date, go to the largest item_idx, because
        # catalogues often number their items in the order in which they are added.
        published = catalogue.published_at[self.item_idx]
        self.by_age = self.item_idx[np.lexsort((-self.item_idx, -published))]
        self.content = content
        self.vectors = None if content is None else _encode(content, catalogue, self.item_idx)

    def newest(self, queries: Queries) -> Candidates:
        """Return the SLOTS newest allowed items of each request, with scores 0, -1, -2, ..."""
        found = np.zeros((len(queries), min(SLOTS, len(self.by_age))), dtype=np.int64)
        for number, row in enumerate(found):
            free = self.by_age[queries.allowed(number, self.num_items)[self.by_age]][: len(row)]
            row[: len(free)] = free
        rank = np.arange(found.shape[1], dtype=np.float32)
        return Candidates(found, np.where(found > 0, -rank, np.float32(-np.inf)))

    def by_content(self, queries: Queries, known: Queries, *, k: int) -> Candidates | None:
        """Return the k new items with the best content scores, by exact search.

        None if the new items have no content vectors.

        Args:
            queries: requests whose histories and exclusions include new items.
            known: the same requests without new items, which the content source doesn't know.
        """
        if self.content is None:
            return None
        return self.by_vectors(self.content.query_vectors(known), queries, k=k)

    def by_vectors(self, vectors: np.ndarray, queries: Queries, *, k: int) -> Candidates | None:
        """Return the k new items with the largest inner product with vectors (B, D), likewise."""
        if self.vectors is None:
            return None
        scores = vectors @ self.vectors.T
        for number, row in enumerate(scores):
            row[~queries.allowed(number, self.num_items)[self.item_idx]] = -np.inf
        best = top_k(scores, k)  # indices 0 to V - 1
        found = np.where(np.isneginf(best.score), 0, self.item_idx[best.item_idx])
        return Candidates(found, best.score)

    def content_scores(self, known: Queries, candidates: np.ndarray) -> np.ndarray:
        """Return content scores of new items: (B, C) item_idx -> (B, C); -inf for other items.

        Args:
            known: requests without new items, as in `by_content`.
        """
        new = candidates > self.num_known
        if self.content is None or self.vectors is None:
            return np.full(candidates.shape, -np.inf, dtype=np.float32)
        vectors = self.vectors[np.where(new, candidates - self.num_known - 1, 0)]
        scores = np.einsum("bd,bcd->bc", self.content.query_vectors(known), vectors)
        return np.where(new, scores, np.float32(-np.inf))

    def similar(self, item_idx: int, *, k: int) -> Candidates | None:
        """Return the k items, known or new, with the most similar content vectors: (1, k)."""
        if self.content is None or self.vectors is None:
            return None
        vectors = np.concatenate([self.content.item_vectors, self.vectors])
        length = np.linalg.norm(vectors, axis=1)
        length[length == 0] = 1
        scores = (vectors @ vectors[item_idx] / (length * length[item_idx]))[None]
        scores[:, [0, item_idx]] = -np.inf
        return top_k(scores, k)


def vectors_at(known: np.ndarray, new: np.ndarray | None, item_idx: np.ndarray) -> np.ndarray:
    """Return the vectors of items, trained or added after training: (C,) item_idx -> (C, D).

    Args:
        known: (N + 1, D) vectors of the trained items.
        new: (V, D) vectors of the items after them; None: there are none, and all items are known.
    """
    old = item_idx < len(known)
    out = known[np.where(old, item_idx, 0)]
    if new is not None and not old.all():
        out[~old] = new[item_idx[~old] - len(known)]
    return out


def best_of(first: Candidates, second: Candidates, *, k: int) -> Candidates:
    """Return the k best of two candidate lists whose scores are on the same scale."""
    item_idx = np.concatenate([first.item_idx, second.item_idx], axis=1)
    score = np.concatenate([first.score, second.score], axis=1)
    order = np.argsort(-score, axis=1, kind="stable")[:, :k]
    return Candidates(
        np.take_along_axis(item_idx, order, axis=1), np.take_along_axis(score, order, axis=1)
    )


def _encode(content: VectorSource, catalogue: Catalogue, item_idx: np.ndarray) -> np.ndarray | None:
    """Encode new items by the release's content model: (V, D) float32.

    None if the text encoder is not installed.
    """
    model = content.model
    assert isinstance(model, ContentModel)
    try:
        return model.encode_items(catalogue, item_idx)
    except TextEncoderError as error:
        log.warning("new items are not found by content: %s", error)
        return None
