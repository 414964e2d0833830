"""Matches the words of search queries with the words of items.

The words of all items are stored as integer codes, prepared once per catalogue. A word is a run of
letters and digits, normalised with NFKC and lower-cased. Queries and items use the same Python
tokenizer. Arrow's tokenizer is ten times faster on a catalogue, but it compiles its pattern on each
call, which would add 2 ms to each request.

Shapes: N items, T words of all items together, C candidates, Q queries.
"""

import re
import unicodedata
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """Return the words of a text, in order."""
    return WORD.findall(unicodedata.normalize("NFKC", text).lower())


@dataclass(frozen=True)
class ItemTerms:
    """Word codes of N + 1 items; row 0 is padding and has no words."""

    vocabulary: dict[str, int]  # word -> code from 0
    codes: np.ndarray  # (T,) int32, item after item
    offsets: np.ndarray  # (N + 2,) int64: the words of item i are codes[offsets[i]:offsets[i + 1]]

    @classmethod
    def of(cls, texts: Iterable[str]) -> "ItemTerms":
        """Build the table from N texts; text i (from 0) belongs to item_idx i + 1."""
        vocabulary: dict[str, int] = {}
        codes, offsets = array("i"), array("q", [0, 0])
        for text in texts:
            codes.extend(vocabulary.setdefault(word, len(vocabulary)) for word in words_of(text))
            offsets.append(len(codes))
        return cls(vocabulary, np.array(codes, dtype=np.int32), np.array(offsets, dtype=np.int64))

    def shares(self, queries: Sequence[str], candidates: np.ndarray) -> np.ndarray:
        """Return (C, Q) float32: share of each query's distinct words that occur in each candidate.

        `candidates` is (C,) item_idx. A query without words gives 0.
        """
        asked = [set(words_of(query)) for query in queries]
        known = sorted(
            {self.vocabulary[w] for words in asked for w in words if w in self.vocabulary}
        )
        # Code -> column of `has`, from 1.
        column_of = np.zeros(len(self.vocabulary), dtype=np.int16)
        column_of[known] = np.arange(1, len(known) + 1)
        weight = np.zeros((len(known), len(queries)), dtype=np.float32)
        for q, words in enumerate(asked):
            found = [self.vocabulary[word] for word in words if word in self.vocabulary]
            weight[column_of[found] - 1, q] = 1 / max(len(words), 1)
        start = self.offsets[candidates]
        length = self.offsets[candidates + 1] - start
        ends = np.cumsum(length)
        word = np.arange(length.sum()) + np.repeat(start - (ends - length), length)
        of_word = column_of[self.codes[word]]
        hit = np.flatnonzero(of_word)
        has = np.zeros((len(candidates), len(known)), dtype=np.float32)
        has[np.searchsorted(ends, hit, side="right"), of_word[hit] - 1] = 1
        return has @ weight
