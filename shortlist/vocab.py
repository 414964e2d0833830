"""Vocabulary: maps external string ids to dense integers; 0 stands for padding and unknown ids."""

from collections.abc import Iterable, Sequence
from itertools import repeat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shortlist.columns import PAD_IDX


class Vocab:
    """Immutable id map. Index 0 is padding or unknown; the i-th id (from 0) has index i + 1."""

    def __init__(self, ids: Iterable[str]):
        self.ids: list[str] = list(ids)
        self._idx = {id_: i for i, id_ in enumerate(self.ids, start=1)}
        if len(self._idx) != len(self.ids):
            raise ValueError(
                f"vocabulary has {len(self.ids) - len(self._idx)} duplicate ids in {len(self.ids)}"
            )
        wrong = next((id_ for id_ in self.ids if not isinstance(id_, str)), None)
        if wrong is not None:
            raise ValueError(f"vocabulary: id {wrong!r} is {type(wrong).__name__}, want str")

    def __len__(self) -> int:
        """Return the number of ids, without padding."""
        return len(self.ids)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._idx

    @property
    def size(self) -> int:
        """Number of rows of a table indexed by this vocabulary: ids plus padding."""
        return len(self.ids) + 1

    def idx(self, id_: str) -> int:
        return self._idx.get(id_, PAD_IDX)

    def encode(self, ids: Iterable[str]) -> np.ndarray:
        """Map ids to int64 indices; unknown ids become 0."""
        return np.fromiter(map(self._idx.get, ids, repeat(PAD_IDX)), dtype=np.int64)

    def decode(self, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Map indices to ids. Raises ValueError for 0 and for indices out of range."""
        out = []
        for index in indices:
            if not 0 < index <= len(self.ids):
                raise ValueError(f"index {index} is not an id: want 1 to {len(self.ids)}")
            out.append(self.ids[index - 1])
        return out

    def save(self, path: Path) -> None:
        pq.write_table(pa.table({"id": pa.array(self.ids, pa.string())}), path)

    @classmethod
    def load(cls, path: Path) -> "Vocab":
        return cls(pq.read_table(path, columns=["id"]).column("id").to_pylist())
