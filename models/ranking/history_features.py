"""What a candidate has in common with the user's history: categories, values, years of publication,
prices, brands. A catalogue without prices or brands costs nothing for theirs.

Shapes: B requests, C candidates, L history, K categories, M the most recent items of a history.
"""

from dataclasses import replace

import numpy as np

from models.queries import Queries, newest
from shortlist.catalogue import Catalogue
from shortlist.columns import MICROSECONDS_PER_DAY

RECENT = 50
"""Newest items that these features look at; some only at the last 10."""
HALF_LIFE = 10
"""Half-life of the recent category profile, in history positions."""
MICROSECONDS_PER_YEAR = 365.25 * MICROSECONDS_PER_DAY


def history_features(queries: Queries, catalogue: Catalogue, candidates: np.ndarray) -> np.ndarray:
    """(B, C) item_idx -> (B, C, len(HISTORY_FEATURES)) float32; an empty history gives zeros."""
    queries = _newest(queries)
    history, lengths = queries.history, queries.lengths
    mine = unit_categories(catalogue, candidates)  # (B, C, K)
    long, recent, liked = _profiles(queries, catalogue)
    last = _last(history, lengths, RECENT)  # (B, M), newest first
    of_last = unit_categories(catalogue, last)  # (B, M, K)
    overlap = mine @ of_last.transpose(0, 2, 1)  # (B, C, M) cosines
    common = overlap > 0
    return np.stack(
        [
            np.broadcast_to(np.log1p(lengths)[:, None], candidates.shape),
            _cosine(mine, recent),
            _cosine(mine, long),
            (mine @ liked[..., None])[..., 0],
            common[..., :10].sum(-1) / np.maximum((last[:, None, :10] > 0).sum(-1), 1),
            common.sum(-1) / np.maximum((last[:, None] > 0).sum(-1), 1),
            overlap[..., :1].sum(-1),
            overlap[..., :10].max(-1, initial=0),
            overlap[..., :10].sum(-1) / np.maximum((last[:, None, :10] > 0).sum(-1), 1),
            _years_from(catalogue, candidates, history),
            _years_from(catalogue, candidates, last[:, :10]),
            *_prices(catalogue, candidates, history, last[:, :10]),
            *_brands(catalogue, candidates, last),
            *_distinct(of_last, candidates),
        ],
        axis=-1,
    ).astype(np.float32)


def _newest(queries: Queries) -> Queries:
    """The queries with the newest RECENT events of each history, in RECENT columns.

    The width is fixed because the last bit of a sum depends on it: with the longest history of a
    batch as the width, a request's features would depend on the other requests.
    """

    def cut(values: np.ndarray) -> np.ndarray:
        kept = newest(queries.history, values, max_history=RECENT)
        return np.pad(kept, ((0, 0), (0, RECENT - kept.shape[1])))

    return replace(queries, history=cut(queries.history), history_value=cut(queries.history_value))


def unit_categories(catalogue: Catalogue, item_idx: np.ndarray) -> np.ndarray:
    """(...) item_idx -> (..., K) float32 category vectors of length 1; zeros where an item has no
    category.
    """
    vectors = catalogue.category_matrix[item_idx]
    count = vectors.sum(-1, keepdims=True)  # 0/1 vectors: the squared length is the count
    return vectors / np.sqrt(np.maximum(count, 1))


