"""Encodes user attributes and the request's surface and device as integer codes; 0 is unknown."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

MIN_COUNT = 2
"""A value needs at least this many occurrences to get a code."""
MAX_VALUES = 100
"""An attribute with more values than this gets no codes, because it identifies single users."""
PLACES = ("surface", "device")
"""Request properties, in the order of the first parts of a context id."""


@dataclass(frozen=True)
class ProfileEncoder:
    """Code tables of user attributes and request properties.

    Attribute `names[i]` has the values `values[i]`; property PLACES[i] has the values `places[i]`.
    The value at position j (from 0) has code j + 1.
    """

    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    places: tuple[tuple[str, ...], ...] = ((), ())

    @classmethod
    def fit(
        cls,
        profiles: Iterable[Mapping[str, str]],
        *,
        places: Mapping[tuple[str | None, str | None], int] | None = None,
    ) -> "ProfileEncoder":
        """Build code tables from values that occur at least MIN_COUNT times.

        An attribute with more than MAX_VALUES such values gets no codes: it identifies users rather
        than groups.

        Args:
            profiles: attributes of each user.
            places: (surface, device) -> number of events. A property with the same value in all
                events gets no codes.
        """
        counts: dict[str, Counter[str]] = {}
        for profile in profiles:
            for name, value in profile.items():
                counts.setdefault(name, Counter())[value] += 1
        kept = {}
        for name in sorted(counts):
            values = _groups(counts[name])
            if values:
                kept[name] = values
        place_counts = [Counter[str]() for _ in PLACES]
        for place, events in (places or {}).items():
            for column, value in zip(place_counts, place, strict=True):
                column[value or ""] += events
        kept_places = []
        for column in place_counts:
            constant = len(column) == 1
            del column[""]  # the count of missing values
            kept_places.append(() if constant else _groups(column))
        return cls(tuple(kept), tuple(kept.values()), tuple(kept_places))

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of codes of each attribute, including 0 for unknown."""
        return tuple(len(values) + 1 for values in self.values)

    def encode(self, profiles: Iterable[Mapping[str, str]]) -> np.ndarray:
        """Return the codes of B profiles with A attributes: (B, A) int64."""
        tables = _codes(self.values)
        rows = [
            [t.get(profile.get(name, ""), 0) for name, t in zip(self.names, tables, strict=True)]
            for profile in profiles
        ]
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(self.names))

    def encode_places(self, context_ids: Iterable[str]) -> np.ndarray:
        """Return the codes of PLACES for B context ids: (B, 2) int64."""
        tables = _codes(self.places)
        rows = [
            [t.get(part, 0) for t, part in zip(tables, (*id_.split("|"), ""), strict=False)]
            for id_ in context_ids
        ]
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(PLACES))

    def to_json(self) -> dict[str, dict[str, list[str]]]:
        columns = {"attributes": (self.names, self.values), "places": (PLACES, self.places)}
        return {
            part: {name: list(values) for name, values in zip(*of_part, strict=True)}
            for part, of_part in columns.items()
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Mapping[str, list[str]]]) -> "ProfileEncoder":
        attributes = {name: tuple(values) for name, values in data["attributes"].items()}
        places = tuple(tuple(data["places"][name]) for name in PLACES)
        return cls(tuple(attributes), tuple(attributes.values()), places)


def _groups(counts: Counter[str]) -> tuple[str, ...]:
    """Return the values with at least MIN_COUNT occurrences, sorted; none if too many."""
    values = sorted(v for v, n in counts.items() if n >= MIN_COUNT)
    return tuple(values) if len(values) <= MAX_VALUES else ()


def _codes(columns: tuple[tuple[str, ...], ...]) -> list[dict[str, int]]:
    return [{v: j for j, v in enumerate(values, start=1)} for values in columns]
