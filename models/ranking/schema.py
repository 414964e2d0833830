"""The ranking schema: the names, the order and the categorical columns of what every ranker reads.

A feature is added in one place: its name here, its value in the block of the same name
(`features.py`, `history_features.py`, `search_features.py`, `repeat_features.py`,
`source_features.py`); `build` fails in the first test if the two disagree.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from shortlist.features.finalize import CONTEXT_FEATURES, ITEM_FEATURES, USER_FEATURES
from shortlist.features.profiles import PLACES

HISTORY_FEATURES = (
    "history_length_log",
    "category_affinity_recent",
    "category_affinity_long",
    "category_value_affinity",
    "category_share_10",
    "category_share_50",
    "category_overlap_last",
    "category_overlap_max_10",
    "category_overlap_mean_10",
    "years_from_history",
    "years_from_last_10",
    "price_log",
    "price_usual",
    "price_usual_trend",
    "price_from_history",
    "price_from_last_10",
    "brand_share_50",
    "brand_is_last",
    "distinct_categories_10",
    "distinct_categories_50",
)
CROSS_FEATURES = ("value_cross", "popularity_place", "recent_popularity_place")
SEARCH_FEATURES = ("search_match", "search_match_last")
REPEAT_FEATURES = (
    "own_events_log",
    "own_recent_activity",
    "own_days_since_last_log",
    "own_due_log",
    "own_share",
)
"""Of the candidate in the user's own history; only where repeats are allowed."""
SOURCE_FEATURES = ("score", "score_z", "place", "reciprocal_rank")
"""Of each source, in this order; the column of source s is `<s>:<feature>`."""
MERGE_FEATURES = ("num_sources", "reciprocal_rank_sum", "score_z_mean")


class SchemaError(ValueError):
    """A ranker and this code disagree about the ranking features; the message names the first that
    differs.
    """


@dataclass(frozen=True)
class RankingSchema:
    """What decides the columns: the candidate sources (in order), the user attributes with their
    codes, and the codes of where a request comes from.
    """

    sources: tuple[str, ...]
    profile: tuple[tuple[str, int], ...]
    """(attribute, number of codes with unknown) in the order of the profile encoder."""
    places: tuple[int, ...] = (1,) * len(PLACES)
    """Number of codes, with unknown, of each of PLACES."""
    repeats: bool = False
    """Whether what somebody consumed may be recommended to him again."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """F column names, in order."""
        return (
            *USER_FEATURES,
            *CONTEXT_FEATURES,
            *self.categorical,
            *ITEM_FEATURES,
            *HISTORY_FEATURES,
            *CROSS_FEATURES,
            *SEARCH_FEATURES,
            *(REPEAT_FEATURES if self.repeats else ()),
            *(f"{source}:{name}" for source in self.sources for name in SOURCE_FEATURES),
            *MERGE_FEATURES,
        )

    @cached_property
    def categorical(self) -> dict[str, int]:
        """Column name -> number of codes (0 is unknown) of the columns that hold codes."""
        profile = {f"profile_{name}": cardinality for name, cardinality in self.profile}
        return profile | {
            f"request_{name}": codes for name, codes in zip(PLACES, self.places, strict=True)
        }

    def __len__(self) -> int:
        return len(self.names)

    def to_json(self) -> dict[str, Any]:
        return {
            "sources": list(self.sources),
            "profile": [list(pair) for pair in self.profile],
            "places": list(self.places),
            "repeats": self.repeats,
            "names": list(self.names),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RankingSchema":
        """Read what `to_json` wrote.

        Raises:
            SchemaError: this code computes other columns than those that were written.
        """
        profile = tuple((str(name), int(codes)) for name, codes in data["profile"])
        schema = cls(
            tuple(data["sources"]),
            profile,
            tuple(data.get("places", (1, 1))),
            repeats=data.get("repeats", False),
        )
        written = tuple(data["names"])
        if schema.names != written:
            pairs = zip(schema.names, written, strict=False)
            here, there = next(
                ((a, b) for a, b in pairs if a != b),
                (f"{len(schema)} columns", f"{len(written)} columns"),
            )
            raise SchemaError(
                f"ranking schema: this code has {here!r} where the ranker was trained on {there!r};"
                " train again"
            )
        return schema
