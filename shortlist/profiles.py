"""What is said in words of a user (attributes) and of a request (surface, device), as small integer
codes, one column each; 0 is unknown.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

MIN_COUNT = 2
MAX_VALUES = 100
PLACES = ("surface", "device")
"""Where a request comes from: the first parts of a context id."""


@dataclass(frozen=True)
class ProfileEncoder:
    """`names[i]` has the values `values[i]`, PLACES[i] has `places[i]`; value j is code j + 1."""

    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    places: tuple[tuple[str, ...], ...] = ((), ())

    @classmethod
    def fit(
        cls,
        profiles: Iterable[Mapping[str, str]],
        *,
        places: Iterable[tuple[str | None, str | None]] = (),
    ) -> "ProfileEncoder":
        """Keep what describes groups: values seen at least twice, at most 100 of them.

        Args:
            profiles: attributes of each user.
            places: surface and device of each event; a column that says the same of all has no
                values.
        """
        counts: dict[str, Counter[str]] = {}
        for profile in profiles:
            for name, value in profile.items():
                counts.setdefault(name, Counter())[value] += 1
        kept = {}
        for name in sorted(counts):
            values = sorted(v for v, n in counts[name].items() if n >= MIN_COUNT)
            if 0 < len(values) <= MAX_VALUES:
                kept[name] = tuple(values)
        surfaces, devices = Counter[str](), Counter[str]()
        for surface, device in places:
            surfaces[surface or ""] += 1
            devices[device or ""] += 1
        return cls(tuple(kept), tuple(kept.values()), (_groups(surfaces), _groups(devices)))

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of codes of each attribute, unknown included."""
        return tuple(len(values) + 1 for values in self.values)

    def encode(self, profiles: Iterable[Mapping[str, str]]) -> np.ndarray:
        """B profiles -> (B, A) int64 codes."""
        tables = [{v: j for j, v in enumerate(values, start=1)} for values in self.values]
        rows = [
            [t.get(profile.get(name, ""), 0) for name, t in zip(self.names, tables, strict=True)]
            for profile in profiles
        ]
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(self.names))

    def encode_places(self, context_ids: Iterable[str]) -> np.ndarray:
        """B context ids -> (B, 2) int64 codes of PLACES."""
        tables = [{v: j for j, v in enumerate(values, start=1)} for values in self.places]
        rows = []
        for context_id in context_ids:
            surface, device, *_ = *context_id.split("|"), "", ""
            rows.append([tables[0].get(surface, 0), tables[1].get(device, 0)])
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(PLACES))

    def to_json(self) -> dict[str, dict[str, list[str]]]:
        attributes, places = (
            zip(self.names, self.values, strict=True),
            zip(PLACES, self.places, strict=True),
        )
        return {
            "attributes": {name: list(values) for name, values in attributes},
            "places": {name: list(values) for name, values in places},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Mapping[str, list[str]]]) -> "ProfileEncoder":
        attributes = {name: tuple(values) for name, values in data["attributes"].items()}
        places = tuple(tuple(data["places"][name]) for name in PLACES)
        return cls(tuple(attributes), tuple(attributes.values()), places)


def _groups(counts: Counter[str]) -> tuple[str, ...]:
    """The values that tell requests apart, "" being none."""
    values = sorted(v for v, n in counts.items() if v and n >= MIN_COUNT)
    return tuple(values) if len(counts) > 1 and len(values) <= MAX_VALUES else ()
