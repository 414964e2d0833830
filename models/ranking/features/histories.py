"""Ranking features that compare candidates with the items of histories.

They compare categories, event values (such as ratings), publication years, prices and brands.

Price and brand features are not computed for a catalogue without prices or brands.

Shapes: B requests, C candidates, L history, K categories, M newest items of a history.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from models.queries import Queries
from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.items.catalogue import Catalogue

RECENT = 50
"""Number of newest items of a history that these features read."""
FEW = 10
"""Number of newest items that some of them read."""
HALF_LIFE = 10
"""Half-life of the recent category profile, in number of events."""
MICROSECONDS_PER_YEAR = 365.25 * MICROSECONDS_PER_DAY


@dataclass(frozen=True)
class HistoryPairs:
    """B histories with C candidates each, and the arrays that several features share."""

    queries: Queries  # histories cut to RECENT columns
    catalogue: Catalogue
    candidates: np.ndarray  # (B, C) item_idx

    @cached_property
    def mine(self) -> np.ndarray:
        """(B, C, K) unit category vectors of the candidates."""
        return self.catalogue.category_units[self.candidates]

    @cached_property
    def profiles(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The long-term, recent and value-weighted category profiles, (B, K) each."""
        return _profiles(self.queries, self.catalogue)

    @cached_property
    def last(self) -> np.ndarray:
        """(B, M) item_idx of the newest items, newest first."""
        return _last(self.queries.history, self.queries.lengths, RECENT)

    @cached_property
    def of_last(self) -> np.ndarray:
        """(B, M, K) unit category vectors of the newest items."""
        return self.catalogue.category_units[self.last]

    @cached_property
    def affinities(self) -> np.ndarray:
        """(B, C, 3) similarity of the candidates' categories to the three `profiles`.

        It is the cosine for the first two.
        """
        long, recent, liked = self.profiles
        return self.mine @ np.stack([_unit(long), _unit(recent), liked], axis=-1)

    @cached_property
    def overlap(self) -> np.ndarray:
        """(5, B, C) figures of the cosines between categories of candidates and newest items; see
        `overlap_figures`.
        """
        # Imported here, because importing numba takes a second that many commands don't need.
        from models.ranking.features.kernels import overlap_figures

        cosines = self.mine @ self.of_last.transpose(0, 2, 1)
        return overlap_figures(cosines, (self.last > 0).sum(1), FEW)

    @cached_property
    def prices(self) -> tuple[np.ndarray, ...]:
        """The five price features; see `_prices`."""
        return _prices(self.catalogue, self.candidates, self.queries.history, self.last[:, :FEW])

    @cached_property
    def brands(self) -> tuple[np.ndarray, ...]:
        """The two brand features; see `_brands`."""
        return _brands(self.catalogue, self.candidates, self.last)

    def distinct_categories(self, count: int) -> np.ndarray:
        """Return (B, 1): number of distinct categories of the newest `count` items."""
        return (self.of_last[:, :count] > 0).any(1).sum(-1)[:, None]


HISTORY: dict[str, Callable[[HistoryPairs], np.ndarray]] = {
    "history_length_log": lambda p: np.log1p(p.queries.lengths)[:, None],
    "category_affinity_recent": lambda p: p.affinities[..., 1],
    "category_affinity_long": lambda p: p.affinities[..., 0],
    "category_value_affinity": lambda p: p.affinities[..., 2],
    "category_share_10": lambda p: p.overlap[0],
    "category_share_50": lambda p: p.overlap[1],
    "category_overlap_last": lambda p: p.overlap[2],
    "category_overlap_max_10": lambda p: p.overlap[3],
    "category_overlap_mean_10": lambda p: p.overlap[4],
    "years_from_history": lambda p: _years_from(p.catalogue, p.candidates, p.queries.history),
    "years_from_last_10": lambda p: _years_from(p.catalogue, p.candidates, p.last[:, :FEW]),
    "price_log": lambda p: p.prices[0],
    "price_usual": lambda p: p.prices[1],
    "price_usual_trend": lambda p: p.prices[2],
    "price_from_history": lambda p: p.prices[3],
    "price_from_last_10": lambda p: p.prices[4],
    "brand_share_50": lambda p: p.brands[0],
    "brand_is_last": lambda p: p.brands[1],
    "distinct_categories_10": lambda p: p.distinct_categories(FEW),
    "distinct_categories_50": lambda p: p.distinct_categories(RECENT),
}
"""Feature name -> function that returns its values, (B, C) or (B, 1); in column order."""


def history_features(queries: Queries, catalogue: Catalogue, candidates: np.ndarray) -> np.ndarray:
    """Compute HISTORY features: (B, C) item_idx -> (B, C, len(HISTORY)) float32."""
    pairs = HistoryPairs(_newest(queries), catalogue, candidates)
    B, C = candidates.shape
    # Features first in memory: each is written in one piece.
    out = np.empty((B, len(HISTORY), C), dtype=np.float32)
    for column, feature in enumerate(HISTORY.values()):
        out[:, column] = feature(pairs)
    return out.swapaxes(1, 2)


