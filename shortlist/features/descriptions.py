"""Descriptions of all features that rankers read, as listed by `shortlist features`.

A test fails if a feature has no description here, or a description has no feature.
"""

from dataclasses import asdict, dataclass
from typing import Any

from shortlist.features.event_groups import EVENT_GROUPS, RATES, SPANS
from shortlist.features.finalize import ITEM_SERVICE, REQUEST_SERVICE, USUAL_GAPS, schema_hash
from shortlist.features.searches import MAX_SEARCHES

PLATFORM, RANKING = "platform", "ranking"


@dataclass(frozen=True)
class Feature:
    """One feature: a column of the ranking schema (the columns that a ranker reads)."""

    name: str
    meaning: str
    window: str
    default: str = "0"
    owner: str = PLATFORM
    dtype: str = "float32"


@dataclass(frozen=True)
class Group:
    """Features that are computed by one function."""

    name: str
    meaning: str
    features: tuple[Feature, ...]


ALL, SESSION = "all events before the request", "the current session (gaps under 30 minutes)"
LAST_SEARCHES = f"last {MAX_SEARCHES} searches"
TICK = "up to the pack's tick"


def _group_features(prefix: str, *, window: str) -> tuple[Feature, ...]:
    """Return the descriptions of event-group counts and smoothed rates for each of SPANS.

    The default of a rate (its value without events) is its prior.
    """
    halved = dict(zip(SPANS, ("", ", halved every 7 days"), strict=True))
    counts = (
        Feature(
            f"{prefix}_{group}{span}_log",
            f"log(1 + {group}{halved[span]}): {', '.join(types)}",
            window,
        )
        for span in SPANS
        for group, types in EVENT_GROUPS.items()
    )
    rates = (
        Feature(
            f"{prefix}_{rate.name}{span}", rate.meaning + halved[span], window, f"{rate.prior:g}"
        )
        for span in SPANS
        for rate in RATES
    )
    return *counts, *rates


