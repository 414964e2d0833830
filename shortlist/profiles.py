"""User attributes as small integer codes, one column an attribute; 0 is unknown."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

MIN_COUNT = 2
MAX_VALUES = 100


@dataclass(frozen=True)
class ProfileEncoder:
    """`names[i]` has the values `values[i]`; value j is code j + 1."""

    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]

    @classmethod
    def fit(cls, profiles: Iterable[Mapping[str, str]]) -> "ProfileEncoder":
        """Keep attributes that describe groups: values seen at least twice, at most 100 of them."""
        counts: dict[str, Counter[str]] = {}
        for profile in profiles:
            for name, value in profile.items():
                counts.setdefault(name, Counter())[value] += 1
        kept = {}
        for name in sorted(counts):
            values = sorted(v for v, n in counts[name].items() if n >= MIN_COUNT)
            if 0 < len(values) <= MAX_VALUES:
                kept[name] = tuple(values)
        return cls(tuple(kept), tuple(kept.values()))

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

    def to_json(self) -> dict[str, list[str]]:
        return {name: list(values) for name, values in zip(self.names, self.values, strict=True)}

    @classmethod
    def from_json(cls, data: Mapping[str, list[str]]) -> "ProfileEncoder":
        return cls(tuple(data), tuple(tuple(values) for values in data.values()))
