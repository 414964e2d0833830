"""Candidate source that searches vectors: a query encoder, item vectors and an index of them.

Shapes: B queries, C candidates, D dim, N items.
"""

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file as load_weights
from safetensors.torch import save_file as save_weights
from torch import Tensor, nn

from models.data import Validation
from models.index.config import IndexConfig
from models.index.faiss_index import VectorIndex
from models.layers import ItemEmbedding
from models.queries import Candidates, OncePerBatch, Queries, mask_left_out, top_k
from models.training import TrainingHistory
from shortlist.config import Config
from shortlist.features.pack import ItemState
from shortlist.items.catalogue import Catalogue
from shortlist.metrics import ndcg

CONFIG, WEIGHTS, ITEMS, INDEX = (
    "config.json",
    "model.safetensors",
    "items.safetensors",
    "index.faiss",
)


class SourceError(ValueError):
    """A saved source doesn't fit the catalogue or this code; the message names the folder."""


class VectorModel(Protocol):
    """A module that `VectorSource` can use. Scores are dot products of query and item vectors."""

    def encode(self, queries: Queries) -> Tensor:
        """Return query vectors, (B, D)."""
        ...

    def item_vectors(self) -> Tensor:
        """Return item vectors, (N + 1, D); row 0 is ignored."""
        ...

    def sizes(self) -> dict[str, Any]:
        """Return the constructor arguments that loading needs beside the Config, as JSON."""
        ...

    def one_query(self) -> Callable[[Queries], np.ndarray] | None:
        """Return a faster `encode` of a single query (models/one_query.py): (D,) float32.

        None if there is none.
        """
        ...


class VectorSource:
    """Candidate source that retrieves the items with the largest inner product with the query."""

    def __init__(
        self,
        name: str,
        *,
        config: Config,
        model: VectorModel,
        item_vectors: np.ndarray,
        index: VectorIndex,
        history: TrainingHistory | None = None,
    ):
        """
        Args:
            model: a module in evaluation mode.
            item_vectors: (N + 1, D) float32, the same as in `index`.
            history: summary of the training run; None for a loaded source, and after an increment
                without a new example.
        """
        self.name = name
        self.config = config
        self.model = model
        self.item_vectors = item_vectors
        self.index = index
        self.history = history
        self.notes: dict[str, Any] = {}
        """Further figures of the training, as JSON, for the run's report."""
        self.query_vectors = OncePerBatch(self._query_vectors)
        embed = getattr(model, "embed", None)
        if isinstance(embed, ItemEmbedding):
            embed.freeze()

    @classmethod
    def build(
        cls,
        name: str,
        *,
        config: Config,
        model: VectorModel,
        history: TrainingHistory | None,
        index: IndexConfig | None = None,
    ) -> "VectorSource":
        """Build a source from a trained module: compute its item vectors and index them."""
        item_vectors = vectors_of(model)
        return cls(
            name,
            config=config,
            model=model,
            item_vectors=item_vectors,
            index=VectorIndex.build(item_vectors, config=index),
            history=history,
        )

    def _query_vectors(self, queries: Queries) -> np.ndarray:
        """Encode queries: (B, D) float32."""
        if len(queries) == 1 and self._one_query is not None:
            return self._one_query(queries)[None]
        with torch.inference_mode():
            return self.model.encode(queries).cpu().numpy()

    @cached_property
    def _one_query(self) -> Callable[[Queries], np.ndarray] | None:
        return self.model.one_query()

    def retrieve(self, queries: Queries, items: ItemState, *, k: int) -> Candidates:
        """Return the k best items of the index, without seen and blocked items."""
        return self.index.search(
            self.query_vectors(queries), k, exclude=queries.seen, blocked=queries.blocked
        )

    def score(self, queries: Queries, items: ItemState, candidates: np.ndarray) -> np.ndarray:
        """Score candidates: (B, C) item_idx -> (B, C) float32 inner products; padding is -inf."""
        vectors = self.item_vectors[candidates]
        scores = np.einsum("bd,bcd->bc", self.query_vectors(queries), vectors)
        return np.where(candidates > 0, scores, np.float32(-np.inf))

    def similar(self, item_idx: np.ndarray, k: int) -> Candidates:
        """Return the k items with the largest cosine similarity to each of (S,) items.

        The search is exact; an item is not similar to itself.
        """
        scores = self.item_vectors[item_idx] @ self.item_vectors.T
        scores /= self._lengths[item_idx, None] * self._lengths
        scores[:, 0] = -np.inf
        scores[np.arange(len(item_idx)), item_idx] = -np.inf
        return top_k(scores, k)

    @cached_property
    def _lengths(self) -> np.ndarray:
        """(N + 1,) float32 norms of the item vectors; 1 for zero vectors, against division by 0."""
        lengths = np.linalg.norm(self.item_vectors, axis=1)
        return np.where(lengths > 0, lengths, 1)

    def save(self, folder: Path) -> None:
        about = {
            "config": self.config.model_dump(mode="json"),
            "sizes": self.model.sizes(),
            "index": self.index.config.model_dump(mode="json"),
        }
        (folder / CONFIG).write_text(json.dumps(about, indent=1))
        assert isinstance(self.model, nn.Module)
        save_weights(self.model.state_dict(), folder / WEIGHTS)
        save_arrays({"item_vectors": self.item_vectors}, folder / ITEMS)
        self.index.save(folder / INDEX)