USER = Group(
    "user",
    "finalize_user: the user's online state at the request; views user_stats, user_history,"
    " user_event_groups and user_searches",
    (
        Feature("user_events_log", "log(1 + target events)", ALL),
        Feature("user_recent_activity", "log(1 + events, halved every 7 days)", ALL),
        Feature("user_hours_since_last_log", "log(1 + hours since the last event)", ALL),
        Feature("user_days_since_first_log", "log(1 + days since the first event)", ALL),
        Feature("user_mean_value", "mean value (rating, price, seconds)", ALL),
        Feature(
            "user_value_trend",
            "mean of recent values (halved every 7 days) minus the mean of all values",
            ALL,
        ),
        Feature("user_session_depth_log", "log(1 + items in the session)", SESSION),
        Feature(
            "user_usual_gap_log",
            "log(1 + median hours between sessions)",
            f"last {USUAL_GAPS} gaps between sessions",
        ),
        *_group_features("user", window=ALL),
        Feature("user_searches_log", "log(1 + searches)", ALL),
        Feature("user_searches_1d_log", "log(1 + searches of the last day)", LAST_SEARCHES),
        Feature(
            "user_minutes_since_search_log", "log(1 + minutes since the last search)", LAST_SEARCHES
        ),
    ),
)
CONTEXT = Group(
    "context",
    "finalize_context: hour and weekday of the request; view context_trend, view request_time",
    (
        Feature("hour_sin", "sine of the time of day (period 24 h, UTC)", "the request"),
        Feature("hour_cos", "cosine of the time of day (period 24 h, UTC)", "the request"),
        Feature("weekday_sin", "sine of the day of the week (period 7 days)", "the request"),
        Feature("weekday_cos", "cosine of the day of the week (period 7 days)", "the request"),
        Feature("is_weekend", "1 on Saturday and Sunday (UTC)", "the request"),
        Feature(
            "context_activity_log",
            "log(1 + events of this surface, device and hour, halved every 7 days)",
            TICK,
        ),
    ),
)
ITEM = Group(
    "item",
    "finalize_items: the item's state in the feature pack; views item_state and item_event_groups",
    (
        Feature("item_events_log", "log(1 + target events)", TICK),
        Feature("item_count_1d_log", "log(1 + events of the last day)", "1 day, " + TICK),
        Feature("item_count_7d_log", "log(1 + events of the last 7 days)", "7 days, " + TICK),
        Feature("item_count_14d_log", "log(1 + events of the last 14 days)", "14 days, " + TICK),
        Feature("item_count_30d_log", "log(1 + events of the last 30 days)", "30 days, " + TICK),
        Feature(
            "item_trend",
            "log(1 + events of the last 7 days) minus log(1 + expected events of 7 days, from the"
            " mean of the 23 days before)",
            "30 days",
        ),
        Feature("item_mean_value", "mean value (rating, price, seconds)", TICK),
        Feature(
            "item_value_trend",
            "mean of recent values (halved every 7 days) minus the mean of all values",
            TICK,
        ),
        Feature("item_days_since_first_log", "log(1 + days since the first event)", TICK),
        Feature("item_days_since_last_log", "log(1 + days since the last event)", TICK),
        Feature("item_published_years_ago", "years from publication to the request", "catalogue"),
        *_group_features("item", window=TICK),
    ),
)
PLACE = Group(
    "place",
    "surface and device of the request as integer codes of the values in the log, 0 for unknown",
    (
        Feature("request_surface", "code of the surface", "the request"),
        Feature("request_device", "code of the device", "the request"),
    ),
)
LAST_10, LAST_50 = "last 10 items", "last 50 items"
HISTORY = Group(
    "history",
    "history_features: similarity of a candidate to the items of the user's history",
    (
        Feature("history_length_log", "log(1 + number of items)", LAST_50, owner=RANKING),
        Feature(
            "category_affinity_recent",
            "cosine of the candidate's categories with the history's, halved every 10 items",
            LAST_50,
            owner=RANKING,
        ),
        Feature(
            "category_affinity_long",
            "cosine of the candidate's categories with the history's",
            LAST_50,
            "0",
            RANKING,
        ),
        Feature(
            "category_value_affinity",
            "match of the candidate's categories with the categories to which the user gives"
            " values above the user's mean",
            LAST_50,
            owner=RANKING,
        ),
        Feature(
            "category_share_10",
            "share of items that share a category with the candidate",
            LAST_10,
            "0",
            RANKING,
        ),
        Feature(
            "category_share_50",
            "share of items that share a category with the candidate",
            LAST_50,
            "0",
            RANKING,
        ),
        Feature("category_overlap_last", "cosine of categories", "last item", "0", RANKING),
        Feature("category_overlap_max_10", "greatest cosine of categories", LAST_10, "0", RANKING),
        Feature("category_overlap_mean_10", "mean cosine of categories", LAST_10, "0", RANKING),
        Feature(
            "years_from_history",
            "years from the items' mean publication date to the candidate's",
            LAST_50,
            "0",
            RANKING,
        ),
        Feature(
            "years_from_last_10",
            "years from the items' mean publication date to the candidate's",
            LAST_10,
            "0",
            RANKING,
        ),
        Feature("price_log", "log(1 + price)", "catalogue", "0", RANKING),
        Feature("price_usual", "mean log price of the items", LAST_50, "0", RANKING),
        Feature(
            "price_usual_trend",
            "mean log price of the last 10 items minus price_usual",
            LAST_50,
            "0",
            RANKING,
        ),
        Feature(
            "price_from_history", "log price minus the items' mean log price", LAST_50, "0", RANKING
        ),
        Feature(
            "price_from_last_10", "log price minus the items' mean log price", LAST_10, "0", RANKING
        ),
        Feature("brand_share_50", "share of items of the same brand", LAST_50, "0", RANKING),
        Feature("brand_is_last", "1 if the brand is the same", "last item", "0", RANKING),
        Feature("distinct_categories_10", "number of distinct categories", LAST_10, "0", RANKING),
        Feature("distinct_categories_50", "number of distinct categories", LAST_50, "0", RANKING),
    ),
)
CROSS = Group(
    "cross",
    "products of user and item features, and relative ranks within the shortlist",
    (
        Feature("value_cross", "user's mean value x item's mean value", ALL, owner=RANKING),
        Feature(
            "popularity_place",
            "relative rank by events of all time, 0 best, near 1 worst",
            "the shortlist",
            "1",
            RANKING,
        ),
        Feature(
            "recent_popularity_place",
            "relative rank by events of the last 14 days, 0 best, near 1 worst",
            "the shortlist",
            "1",
            RANKING,
        ),
    ),
)
SEARCHED = Group(
    "search",
    "search_features: match of the item's title, brand and categories with the user's queries",
    (
        Feature(
            "search_match",
            "greatest share of a query's words found in the item, halved every day since the query",
            LAST_SEARCHES,
            owner=RANKING,
        ),
        Feature(
            "search_match_last",
            "share of the query's words found in the item",
            "last search",
            owner=RANKING,
        ),
    ),
)
SOURCE = Group(
    "source",
    "scores and ranks by each candidate source s, as columns s:<feature>",
    (
        Feature(
            "score",
            "score by the source; the lowest score of the request if it gives none",
            "the request",
            "0",
            RANKING,
        ),
        Feature(
            "score_z", "the score, standardised within the request", "the request", "0", RANKING
        ),
        Feature(
            "place",
            "relative rank by the source's score, 0 best, near 1 worst",
            "the shortlist",
            "1",
            RANKING,
        ),
        Feature("reciprocal_rank", "1 / rank in the source's list", "the request", "0", RANKING),
    ),
)
MERGE = Group(
    "merge",
    "combined ranks and scores of all sources",
    (
        Feature(
            "num_sources",
            "number of sources that retrieved the candidate",
            "the request",
            "0",
            RANKING,
        ),
        Feature("reciprocal_rank_sum", "sum of 1 / (60 + rank)", "the request", "0", RANKING),
        Feature("score_z_mean", "mean of the standardised scores", "the request", "0", RANKING),
    ),
)
GROUPS = (USER, CONTEXT, PLACE, ITEM, HISTORY, CROSS, SEARCHED, SOURCE, MERGE)


def described() -> dict[str, Any]:
    """Return all descriptions as {"schema", "services", "groups": [{"name", "meaning",
    "features"}]}.

    User attributes are not included: rankers read them as additional `profile_<attribute>` codes.
    """
    return {
        "schema": schema_hash(),
        "services": [REQUEST_SERVICE, ITEM_SERVICE],
        "groups": [asdict(group) for group in GROUPS],
    }
