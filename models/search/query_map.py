"""Trains the part of the content model that maps the words of a query to item vectors.

Without it, a query is encoded as an item that has only a text. The trained map adds a linear
function of the text vector, learned from searches and the items that were chosen after them.

Shapes: P pairs, Q distinct queries, T text features, D dim, N items, K sampled items.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.queries import top_k
from models.search.pairs import MAX_PAIRS, SearchPairs
from models.training import OptimiserConfig, TrainingOptions, train
from shortlist.metrics import ndcg

MIN_PAIRS = 200
"""With fewer pairs, no map is trained."""
HELD_OUT = 0.1
"""Share of the newest pairs on which the number of epochs is chosen."""
BATCH_SIZE = 64
NUM_NEGATIVES = 1_024
OPTIMISER = OptimiserConfig(
    learning_rate=1e-2, weight_decay=0.01, warmup_steps=10, num_epochs=20, patience=4
)


def fit_query_map(
    pairs: SearchPairs,
    *,
    encode: Callable[[list[str]], tuple[np.ndarray, np.ndarray]],
    item_vectors: np.ndarray,
    temperature: float,
    options: TrainingOptions,
) -> tuple[nn.Linear | None, dict[str, Any]]:
    """Return the trained map and its figures; no map if it isn't better on the newest pairs.

    Args:
        encode: maps queries to their text features (Q, T) and their vectors without a map (Q, D).
        item_vectors: (N + 1, D) unit vectors, which stay as they are.

    Returns:
        A linear map from T to D, and its figures: `pairs`, `ndcg@10` on the held-out pairs and
        `ndcg@10 untrained`.
    """
    known = np.flatnonzero(pairs.item_idx > 0)
    pairs = SearchPairs([pairs.queries[i] for i in known], pairs.item_idx[known]).newest(MAX_PAIRS)
    if len(pairs) < MIN_PAIRS:
        return None, {"pairs": len(pairs)}
    texts, row = np.unique(np.array(pairs.queries), return_inverse=True)
    features, untrained = (torch.from_numpy(part) for part in encode([str(t) for t in texts]))
    model = _QueryMap(features, untrained, torch.from_numpy(item_vectors), temperature)
    split = len(pairs) - max(round(HELD_OUT * len(pairs)), 1)
    chosen = list(pairs.item_idx[split:, None])
    rng = options.rng("search pairs")

    def batches(_: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        order = rng.permutation(split)
        for start in range(0, split, BATCH_SIZE):
            of = order[start : start + BATCH_SIZE]
            drawn = rng.integers(1, len(item_vectors), size=NUM_NEGATIVES)
            yield tuple(torch.from_numpy(part) for part in (row[of], pairs.item_idx[of], drawn))  # pyright: ignore[reportReturnType]

    def validate() -> float:
        vectors = model(torch.from_numpy(row[split:])).numpy()
        found = []
        for start in range(0, len(vectors), BATCH_SIZE):  # to limit the memory of the scores
            scores = vectors[start : start + BATCH_SIZE] @ item_vectors.T
            scores[:, 0] = -np.inf
            found.append(top_k(scores, 10).item_idx)
        return float(np.mean(ndcg(np.concatenate(found), chosen, k=10)))

    with torch.no_grad():
        before = validate()
    train(
        model,
        batches,
        name="queries",
        loss=model.loss,
        config=OPTIMISER,
        validate=validate,
        options=replace(options, epochs=None, checkpoints=None, report=None),
        about={},
    )
    with torch.no_grad():
        after = validate()
    figures = {
        "pairs": len(pairs),
        "ndcg@10": round(after, 4),
        "ndcg@10 untrained": round(before, 4),
    }
    return (model.linear if after > before else None), figures


class _QueryMap(nn.Module):
    """The map with the data of its training; only `linear` is trained and kept."""

    def __init__(self, features: Tensor, untrained: Tensor, items: Tensor, temperature: float):
        super().__init__()
        self.features, self.untrained, self.items = features, untrained, items
        self.temperature = temperature
        self.linear = nn.Linear(features.shape[1], untrained.shape[1], bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the unit vectors of queries: (B,) -> (B, D)."""
        return F.normalize(self.untrained[rows] + self.linear(self.features[rows]), dim=-1)

    def loss(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Softmax over the chosen items of the batch and K uniformly drawn items."""
        rows, chosen, drawn = batch
        candidates = torch.cat([chosen, drawn])
        logits = self(rows) @ self.items[candidates].T / self.temperature
        same = candidates[None] == chosen[:, None]
        same[torch.arange(len(chosen)), torch.arange(len(chosen))] = False
        return F.cross_entropy(logits.masked_fill(same, -torch.inf), torch.arange(len(chosen)))