def _newest(queries: Queries) -> Queries:
    """Return the queries with histories cut to the newest RECENT events and padded to RECENT.

    The width is fixed because the rounding of float sums depends on it. With the longest history of
    the batch as width, a request's features would depend on the other requests.
    """

    lengths = queries.lengths
    kept = np.minimum(lengths, RECENT)
    column = np.arange(RECENT)
    source = np.minimum((lengths - kept)[:, None] + column, queries.history.shape[1] - 1)
    real = column < kept[:, None]

    def cut(values: np.ndarray) -> np.ndarray:
        return np.where(real, np.take_along_axis(values, source, axis=1), values.dtype.type(0))

    return replace(queries, history=cut(queries.history), history_value=cut(queries.history_value))


def _profiles(queries: Queries, catalogue: Catalogue) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return three category profiles of each history, (B, K) each.

    A profile is a weighted sum of the category vectors of the history's items. The weights are:

    1. long-term: 1
    2. recent: 1, halved with every HALF_LIFE newer events
    3. value-weighted: (value of the event - mean value of the user) / number of values
    """
    history, lengths, value = queries.history, queries.lengths, queries.history_value
    vectors = catalogue.category_units[history]
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


def _unit(profile: np.ndarray) -> np.ndarray:
    """Return the profiles (B, K) divided by their lengths; zero vectors stay zero."""
    norm = np.linalg.norm(profile, axis=-1, keepdims=True)
    return np.divide(profile, norm, out=np.zeros_like(profile), where=norm > 0)


def _last(history: np.ndarray, lengths: np.ndarray, count: int) -> np.ndarray:
    """Return the newest items of (B, L) histories, newest first: (B, min(L, count)), 0 padding."""
    position = lengths[:, None] - 1 - np.arange(min(history.shape[1], count))
    newest = np.take_along_axis(history, np.maximum(position, 0), axis=1)
    return np.where(position >= 0, newest, 0)


def _years_from(catalogue: Catalogue, candidates: np.ndarray, history: np.ndarray) -> np.ndarray:
    """Return (B, C): years from the history's mean publication date to the candidate's.

    0 if either date is unknown.
    """
    published = catalogue.published_at[history]
    known = published != 0
    count = known.sum(1, keepdims=True)
    mean = published.sum(1, keepdims=True, dtype=np.float64) / np.maximum(count, 1)
    mine = catalogue.published_at[candidates]
    return np.where((mine != 0) & (count > 0), (mine - mean) / MICROSECONDS_PER_YEAR, 0)


def _prices(
    catalogue: Catalogue, candidates: np.ndarray, history: np.ndarray, last: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return the five price features; 0 where a price is unknown. All use log(1 + price).

    1. (B, C) price of the candidate
    2. (B, 1) mean price of the history
    3. (B, 1) mean price of the last items minus that of the history
    4. (B, C) price of the candidate minus the mean price of the history
    5. (B, C) price of the candidate minus the mean price of the last items
    """
    price = catalogue.log_price
    if not catalogue.has_prices:
        return (np.zeros(candidates.shape, dtype=np.float32),) * 5
    known = np.isfinite(price[candidates])
    mine = np.where(known, price[candidates], 0)
    usual, any_known = _mean_price(price[history])
    recent, any_recent = _mean_price(price[last])
    trend = np.where(any_recent, recent - usual, 0)
    return (
        mine,
        usual,
        trend,
        np.where(any_known & known, mine - usual, 0),
        np.where(any_recent & known, mine - recent, 0),
    )


def _mean_price(paid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (B, 1): the mean of (B, L) log prices (NaN: unknown), and whether any is known."""
    known = np.isfinite(paid)
    count = known.sum(1, keepdims=True)
    return np.where(known, paid, 0).sum(1, keepdims=True) / np.maximum(count, 1), count > 0


def _brands(
    catalogue: Catalogue, candidates: np.ndarray, last: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return the share of the last items with the candidate's brand, and whether the newest has it.

    (B, C) each. An unknown brand matches no brand.
    """
    brand = catalogue.brand_code
    if not catalogue.has_brands:
        return (np.zeros(candidates.shape, dtype=np.float32),) * 2
    mine, theirs = brand[candidates], brand[last]
    same = np.empty(mine.shape, dtype=np.int64)
    for row, codes, of_last in zip(same, mine, theirs, strict=True):
        # A count per brand takes C + M steps, a comparison of all pairs C * M.
        per_brand = np.bincount(of_last, minlength=catalogue.num_brands + 1)
        per_brand[0] = 0
        row[:] = per_brand[codes]
    count = np.maximum((last > 0).sum(1, keepdims=True), 1)
    return same / count, (mine > 0) & (mine == theirs[:, :1])
