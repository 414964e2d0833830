"""Every ratio figure of live traffic: what is divided by what (docs/reference/figures.md).

Numerator and denominator are arrays over the rows of a level (`measure.py`), so each figure can be
cut by slice, source, position, arm, release and day, and each has a standard error over users.
To add a figure, add a Measure here, then run `python -m cli.reference` for the page.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from monitoring.traffic.join import Traffic
from monitoring.traffic.measure import Column, Measure
from monitoring.traffic.recording import RECORDING_MEASURES
from shortlist import columns as c

FALLBACKS = ("popularity", "recent_popularity", "recent", "explore_popular")
"""Sources that know nothing about the user."""


def _shown(name: str) -> Column:
    return lambda t: t.shown[name].to_numpy(dtype=float)


def _any(name: str) -> Column:
    return lambda t: (t.shown[name].to_numpy() > 0).astype(float)


def _per_request(name: str, *, flag: bool = False) -> Column:
    def total(t: Traffic) -> np.ndarray:
        summed = np.bincount(
            t.shown["request"], weights=t.shown[name].to_numpy(float), minlength=len(t.requests)
        )
        return (summed > 0).astype(float) if flag else summed

    return total


def _requests(name: str) -> Column:
    return lambda t: t.requests[name].to_numpy(dtype=float)


def _each_request(t: Traffic) -> np.ndarray:
    return np.ones(len(t.requests))


def _each_shown(t: Traffic) -> np.ndarray:
    return np.ones(len(t.shown))


def _first_of_day(t: Traffic) -> np.ndarray:
    return t.requests["first_of_day"].to_numpy(dtype=float)


def _back_within(days: int) -> Column:
    def returned(t: Traffic) -> np.ndarray:
        gap = t.requests["days_to_next"].to_numpy(dtype=float)
        return _first_of_day(t) * (np.nan_to_num(gap, nan=np.inf) <= days)

    return returned


def _list_mean(per_item: Callable[[Traffic], np.ndarray]) -> Column:
    """Mean of a value over the items of each list: (R,), NaN for an empty list."""

    def mean(t: Traffic) -> np.ndarray:
        request = t.shown["request"].to_numpy()
        total = np.bincount(request, weights=per_item(t), minlength=len(t.requests))
        count = np.bincount(request, minlength=len(t.requests))
        return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)

    return mean


def _self_information(t: Traffic) -> np.ndarray:
    counts = t.item_counts
    share = (counts + 1) / (counts[1:].sum() + len(counts) - 1)
    return -np.log2(share)[t.shown["item_idx"].to_numpy()]


def _percentile(t: Traffic) -> np.ndarray:
    counts = t.item_counts[1:]
    order = np.argsort(np.argsort(counts, kind="stable"), kind="stable")
    return np.concatenate([[0.0], (order + 1) / len(order)])[t.shown["item_idx"].to_numpy()]


def _diversity(t: Traffic) -> np.ndarray:
    """Mean of 1 - cosine over the pairs of a list, by categories.

    Sum over pairs of cosines = |sum of unit vectors|^2 - sum of their squared lengths.
    """
    units = t.catalogue.category_units[t.shown["item_idx"].to_numpy()]
    request, rows = t.shown["request"].to_numpy(), len(t.requests)
    if units.shape[1] == 0:
        return np.full(rows, np.nan)
    total = np.zeros((rows, units.shape[1]))
    np.add.at(total, request, units)
    squares = np.bincount(request, weights=(units**2).sum(1), minlength=rows)
    n = np.bincount(request, minlength=rows).astype(float)
    pairs = n * (n - 1)
    cosine = (total**2).sum(1) - squares
    return 1 - np.divide(cosine, pairs, out=np.full(rows, np.nan), where=pairs > 0)


def _fallback(t: Traffic) -> np.ndarray:
    known = t.requests["known"].to_numpy()[t.shown["request"].to_numpy()]
    return np.where(known, t.shown[c.SOURCE].isin(FALLBACKS), np.nan)


def _short(t: Traffic) -> np.ndarray:
    wanted = min(t.list_size, t.catalogue.num_items)
    short = t.requests["items"].to_numpy() < wanted
    return np.where(t.requests["first_position"].to_numpy() <= 1, short, np.nan)


def _sources(t: Traffic) -> np.ndarray:
    """Return (R,) the number of different sources in each list, NaN for an empty list."""
    request = t.shown["request"].to_numpy()
    pairs = np.unique(np.stack([request, pd.factorize(t.shown[c.SOURCE])[0]], axis=1), axis=0)
    count = np.bincount(pairs[:, 0], minlength=len(t.requests)).astype(float)
    return np.where(count > 0, count, np.nan)


def _feature_age(t: Traffic) -> np.ndarray:
    as_of = t.requests["user_as_of"].to_numpy(dtype=float)
    return (t.requests["at"].to_numpy() - as_of) / c.MICROSECONDS_PER_HOUR


_ALL = (
    Measure(
        "click_through",
        "click-through",
        "share",
        "shown items clicked / shown items",
        "high",
        "shown",
        _any("click"),
        _each_shown,
        "click",
    ),
    Measure(
        "taken_rate",
        "chosen items",
        "share",
        "shown items with a target event / shown items",
        "high",
        "shown",
        _any("taken"),
        _each_shown,
        "outcome",
    ),
    Measure(
        "request_click_through",
        "requests with a click",
        "share",
        "requests with at least one click / requests",
        "high",
        "request",
        _per_request("click", flag=True),
        _each_request,
        "click",
    ),
    Measure(
        "conversion",
        "conversion",
        "share",
        "requests with a purchase / requests",
        "high",
        "request",
        _per_request("purchase", flag=True),
        _each_request,
        "outcome",
    ),
    Measure(
        "cart_rate",
        "items put into the cart",
        "share",
        "clicked items put into the cart / clicked items",
        "high",
        "shown",
        lambda t: _any("add_to_cart")(t) * _any("click")(t),
        _any("click"),
        "outcome",
    ),
    Measure(
        "revenue_per_request",
        "revenue per request",
        "currency",
        "sum of purchase values / requests",
        "high",
        "request",
        _per_request("revenue"),
        _each_request,
        "outcome",
    ),
    Measure(
        "revenue_per_user",
        "revenue per user",
        "currency",
        "sum of purchase values / users",
        "high",
        "request",
        _per_request("revenue"),
        _each_request,
        "outcome",
        per_user=True,
    ),
    Measure(
        "watch_seconds",
        "watch time per request",
        "seconds",
        "sum of seconds watched / requests",
        "high",
        "request",
        _per_request("watch_seconds"),
        _each_request,
        "outcome",
    ),
    Measure(
        "watch_seconds_per_click",
        "watch time per click",
        "seconds",
        "sum of seconds watched / clicked items",
        "high",
        "shown",
        _shown("watch_seconds"),
        _any("click"),
        "outcome",
    ),
    Measure(
        "return_rate",
        "returned purchases",
        "share",
        "returned purchases / purchases",
        "low",
        "shown",
        _shown("returned"),
        _shown("purchase"),
        "product_return",
    ),
    Measure(
        "rating",
        "mean rating",
        "grade",
        "sum of ratings / ratings of shown items",
        "high",
        "shown",
        _shown("rating_sum"),
        _shown("rating"),
        "outcome",
    ),
    Measure(
        "survey",
        "mean survey answer",
        "grade",
        "sum of survey answers / answers",
        "high",
        "shown",
        _shown("survey_sum"),
        _shown("survey"),
        "outcome",
    ),
    Measure(
        "satisfaction",
        "mean grade (ratings and surveys)",
        "grade",
        "sum of ratings and survey answers / number of both",
        "high",
        "shown",
        lambda t: _shown("rating_sum")(t) + _shown("survey_sum")(t),
        lambda t: _shown("rating")(t) + _shown("survey")(t),
        "outcome",
    ),
    Measure(
        "hide_rate",
        "hidden items",
        "share",
        "shown items hidden / shown items",
        "low",
        "shown",
        _any("hide"),
        _each_shown,
        "click",
    ),
    Measure(
        "dislike_rate",
        "dislikes among opinions",
        "share",
        "dislikes / (likes + dislikes)",
        "low",
        "shown",
        _shown("dislike"),
        lambda t: _shown("like")(t) + _shown("dislike")(t),
        "outcome",
    ),
    Measure(
        "retention_1",
        "retention, day 1",
        "share",
        "user-days followed by activity on the next day / user-days",
        "high",
        "request",
        _back_within(1),
        _first_of_day,
        days=1,
    ),
    Measure(
        "retention_7",
        "retention, 7 days",
        "share",
        "user-days followed by activity in the next 7 days / user-days",
        "high",
        "request",
        _back_within(7),
        _first_of_day,
        days=7,
    ),
    Measure(
        "retention_28",
        "retention, 28 days",
        "share",
        "user-days followed by activity in the next 28 days / user-days",
        "high",
        "request",
        _back_within(28),
        _first_of_day,
        days=28,
    ),
    Measure(
        "session_depth",
        "requests per session",
        "requests",
        "requests / sessions (a pause of 30 minutes ends one)",
        "high",
        "request",
        _requests("session_depth"),
        lambda t: (_requests("session_depth")(t) > 0).astype(float),
    ),
    Measure(
        "requests_per_user",
        "requests per user",
        "requests",
        "requests / users",
        "high",
        "request",
        _each_request,
        _each_request,
        per_user=True,
    ),
    Measure(
        "diversity",
        "diversity within lists",
        "0 to 1",
        "mean over the pairs of a list of 1 - cosine of their categories",
        "high",
        "request",
        _diversity,
        _each_request,
    ),
    Measure(
        "novelty",
        "novelty",
        "bits",
        "mean over a list of -log2(item's share of past events)",
        "high",
        "request",
        _list_mean(_self_information),
        _each_request,
    ),
    Measure(
        "popularity_bias",
        "popularity of shown items",
        "percentile",
        "mean over a list of the items' popularity percentile",
        "low",
        "request",
        _list_mean(_percentile),
        _each_request,
    ),
    Measure(
        "new_item_share",
        "exposure of new items",
        "share",
        "shown items published in the last 7 days / shown items",
        "",
        "shown",
        _shown("is_new"),
        _each_shown,
    ),
    Measure(
        "new_item_click_through",
        "click-through of new items",
        "share",
        "clicked new items / shown new items",
        "high",
        "shown",
        lambda t: _any("click")(t) * _shown("is_new")(t),
        _shown("is_new"),
        "click",
    ),
    Measure(
        "skipped_stage_rate",
        "requests with a skipped stage",
        "share",
        "requests with a skipped stage / requests",
        "low",
        "request",
        lambda t: t.requests["skipped"].to_numpy() > 0,
        _each_request,
    ),
    Measure(
        "short_list_rate",
        "short lists",
        "share",
        "first pages with fewer items than asked / first pages",
        "low",
        "request",
        _short,
        _each_request,
    ),
    Measure(
        "unknown_user_rate",
        "requests of unknown users",
        "share",
        "requests without a state of the user / requests",
        "",
        "request",
        lambda t: ~t.requests["known"].to_numpy(),
        _each_request,
    ),
    Measure(
        "fallback_rate",
        "positions filled without personal sources",
        "share",
        "shown items from popularity / shown items, of known users",
        "low",
        "shown",
        _fallback,
        _each_shown,
    ),
    Measure(
        "sources_per_list",
        "sources per list",
        "sources",
        "sum of the number of different sources in a list / lists",
        "",
        "request",
        _sources,
        _each_request,
    ),
    Measure(
        "seen_item_rate",
        "items chosen before",
        "share",
        "shown items that the user chose in the 28 days before / shown items",
        "",
        "shown",
        _shown("seen"),
        _each_shown,
    ),
    Measure(
        "feature_age",
        "age of the users' features",
        "hours",
        "sum of (request time - as_of of the user's state) / requests of known users",
        "",
        "request",
        _feature_age,
        _each_request,
    ),
)
MEASURES: dict[str, Measure] = {measure.name: measure for measure in (*_ALL, *RECORDING_MEASURES)}
