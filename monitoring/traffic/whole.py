"""Figures over all lists together, which aren't sums over users: coverage, Gini, latency, gaps.

Their standard errors come from a jackknife over 20 groups of users.

Shapes: R requests, N items.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import gammaln

from monitoring.traffic.estimate import NOTHING, Estimate, UserSums, grouped_jackknife
from monitoring.traffic.join import DAY, Traffic, first_categories
from monitoring.traffic.measures import MEASURES
from shortlist.items.catalogue import Catalogue

GROUPS = 20
LISTS = 200
"""Number of lists for which coverage is stated, because coverage grows with their number."""
COVER_NEW_DAYS = 28
"""Days after its publication on which an item counts for the coverage of new items."""
MIN_ITEMS, MIN_CATEGORY = 20, 50
"""Smallest number of new items, and of items of a category, whose coverage is stated."""
MIN_GROUP_USERS = 30
"""User groups with fewer users are left out of the comparison of groups."""


@dataclass(frozen=True)
class WholeMeasure:
    """A figure of a whole set of requests; see `Measure` for the fields."""

    name: str
    title: str
    unit: str
    formula: str
    good: Literal["high", "low", ""]
    compute: Callable[[Traffic], float]


def list_counts(t: Traffic) -> np.ndarray:
    """Return (N + 1,) the number of lists that show each item."""
    pairs = t.shown[["request", "item_idx"]].drop_duplicates()
    return np.bincount(pairs["item_idx"], minlength=t.catalogue.num_items + 1)


def coverage(t: Traffic) -> float:
    """Return the expected share of the catalogue in LISTS random lists."""
    chance = chance_of_showing(t)
    return float("nan") if chance is None else float(chance[1:].sum() / t.catalogue.num_items)


def new_item_coverage(t: Traffic) -> float:
    """Return the expected share of the catalogue's new items in LISTS random lists.

    An item is new for COVER_NEW_DAYS after its publication. NaN with fewer than MIN_ITEMS new ones.
    """
    newest = int(t.requests["at"].max()) if len(t.requests) else 0
    published = t.catalogue.published_at
    new = (published > newest - COVER_NEW_DAYS * DAY) & (published <= newest)
    new &= published != 0
    chance = chance_of_showing(t)
    if chance is None or new.sum() < MIN_ITEMS:
        return float("nan")
    return float(chance[new].mean())


def category_coverages(t: Traffic) -> dict[str, float]:
    """Return the coverage of each large first category's items, divided by that of all items.

    Empty with fewer than LISTS lists.
    """
    chance = chance_of_showing(t)
    if chance is None or not chance.any():
        return {}
    names = first_categories(t.catalogue)
    whole = float(chance[1:].mean())
    return {
        name: float(chance[names == name].mean()) / whole for name in large_categories(t.catalogue)
    }


def large_categories(catalogue: Catalogue) -> list[str]:
    """Return the first categories with at least MIN_CATEGORY items, in alphabetical order."""
    names, counts = np.unique(first_categories(catalogue)[1:].astype(str), return_counts=True)
    return names[counts >= MIN_CATEGORY].tolist()


def chance_of_showing(t: Traffic) -> np.ndarray | None:
    """Return (N + 1,) the probability that LISTS random lists show each item (rarefaction).

    The expectation over random subsets is exact: an item shown in c of R lists is missing from n
    lists with probability C(R - c, n) / C(R, n) (Hurlbert 1971). None with fewer than LISTS lists.
    """
    total = len(t.requests)
    if total < LISTS:
        return None
    count = list_counts(t).astype(float)
    rest = total - count
    possible = rest >= LISTS
    safe = np.where(possible, rest, LISTS)
    log_missing = (
        gammaln(safe + 1)
        - gammaln(safe - LISTS + 1)
        - gammaln(total + 1)
        + gammaln(total - LISTS + 1)
    )
    chance = 1 - np.where(possible, np.exp(log_missing), 0.0)
    chance[0] = 0.0  # the empty position
    return chance


def gini(t: Traffic) -> float:
    shown = np.sort(np.bincount(t.shown["item_idx"], minlength=t.catalogue.num_items + 1)[1:])
    n, total = len(shown), shown.sum()
    if total == 0:
        return float("nan")
    return float((2 * np.arange(1, n + 1) - n - 1) @ shown / (n * total))


def personalisation(t: Traffic) -> float:
    """Return 1 - the mean share of items that two random lists have in common."""
    lists = len(t.requests)
    length = len(t.shown) / max(lists, 1)
    if lists < 2 or length == 0:
        return float("nan")
    count = list_counts(t)[1:].astype(float)
    shared = (count * (count - 1)).sum() / (lists * (lists - 1))
    return float(1 - shared / length)


def effective(column: str) -> Callable[[Traffic], float]:
    """Return the effective number of values of a column: exp of the entropy of exposure."""

    def number(t: Traffic) -> float:
        if not len(t.shown):
            return float("nan")
        share = t.shown[column].value_counts(normalize=True).to_numpy()
        share = share[share > 0]
        return float(np.exp(-(share * np.log(share)).sum()))

    return number


def latency(percent: int) -> Callable[[Traffic], float]:
    def percentile(t: Traffic) -> float:
        known = t.requests["milliseconds"].dropna().to_numpy()
        return float(np.percentile(known, percent)) if len(known) else float("nan")

    return percentile


def group_ratio(t: Traffic) -> float:
    """Return the lowest click-through of a user group, divided by that of all users.

    NaN if fewer than two groups have MIN_GROUP_USERS users.
    """
    top, bottom = MEASURES["click_through"].columns(t)
    request = t.shown["request"].to_numpy()
    group, user = t.requests["group"].to_numpy()[request], t.user_code[request]
    values = []
    for name in np.unique(group):
        sums = UserSums.of(*(column[group == name] for column in (user, top, bottom)))
        if len(sums.user) >= MIN_GROUP_USERS:
            values.append(sums.estimate().value)
    whole = UserSums.of(user, top, bottom).estimate().value
    return min(values) / whole if len(values) > 1 and whole > 0 else float("nan")


_ALL = (
    WholeMeasure(
        "requests", "requests", "count", "number of responses", "", lambda t: float(len(t.requests))
    ),
    WholeMeasure(
        "users",
        "users",
        "count",
        "number of users",
        "",
        lambda t: float(t.requests["user_id"].nunique()),
    ),
    WholeMeasure(
        "coverage",
        "coverage",
        "share",
        "expected share of the catalogue shown in 200 random lists",
        "high",
        coverage,
    ),
    WholeMeasure(
        "new_item_coverage",
        "coverage of new items",
        "share",
        "expected share of the items of the last 28 days that 200 random lists show",
        "high",
        new_item_coverage,
    ),
    WholeMeasure(
        "exposure_gini",
        "concentration of exposure",
        "0 to 1",
        "Gini coefficient of the number of times each item is shown",
        "low",
        gini,
    ),
    WholeMeasure(
        "personalisation",
        "diversity over users",
        "0 to 1",
        "1 - mean share of items that two random lists have in common",
        "high",
        personalisation,
    ),
    WholeMeasure(
        "effective_items",
        "effective number of items",
        "items",
        "exp(entropy of the exposure of items)",
        "high",
        effective("item_idx"),
    ),
    WholeMeasure(
        "effective_categories",
        "effective number of categories",
        "categories",
        "exp(entropy of the exposure of first categories)",
        "high",
        effective("category"),
    ),
    WholeMeasure(
        "effective_brands",
        "effective number of brands",
        "brands",
        "exp(entropy of the exposure of brands)",
        "high",
        effective("brand"),
    ),
    WholeMeasure(
        "group_ratio",
        "click-through of the worst user group",
        "ratio",
        "lowest click-through of a user group / click-through of all users",
        "high",
        group_ratio,
    ),
    WholeMeasure(
        "latency_p50",
        "latency, median",
        "milliseconds",
        "median of the response times in the serving log",
        "low",
        latency(50),
    ),
    WholeMeasure(
        "latency_p95",
        "latency, p95",
        "milliseconds",
        "95th percentile of the response times",
        "low",
        latency(95),
    ),
    WholeMeasure(
        "latency_p99",
        "latency, p99",
        "milliseconds",
        "99th percentile of the response times",
        "low",
        latency(99),
    ),
)
WHOLE_MEASURES: dict[str, WholeMeasure] = {measure.name: measure for measure in _ALL}


def whole_estimate(measure: WholeMeasure, t: Traffic) -> Estimate:
    """Compute a figure over all requests, with a standard error over groups of users."""
    if not len(t.requests):
        return NOTHING
    value = float(measure.compute(t))
    users = int(t.requests["user_id"].nunique())
    if measure.unit == "count" or np.isnan(value):
        return Estimate(value, 0.0 if measure.unit == "count" else np.nan, users, len(t.requests))
    group = (t.user_code * 2_654_435_761 % 2**32) % GROUPS  # mixed, so that codes don't cluster
    parts = [measure.compute(t.pick(group != g)) for g in range(GROUPS) if (group == g).any()]
    error = grouped_jackknife(np.array(parts, dtype=float), value)
    return Estimate(value, error, users, float(len(t.requests)))
