"""Every feature a ranker reads, described in one place: what `shortlist features` shows.

A feature that is not described here, or a description without a feature, fails a test.
"""

from dataclasses import asdict, dataclass
from typing import Any

from shortlist.features.event_groups import KINDS, RATES, SPANS
from shortlist.features.finalize import ITEM_SERVICE, REQUEST_SERVICE, USUAL_GAPS, schema_hash
from shortlist.features.searches import MAX_SEARCHES

PLATFORM, RANKING = "platform", "ranking"


@dataclass(frozen=True)
class Feature:
    """One column of the ranking schema."""

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


ALL, SESSION = "all events before the request", "the running session (gaps under 30 minutes)"
LAST_SEARCHES = f"last {MAX_SEARCHES} searches"
TICK = "up to the pack's tick"


def _kinds(prefix: str, *, window: str) -> tuple[Feature, ...]:
    """Counts of every kind of event and every smoothed rate, over each of SPANS; an unknown rate is
    its prior.
    """
    often = {"": "", "_1d": ", halved every day"}
    halved = {span: often.get(span, f", halved every {span[1:-1]} days") for span in SPANS}
    counts = (
        Feature(
            f"{prefix}_{kind}{span}_log",
            f"log(1 + {kind}{halved[span]}): {', '.join(types)}",
            window,
        )
        for span in SPANS
        for kind, types in KINDS.items()
    )
    rates = (
        Feature(f"{prefix}_{rate.name}{span}", rate.says + halved[span], window, f"{rate.prior:g}")
        for span in SPANS
        for rate in RATES
    )
    return *counts, *rates


