"""Ranking features. Training, evaluation and service all compute them with `ranking_features`.

The inputs are the queries (histories strictly before `at`), the item features, and the scores and
ranks of the candidate sources. Item features are as of their tick: they change only at fixed times,
such as each full hour. Labels are never an input.

Shapes: B requests, C candidates, L history, K categories, S sources, F features.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from models.queries import Queries
from models.ranking.features.cross import cross_features
from models.ranking.features.histories import RECENT, history_features
from models.ranking.features.repeats import repeat_features
from models.ranking.features.searches import search_features
from models.ranking.features.sources import source_features
from models.ranking.schema import RankingSchema
from shortlist.features.finalize import DAY_BUCKETS
from shortlist.features.pack import ItemState
from shortlist.features.profiles import PLACES, ProfileEncoder
from shortlist.items.catalogue import Catalogue

CHUNK_CELLS = 4_000_000
"""Maximum number of cells of the largest intermediate array: 32 MB in float64."""


def ranking_schema(
    sources: Sequence[str], *, profiles: ProfileEncoder, repeats: bool = False
) -> RankingSchema:
    """Return the schema of the ranking features.

    Args:
        sources: candidate sources whose scores the ranker reads, in column order.
        profiles: encoder of user attributes, surfaces and devices.
        repeats: whether consumed items may be recommended again.
    """
    codes = zip(profiles.names, profiles.cardinalities, strict=True)
    places = tuple(len(values) + 1 for values in profiles.places)
    return RankingSchema(tuple(sources), tuple(codes), places, repeats)


def ranking_features(
    queries: Queries,
    items: ItemState,
    *,
    catalogue: Catalogue,
    candidates: np.ndarray,
    source_scores: Mapping[str, np.ndarray],
    source_ranks: Mapping[str, np.ndarray],
    schema: RankingSchema,
) -> np.ndarray:
    """Return the features of candidates: (B, C, F) float32, all finite.

    Args:
        candidates: (B, C) item_idx, 0 for padding.
        source_scores: source -> (B, C) float32 scores of the candidates; NaN or -inf if missing.
        source_ranks: source -> (B, C) ranks (from 1) of the candidates in the source's list; 0 if a
            candidate is not in it.
        schema: the columns and their order. Sources of the schema without an entry in
            `source_scores` have no scores.
    """
    B, C = candidates.shape
    out = np.empty((B, C, len(schema)), dtype=np.float32)
    if B == 1:  # features first in memory, as the blocks are written and as trees read them
        out = np.empty((B, len(schema), C), dtype=np.float32).swapaxes(1, 2)
    K = catalogue.category_matrix.shape[1]
    widest = max(C * max(len(schema), DAY_BUCKETS, RECENT, K), RECENT * K, 1)
    step = max(1, CHUNK_CELLS // widest)
    for start in range(0, B, step):
        rows = slice(start, min(start + step, B))
        _fill(
            out[rows],
            queries if B == 1 else queries.take(rows),
            items,
            catalogue,
            candidates[rows],
            [_of_source(source_scores, name, rows) for name in schema.sources],
            [_of_source(source_ranks, name, rows) for name in schema.sources],
            repeats=schema.repeats,
        )
    return out


def _fill(
    out: np.ndarray,
    queries: Queries,
    items: ItemState,
    catalogue: Catalogue,
    candidates: np.ndarray,
    scores: list[np.ndarray | None],
    ranks: list[np.ndarray | None],
    *,
    repeats: bool,
) -> None:
    """Write all columns of a chunk of requests to `out`, in the order of `RankingSchema.names`."""
    item = items.features(candidates, published_at=catalogue.published_at)
    blocks = (
        queries.user[:, None],
        queries.context[:, None],
        queries.profile[:, None],
        _places(queries)[:, None],
        item,
        history_features(queries, catalogue, candidates),
        cross_features(queries, item, candidates),
        search_features(queries, catalogue, candidates),
        *([repeat_features(queries, candidates)] if repeats else []),
        source_features(candidates, scores, ranks),
    )
    column = 0
    for block in blocks:
        width = block.shape[-1]
        out[..., column : column + width] = block
        column += width
    assert column == out.shape[-1], f"{column} columns were built, the schema has {out.shape[-1]}"


def _places(queries: Queries) -> np.ndarray:
    """Return the codes of surface and device, (B, 2) int64; 0 for unknown."""
    if queries.places is None:
        return np.zeros((len(queries), len(PLACES)), dtype=np.int64)
    return queries.places


def _of_source(values: Mapping[str, np.ndarray], name: str, rows: slice) -> np.ndarray | None:
    given = values.get(name)
    return None if given is None else given[rows]
