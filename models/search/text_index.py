"""Full-text index over the texts of a catalogue, ranked by BM25 (Robertson & Zaragoza 2009).

The index is SQLite's FTS5, in memory. A word of a query matches the same word of an item, without
case and accents. Scripts without spaces between words are matched as whole runs of letters.

Shapes: N items, C results.
"""

import re
import sqlite3
import threading
import unicodedata
from collections.abc import Sequence

import numpy as np

from models.queries import Candidates
from shortlist.items.catalogue import Catalogue

ACCENTS = re.compile("[\u0300-\u036f]")
"""Combining marks of Latin, Greek and Cyrillic letters."""
CREATE = """CREATE VIRTUAL TABLE items USING fts5(
    text, tokenize = "unicode61 remove_diacritics 0 categories 'L* N* M* Co'"
)"""
MAX_WORDS = 32
"""Number of words of a query that are searched."""
DROP_DEPTH = 4
"""Length of the first list over the number of items that are wanted. If filters leave too few of
it, all matches are read."""


class TextIndex:
    """Immutable index of N items; row numbers are item_idx. Threads may share it."""

    def __init__(self, texts: Sequence[str], *, before: "TextIndex | None" = None):
        """
        Args:
            texts: N + 1 texts by item_idx; row 0 is padding.
            before: index of an earlier state of the catalogue. Its rows are copied, and only
                changed texts are indexed again.
        """
        self.texts = texts
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(":memory:", check_same_thread=False)
        old: Sequence[str] = ()
        if before is None:
            self._connection.execute(CREATE)
        else:
            with before._lock:
                before._connection.backup(self._connection)
            old = before.texts
        changed = [
            row
            for row in range(1, max(len(old), len(texts)))
            if row >= len(old) or row >= len(texts) or old[row] != texts[row]
        ]
        with self._connection as connection:
            gone = [(row,) for row in changed if row < len(old)]
            connection.executemany("DELETE FROM items WHERE rowid = ?", gone)
            added = [(row, plain(texts[row])) for row in changed if row < len(texts)]
            connection.executemany("INSERT INTO items(rowid, text) VALUES (?, ?)", added)

    def __del__(self) -> None:
        self._connection.close()

    def search(self, query: str, *, k: int, allowed: np.ndarray) -> Candidates:
        """Return the k allowed items with the best BM25 score: (1, C), C at most k.

        An item matches if it has one of the query's words.

        Args:
            allowed: (N + 1,) bool.
        """
        words = list(dict.fromkeys(plain_words(query)))[:MAX_WORDS]
        found: list[tuple[int, float]] = []
        if words and k > 0:
            match = " OR ".join(f'"{word}"' for word in words)
            for limit in (DROP_DEPTH * k, -1):
                rows = self._matches(match, limit)
                found = [row for row in rows if allowed[row[0]]][:k]
                if len(found) == k or len(rows) < limit:
                    break
        item_idx = np.array([row for row, _ in found], dtype=np.int64)
        score = np.array([-rank for _, rank in found], dtype=np.float32)
        return Candidates(item_idx[None], score[None])

    def _matches(self, match: str, limit: int) -> list[tuple[int, float]]:
        """Return (item_idx, BM25 score times -1), best first; a limit of -1 is none."""
        with self._lock:
            return self._connection.execute(
                "SELECT rowid, rank FROM items WHERE items MATCH ? ORDER BY rank LIMIT ?",
                (match, limit),
            ).fetchall()


def plain(text: str) -> str:
    """Return a text in lower case, in compatibility form, without accents.

    Accents are the marks that Latin, Greek and Cyrillic letters carry; vowel signs of other scripts
    are kept.
    """
    decomposed = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text).lower())
    return unicodedata.normalize("NFC", ACCENTS.sub("", decomposed))


def plain_words(text: str) -> list[str]:
    """Return the words of `plain(text)`: runs of letters, digits and vowel signs."""
    words, word = [], ""
    for character in plain(text) + " ":
        if unicodedata.category(character)[0] in "LNM":
            word += character
        elif word:
            words.append(word)
            word = ""
    return words


class TextIndexes:
    """The index of the current catalogue. It is built at the first search, then kept up to date."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: tuple[str, TextIndex] | None = None

    def of(self, catalogue: Catalogue, *, key: str) -> TextIndex:
        """Return the index of a catalogue.

        Args:
            key: changes whenever the catalogue changes.
        """
        with self._lock:
            if self._last is None or self._last[0] != key:
                before = self._last[1] if self._last else None
                self._last = (key, TextIndex(catalogue.texts, before=before))
            return self._last[1]