def _profiles(queries: Queries, catalogue: Catalogue) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Category profiles of each history, (B, K) each: all alike, recent first, by value about the
    user's mean.
    """
    history, lengths, value = queries.history, queries.lengths, queries.history_value
    vectors = unit_categories(catalogue, history)
    real = (history > 0).astype(np.float32)
    age = lengths[:, None] - 1 - np.arange(history.shape[1])
    fresh = real * np.exp2(-np.maximum(age, 0) / HALF_LIFE).astype(np.float32)
    valued = real * np.isfinite(value)
    value = np.nan_to_num(value, posinf=0, neginf=0)
    count = np.maximum(valued.sum(1, keepdims=True), 1)
    mean = (value * valued).sum(1, keepdims=True) / count
    liking = (value - mean) * valued / count
    weights = np.stack([real, fresh, liking], axis=1)  # (B, 3, L)
    long, recent, liked = (weights @ vectors).transpose(1, 0, 2)
    return long, recent, liked


def _cosine(vectors: np.ndarray, profile: np.ndarray) -> np.ndarray:
    """(B, C, K) unit vectors, (B, K) -> (B, C)."""
    norm = np.linalg.norm(profile, axis=-1, keepdims=True)
    unit = np.divide(profile, norm, out=np.zeros_like(profile), where=norm > 0)
    return (vectors @ unit[..., None])[..., 0]


def _last(history: np.ndarray, lengths: np.ndarray, count: int) -> np.ndarray:
    """(B, L) -> (B, min(L, count)): the newest items, newest first, padded with 0 on the right."""
    position = lengths[:, None] - 1 - np.arange(min(history.shape[1], count))
    newest = np.take_along_axis(history, np.maximum(position, 0), axis=1)
    return np.where(position >= 0, newest, 0)


def _years_from(catalogue: Catalogue, candidates: np.ndarray, history: np.ndarray) -> np.ndarray:
    """(B, C) years from the mean publication of `history` to the candidate's; 0 where either is
    unknown.
    """
    published = catalogue.published_at[history]
    known = published != 0
    count = known.sum(1, keepdims=True)
    mean = published.sum(1, keepdims=True, dtype=np.float64) / np.maximum(count, 1)
    mine = catalogue.published_at[candidates]
    return np.where((mine != 0) & (count > 0), (mine - mean) / MICROSECONDS_PER_YEAR, 0)


def _prices(
    catalogue: Catalogue, candidates: np.ndarray, history: np.ndarray, last: np.ndarray
) -> list[np.ndarray]:
    """Five times (B, C): log price; the mean log price of the history, and by how much that of its
    last items is above it; by how much the candidate's is above each of the two. 0 where unknown.
    """
    price = catalogue.log_price
    if np.isnan(price).all():
        return [np.zeros(candidates.shape, dtype=np.float32)] * 5
    mine = price[candidates]
    usual, any_known = _mean_price(price[history])
    recent, any_recent = _mean_price(price[last])
    trend = np.where(any_recent, recent - usual, 0)
    return [
        np.nan_to_num(mine),
        np.broadcast_to(usual, mine.shape),
        np.broadcast_to(trend, mine.shape),
        np.where(any_known & np.isfinite(mine), np.nan_to_num(mine) - usual, 0),
        np.where(any_recent & np.isfinite(mine), np.nan_to_num(mine) - recent, 0),
    ]


def _mean_price(paid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B, L) log prices, NaN where unknown -> (B, 1) their mean, and whether there is one."""
    known = np.isfinite(paid)
    count = known.sum(1, keepdims=True)
    return np.where(known, paid, 0).sum(1, keepdims=True) / np.maximum(count, 1), count > 0


def _brands(catalogue: Catalogue, candidates: np.ndarray, last: np.ndarray) -> list[np.ndarray]:
    """Twice (B, C): share of the last items that are of the candidate's brand; whether the very
    last is. An unknown brand is nobody's.
    """
    brand = catalogue.brand_code
    if not brand.any():
        return [np.zeros(candidates.shape, dtype=np.float32)] * 2
    mine = brand[candidates][:, :, None]
    same = (mine > 0) & (mine == brand[last][:, None, :])  # (B, C, M)
    count = np.maximum((last > 0).sum(1, keepdims=True), 1)
    return [same.sum(-1) / count, same[..., :1].sum(-1)]


def _distinct(of_last: np.ndarray, candidates: np.ndarray) -> list[np.ndarray]:
    """Twice (B, C): how many categories the last 10 items have together, and the last 50."""
    has = of_last > 0  # (B, M, K)
    return [
        np.broadcast_to(has[:, :newest].any(1).sum(-1)[:, None], candidates.shape)
        for newest in (10, RECENT)
    ]
