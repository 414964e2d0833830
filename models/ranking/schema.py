"""The ranking schema: the names, the order and the categorical columns of what every ranker reads.

To add a feature: a line in the table of its block, where name, order and value stand together
(HISTORY in `history_features.py`, CROSS, SEARCH, REPEAT, SOURCE, MERGE), and its description in
shortlist/features/descriptions.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from models.ranking.cross_features import CROSS
from models.ranking.history_features import HISTORY
from models.ranking.repeat_features import REPEAT
from models.ranking.search_features import SEARCH
from models.ranking.source_features import MERGE, SOURCE
from shortlist.features.finalize import CONTEXT_FEATURES, ITEM_FEATURES, USER_FEATURES
from shortlist.features.profiles import PLACES


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
            *HISTORY,
            *CROSS,
            *SEARCH,
            *(REPEAT if self.repeats else ()),
            *(f"{source}:{name}" for source in self.sources for name in SOURCE),
            *MERGE,
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