def load_source(
    name: str,
    folder: Path,
    catalogue: Catalogue,
    *,
    build: Callable[[dict[str, Any], dict[str, Any]], tuple[Config, VectorModel]],
) -> VectorSource:
    """Return the source that `VectorSource.save` wrote to `folder`.

    Args:
        build: maps saved config and saved sizes to the parsed config and an untrained module.

    Raises:
        SourceError: the source was trained on a catalogue of another size, or saved by another
            version of the code.
    """
    about = json.loads((folder / CONFIG).read_text())
    item_vectors = load_arrays(folder / ITEMS)["item_vectors"]
    if len(item_vectors) != catalogue.num_items + 1:
        raise SourceError(
            f"{folder}: {name} was trained on {len(item_vectors) - 1} items,"
            f" this catalogue has {catalogue.num_items}; want the catalogue of its release"
        )
    config, model = build(about["config"], about["sizes"])
    assert isinstance(model, nn.Module)
    try:
        model.load_state_dict(load_weights(folder / WEIGHTS))
    except RuntimeError as error:
        raise SourceError(
            f"{folder}: {name} was saved by another version of this code"
            f" ({str(error).splitlines()[1].strip()[:120]}); train a new release"
        ) from None
    model.eval()
    return VectorSource(
        name,
        config=config,
        model=model,
        item_vectors=item_vectors,
        index=VectorIndex.load(
            folder / INDEX,
            IndexConfig.model_validate(about.get("index", {})),
            vectors=item_vectors,
        ),
    )


def vectors_of(model: VectorModel) -> np.ndarray:
    """Return the item vectors of a module: (N + 1, D) float32, row 0 zeros."""
    with torch.no_grad():
        vectors = model.item_vectors().cpu().numpy().copy()
    vectors[0] = 0
    return vectors


def exact_ndcg(model: VectorModel, validation: Validation, *, k: int = 10) -> float:
    """Return the validation nDCG@k of a module, by exact search.

    During training, there is no index of the item vectors.
    """
    vectors = vectors_of(model)

    def judge(queries: Queries, items: ItemState, relevant: list[np.ndarray]) -> np.ndarray:
        scores = model.encode(queries).cpu().numpy() @ vectors.T
        return ndcg(top_k(mask_left_out(scores, queries), k).item_idx, relevant, k=k)

    return validation.mean_per_user(judge)
