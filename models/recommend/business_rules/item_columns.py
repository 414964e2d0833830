"""Item attributes as arrays, so that a condition on many items needs only a few array operations.

Shapes: N items, J values per item. Row 0 is padding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shortlist import columns as c
from shortlist.contracts import microseconds
from shortlist.http.rule_config import MAP_PREFIX
from shortlist.items.catalogue import Catalogue


@dataclass(frozen=True)
class Codes:
    """A text attribute as integer codes. An item has up to J values."""

    codes: np.ndarray  # (N + 1, J) int32 code of each value, 0 for none
    code_of: Callable[[str], int]
    """Returns the code of a value; 0 if no item has it."""
    num_codes: int
    """Number of distinct values. Their codes are 1 to this number."""

    def table(self, values: Sequence[str]) -> np.ndarray:
        """Return a lookup table by code: (num_codes + 1,) bool, True for the codes of these values.

        Values that no item has are ignored.
        """
        table = np.zeros(self.num_codes + 1, dtype=bool)
        table[[self.code_of(value) for value in values]] = True
        table[0] = False
        return table


class ItemColumns:
    """The attributes of a catalogue's items. Each is converted to an array at its first use."""

    def __init__(self, catalogue: Catalogue):
        self.catalogue = catalogue
        self._codes: dict[str, Codes] = {}
        self._numbers: dict[str, np.ndarray] = {}

    @property
    def num_items(self) -> int:
        return self.catalogue.num_items

    def codes(self, attribute: str) -> Codes:
        """Return the codes of a text attribute."""
        found = self._codes.get(attribute)
        if found is None:  # no lock: two threads would get the same result
            found = self._codes[attribute] = self._convert(attribute)
        return found

    def numbers(self, attribute: str) -> np.ndarray:
        """Return the values of a numeric attribute or a date (microseconds): (N + 1,) float64.

        Texts of `attributes.<key>` are parsed as numbers. NaN where unknown or not a number.
        """
        found = self._numbers.get(attribute)
        if found is None:
            found = self._numbers[attribute] = self._as_numbers(attribute)
        return found

    def _convert(self, attribute: str) -> Codes:
        if attribute == c.ITEM_ID:
            vocab = self.catalogue.vocab
            rows = np.arange(self.num_items + 1, dtype=np.int32)[:, None]
            return Codes(rows, vocab.idx, self.num_items)
        if attribute == c.CATEGORIES:
            return self._of_lists(self.catalogue.items.column(c.CATEGORIES))
        single, values = _encoded(self._texts(attribute))
        codes = np.concatenate([[0], single]).astype(np.int32)[:, None]
        return _named(codes, values)

    def _of_lists(self, lists: pa.ChunkedArray) -> Codes:
        flat, values = _encoded(pc.list_flatten(lists))
        row = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
        first = np.searchsorted(row, row)  # index of the row's first value; rows are sorted
        width = int(np.bincount(row).max(initial=1)) if len(row) else 1
        codes = np.zeros((self.num_items + 1, max(width, 1)), dtype=np.int32)
        codes[row + 1, np.arange(len(row)) - first] = flat
        return _named(codes, values)

    def _texts(self, attribute: str) -> pa.ChunkedArray:
        if attribute.startswith(MAP_PREFIX):
            key = attribute.removeprefix(MAP_PREFIX)
            maps = self.catalogue.items.column(c.ATTRIBUTES)
            return pc.map_lookup(maps, query_key=key, occurrence="first")
        return self.catalogue.items.column(attribute)

    def _as_numbers(self, attribute: str) -> np.ndarray:
        if attribute.startswith(MAP_PREFIX):
            codes, values = _encoded(self._texts(attribute))
            numbers = np.array([np.nan, *(_number(value) for value in values)])[codes]
        else:
            column = self.catalogue.items.column(attribute)
            if attribute == c.PUBLISHED_AT:
                column = microseconds(column)
            numbers = pc.cast(column, pa.float64(), safe=False).to_numpy()
        return np.concatenate([[np.nan], numbers]).astype(np.float64)


def _encoded(texts: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, list[str]]:
    """Return (codes of the texts, distinct texts). Code n is the n-th distinct text, 0 is null."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if isinstance(texts, pa.ChunkedArray):  # combine_chunks may return chunks
        texts = pa.concat_arrays(texts.chunks)
    encoded = texts.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64) + 1
    return codes, encoded.dictionary.to_pylist()


def _named(codes: np.ndarray, values: list[str]) -> Codes:
    code_of = {value: code for code, value in enumerate(values, start=1)}
    return Codes(codes, lambda value: code_of.get(value, 0), len(values))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
