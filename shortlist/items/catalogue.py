"""Catalogue arrays for models: titles, categories, prices and texts, indexed by item_idx."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shortlist import columns as c
from shortlist.contracts import ITEMS, check, microseconds
from shortlist.features.terms import ItemTerms
from shortlist.files.parquet_files import read_parquet
from shortlist.vocab import Vocab

FIRST_CATEGORIES = b"first_categories"


@dataclass(frozen=True)
class Catalogue:
    """Item data of N items. All arrays and lists have N + 1 rows; row 0 is padding."""

    items: pa.Table  # ITEMS contract, in vocabulary order (N rows)
    first_categories: tuple[str, ...] = ()
    """Categories that come first in `category_matrix`, so that the columns of an earlier catalogue
    keep their positions.
    """

    @classmethod
    def from_items(cls, items: pa.Table) -> "Catalogue":
        """Build a catalogue from ITEMS rows, sorted by item_id so that indices are reproducible."""
        return cls(check(items, ITEMS, where="catalogue").sort_by(c.ITEM_ID).combine_chunks())

    def with_current(self, items: pa.Table) -> "Catalogue":
        """Return an updated catalogue: known items keep their indices, new ones follow by id.

        Args:
            items: ITEMS contract; its rows replace those with the same id. An item that is missing
                here keeps its old row and becomes unavailable.
        """
        mine, theirs = self.items.column(c.ITEM_ID), items.column(c.ITEM_ID)
        gone = self.items.filter(pc.invert(pc.is_in(mine, value_set=theirs)))
        gone = gone.set_column(
            gone.schema.get_field_index(c.AVAILABLE),
            self.items.schema.field(c.AVAILABLE),
            pa.array([False] * gone.num_rows, pa.bool_()),
        )
        is_known = pc.is_in(theirs, value_set=mine)
        new = items.filter(pc.invert(is_known)).sort_by(c.ITEM_ID)
        known = pa.concat_tables([items.filter(is_known), gone], promote_options="default")
        known = known.take(pc.index_in(mine, value_set=known.column(c.ITEM_ID)))
        rows = pa.concat_tables([known, new], promote_options="default").combine_chunks()
        return Catalogue(rows, first_categories=tuple(self.category_names))

    def offered(self, price: np.ndarray, available: np.ndarray) -> "Catalogue":
        """Return the catalogue with other prices (NaN: unknown) and availability, (N,) each.

        All other arrays are computed once and shared with this catalogue.
        """
        _ = self.vocab, self.terms, self.category_units, self.brand_code, self.published_at
        items = self.items
        for name, values in ((c.PRICE, price), (c.AVAILABLE, available)):
            column = items.schema.get_field_index(name)
            array = pa.array(values, from_pandas=True)  # NaN becomes null
            items = items.set_column(column, items.schema.field(column), array)
        other = Catalogue(items, first_categories=self.first_categories)
        replaced = ("items", "first_categories", "log_price", "has_prices", "available")
        other.__dict__.update({k: v for k, v in self.__dict__.items() if k not in replaced})
        return other

    @cached_property
    def vocab(self) -> Vocab:
        return Vocab(self.items.column(c.ITEM_ID).to_pylist())

    @property
    def num_items(self) -> int:
        return self.items.num_rows

    @cached_property
    def titles(self) -> list[str]:
        """N + 1 titles; an item without a title gets its id."""
        titles = self.items.column(c.TITLE).to_pylist()
        return ["", *(t or id_ for t, id_ in zip(titles, self.vocab.ids, strict=True))]

    @cached_property
    def category_names(self) -> list[str]:
        """`first_categories`, followed by all other categories in alphabetical order."""
        names = {name for row in self.category_lists for name in row}
        return [*self.first_categories, *sorted(names.difference(self.first_categories))]

    @cached_property
    def category_lists(self) -> list[list[str]]:
        """N + 1 lists of category names."""
        return [[], *(row or [] for row in self.items.column(c.CATEGORIES).to_pylist())]

    @cached_property
    def category_matrix(self) -> np.ndarray:
        """(N + 1, K) float32: 1 where the item has the category."""
        position = {name: k for k, name in enumerate(self.category_names)}
        matrix = np.zeros((self.num_items + 1, len(position)), dtype=np.float32)
        for row, names in enumerate(self.category_lists):
            matrix[row, [position[name] for name in names]] = 1
        return matrix

    @cached_property
    def category_units(self) -> np.ndarray:
        """(N + 1, K) float32: `category_matrix` with rows of length 1; zeros without categories."""
        count = self.category_matrix.sum(1, keepdims=True)  # the squared length of a 0/1 row
        return self.category_matrix / np.sqrt(np.maximum(count, 1))

    @cached_property
    def published_at(self) -> np.ndarray:
        """(N + 1,) int64 microseconds, 0 where unknown."""
        known = microseconds(self.items.column(c.PUBLISHED_AT)).fill_null(0)
        return np.concatenate([[0], known.to_numpy()]).astype(np.int64)

    @cached_property
    def log_price(self) -> np.ndarray:
        """(N + 1,) float32 log(1 + price), NaN where unknown or negative."""
        prices = self.items.column(c.PRICE).to_numpy(zero_copy_only=False).astype(np.float64)
        known = np.where(prices >= 0, prices, np.nan)
        return np.concatenate([[np.nan], np.log1p(known)]).astype(np.float32)

    @cached_property
    def has_prices(self) -> bool:
        """Whether any price is known."""
        return not bool(np.isnan(self.log_price).all())

    @cached_property
    def num_brands(self) -> int:
        """The largest `brand_code`."""
        return int(self.brand_code.max())

    @property
    def has_brands(self) -> bool:
        return self.num_brands > 0

    @cached_property
    def brand_code(self) -> np.ndarray:
        """(N + 1,) int64 code of the brand, from 1; 0 where unknown."""
        brands = self.items.column(c.BRAND).to_pylist()
        codes = {brand: code for code, brand in enumerate(sorted({b for b in brands if b}), 1)}
        return np.array([0, *(codes.get(brand, 0) for brand in brands)], dtype=np.int64)

    @cached_property
    def available(self) -> np.ndarray:
        """(N + 1,) bool; row 0 is False."""
        flags = self.items.column(c.AVAILABLE).to_numpy(zero_copy_only=False)
        return np.concatenate([[False], flags]).astype(bool)

    @cached_property
    def texts(self) -> list[str]:
        """N + 1 texts for a text encoder: title, description, brand, categories."""
        descriptions, brands = (
            self.items.column(name).to_pylist() for name in (c.DESCRIPTION, c.BRAND)
        )
        return [
            "",
            *(
                ". ".join(part for part in (title, text, brand, ", ".join(names)) if part)
                for title, text, brand, names in zip(
                    self.titles[1:], descriptions, brands, self.category_lists[1:], strict=True
                )
            ),
        ]

    @cached_property
    def terms(self) -> ItemTerms:
        """Words of title, brand and categories, for matching with search queries."""
        titles, brands = (self.items.column(name).to_pylist() for name in (c.TITLE, c.BRAND))
        return ItemTerms.of(
            " ".join([title or "", brand or "", *names])
            for title, brand, names in zip(titles, brands, self.category_lists[1:], strict=True)
        )

    def save(self, path: Path) -> None:
        """Write the items in their order; `first_categories` is metadata of the file."""
        first = {FIRST_CATEGORIES: json.dumps(self.first_categories)}
        pq.write_table(self.items.replace_schema_metadata(first), path)

    @classmethod
    def load(cls, path: Path) -> "Catalogue":
        items = read_parquet(path)
        first = json.loads((items.schema.metadata or {}).get(FIRST_CATEGORIES, b"[]"))
        return cls(check(items, ITEMS, where=str(path)).combine_chunks(), tuple(first))
