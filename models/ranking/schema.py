"""The ranking schema: names, order and categorical columns of the ranking features.

To add a feature, add a line to the table of its group, which defines name, order and value. The
tables are HISTORY in `history_features.py`, CROSS, SEARCH, REPEAT, SOURCE and MERGE. Also add a
description to shortlist/features/descriptions.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from models.ranking.features.cross import CROSS
from models.ranking.features.histories import HISTORY
from models.ranking.features.repeats import REPEAT
from models.ranking.features.searches import SEARCH
from models.ranking.features.sources import MERGE, SOURCE
from shortlist.features.finalize import CONTEXT_FEATURES, ITEM_FEATURES, USER_FEATURES
from shortlist.features.profiles import PLACES


class SchemaError(ValueError):
    """A ranker was trained on other features than this code computes.

    The message names the first difference.
    """


@dataclass(frozen=True)
class Columns:
    """Schema of features that this package doesn't compute, such as those of another data set."""

    names: tuple[str, ...]
    codes: tuple[tuple[str, int], ...] = ()
    """Columns that contain codes: (name, number of codes including unknown)."""

    @property
    def categorical(self) -> dict[str, int]:
        """Columns that contain codes: name -> number of codes, including 0 for unknown."""
        return dict(self.codes)

    def __len__(self) -> int:
        return len(self.names)

    def to_json(self) -> dict[str, Any]:
        return {"columns": list(self.names), "codes": [list(pair) for pair in self.codes]}


@dataclass(frozen=True)
class RankingSchema:
    """Columns of the ranking features, as determined by these settings."""

    sources: tuple[str, ...]
    """Candidate sources that have the SOURCE features, in column order."""
    profile: tuple[tuple[str, int], ...]
    """User attributes: (name, number of codes including unknown), in the order of the encoder."""
    places: tuple[int, ...] = (1,) * len(PLACES)
    """Number of codes, including unknown, of each of PLACES (surface, device)."""
    repeats: bool = False
    """Whether consumed items may be recommended again. If so, REPEAT features are included."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the F columns, in order."""
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
        """Columns that contain codes: name -> number of codes, including 0 for unknown."""
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
        """Return the schema that `to_json` wrote.

        Raises:
            SchemaError: this code computes other columns than the saved ones.
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


Schema = RankingSchema | Columns
"""Columns of the features that a ranker reads."""


def schema_from_json(data: Mapping[str, Any]) -> Schema:
    """Return the schema that `to_json` of one of the schema classes wrote.

    Raises:
        SchemaError: this code computes other columns than the saved ones.
    """
    if "columns" not in data:
        return RankingSchema.from_json(data)
    codes = tuple((str(name), int(count)) for name, count in data["codes"])
    return Columns(tuple(data["columns"]), codes)