USER = Group(
    "user",
    "finalize_user: the user's online state at the request; views user_stats, user_history,"
    " user_kinds and user_searches",
    (
        Feature("user_events_log", "log(1 + target events)", ALL),
        Feature("user_recent_activity", "log(1 + events, halved every 7 days)", ALL),
        Feature("user_hours_since_last_log", "log(1 + hours since the last event)", ALL),
        Feature("user_days_since_first_log", "log(1 + days since the first event)", ALL),
        Feature("user_mean_value", "mean value (rating, price, seconds)", ALL),
        Feature(
            "user_value_trend", "recent values (halved every 7 days) above the mean of all", ALL
        ),
        Feature("user_session_depth_log", "log(1 + new items)", SESSION),
        Feature(
            "user_usual_gap_log",
            "log(1 + hours between sessions), their median",
            f"last {USUAL_GAPS} times between sessions",
        ),
        *_kinds("user", window=ALL),
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
        Feature("hour_sin", "hour of the day on a circle", "the request"),
        Feature("hour_cos", "hour of the day on a circle", "the request"),
        Feature("weekday_sin", "day of the week on a circle", "the request"),
        Feature("weekday_cos", "day of the week on a circle", "the request"),
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
    "finalize_items: the item's state in the feature pack; views item_state and item_kinds",
    (
        Feature("item_events_log", "log(1 + target events)", TICK),
        Feature("item_count_1d_log", "log(1 + events of the last day)", "1 day, " + TICK),
        Feature("item_count_7d_log", "log(1 + events of the last 7 days)", "7 days, " + TICK),
        Feature("item_count_14d_log", "log(1 + events of the last 14 days)", "14 days, " + TICK),
        Feature("item_count_30d_log", "log(1 + events of the last 30 days)", "30 days, " + TICK),
        Feature("item_trend", "log of 7 days' events over what 23 days before promise", "30 days"),
        Feature("item_mean_value", "mean value (rating, price, seconds)", TICK),
        Feature(
            "item_value_trend", "recent values (halved every 7 days) above the mean of all", TICK
        ),
        Feature("item_days_since_first_log", "log(1 + days since the first event)", TICK),
        Feature("item_days_since_last_log", "log(1 + days since the last event)", TICK),
        Feature("item_published_years_ago", "years from publication to the request", "catalogue"),
        *_kinds("item", window=TICK),
    ),
)
PLACE = Group(
    "place",
    "where the request comes from: codes of what the log has, 0 for unknown",
    (
        Feature("request_surface", "code of the surface", "the request"),
        Feature("request_device", "code of the device", "the request"),
    ),
)
LAST_10, LAST_50 = "last 10 items", "last 50 items"
HISTORY = Group(
    "history",
    "history_features: what a candidate has in common with the user's history",
    (
        Feature("history_length_log", "log(1 + items the models read)", LAST_50, owner=RANKING),
        Feature(
            "category_affinity_recent",
            "cosine of categories with the history, halved every 10 items",
            LAST_50,
            owner=RANKING,
        ),
        Feature(
            "category_affinity_long", "cosine of categories with the history", LAST_50, "0", RANKING
        ),
        Feature(
            "category_value_affinity",
            "categories against those the user values above his mean",
            LAST_50,
            owner=RANKING,
        ),
        Feature(
            "category_share_10", "share of items with a common category", LAST_10, "0", RANKING
        ),
        Feature(
            "category_share_50", "share of items with a common category", LAST_50, "0", RANKING
        ),
        Feature("category_overlap_last", "cosine of categories", "last item", "0", RANKING),
        Feature("category_overlap_max_10", "greatest cosine of categories", LAST_10, "0", RANKING),
        Feature("category_overlap_mean_10", "mean cosine of categories", LAST_10, "0", RANKING),
        Feature("years_from_history", "years from their mean publication", LAST_50, "0", RANKING),
        Feature("years_from_last_10", "years from their mean publication", LAST_10, "0", RANKING),
        Feature("price_log", "log(1 + price)", "catalogue", "0", RANKING),
        Feature("price_usual", "mean log price", LAST_50, "0", RANKING),
        Feature(
            "price_usual_trend", "mean log price of the last 10 above it", LAST_50, "0", RANKING
        ),
        Feature("price_from_history", "log price above their mean", LAST_50, "0", RANKING),
        Feature("price_from_last_10", "log price above their mean", LAST_10, "0", RANKING),
        Feature("brand_share_50", "share of items of the same brand", LAST_50, "0", RANKING),
        Feature("brand_is_last", "1 if of the same brand", "last item", "0", RANKING),
        Feature("distinct_categories_10", "categories together", LAST_10, "0", RANKING),
        Feature("distinct_categories_50", "categories together", LAST_50, "0", RANKING),
    ),
)
CROSS = Group(
    "cross",
    "products of user and item, and places within the shortlist",
    (
        Feature("value_cross", "user's mean value x item's mean value", ALL, owner=RANKING),
        Feature("popularity_place", "place by all events, 0 best", "the shortlist", "1", RANKING),
        Feature(
            "recent_popularity_place",
            "place by 14 days' events, 0 best",
            "the shortlist",
            "1",
            RANKING,
        ),
    ),
)
SEARCHED = Group(
    "search",
    "search_features: what title, brand and categories have in common with the user's queries",
    (
        Feature(
            "search_match",
            "greatest share of a query's words, halved every day since it was asked",
            LAST_SEARCHES,
            owner=RANKING,
        ),
        Feature("search_match_last", "share of its words", "last search", owner=RANKING),
    ),
)
SOURCE = Group(
    "source",
    "what each candidate source s says, as columns s:<feature>",
    (
        Feature(
            "score",
            "its score, the request's lowest where it has none",
            "the request",
            "0",
            RANKING,
        ),
        Feature(
            "score_z", "the score, standardised within the request", "the request", "0", RANKING
        ),
        Feature("place", "place by its score, 0 best", "the shortlist", "1", RANKING),
        Feature("reciprocal_rank", "1 / rank in its own list", "the request", "0", RANKING),
    ),
)
MERGE = Group(
    "merge",
    "what the sources say together",
    (
        Feature("num_sources", "how many found the candidate", "the request", "0", RANKING),
        Feature("reciprocal_rank_sum", "sum of 1 / (60 + rank)", "the request", "0", RANKING),
        Feature("score_z_mean", "mean of the standardised scores", "the request", "0", RANKING),
    ),
)
GROUPS = (USER, CONTEXT, PLACE, ITEM, HISTORY, CROSS, SEARCHED, SOURCE, MERGE)


def described() -> dict[str, Any]:
    """{"schema", "services", "groups": [{"name", "meaning", "features": [...]}]}; attributes of
    users come on top as `profile_<attribute>` codes, 0 for unknown.
    """
    return {
        "schema": schema_hash(),
        "services": [REQUEST_SERVICE, ITEM_SERVICE],
        "groups": [asdict(group) for group in GROUPS],
    }
