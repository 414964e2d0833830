"""The feature pack: item states of the whole catalogue as arrays, as of one tick.

Ticks are the times, for example each full hour, at which item features change (shortlist/ticks.py).

A pack is read from Feast once per tick and hot-swapped in the service independently of the release
(the served models). The current catalogue is stored beside it (`<pack_id>.items.parquet`). The
release fixes the Feast feature service and the schema; the pack holds the values.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shortlist.features.event_groups import NUM_GROUPS
from shortlist.features.finalize import DAY_BUCKETS, PACK_STATE, finalize_items, schema_hash
from shortlist.files.parquet_files import read_parquet
from shortlist.items.commands import Command
from shortlist.items.item_changes import with_changes
from shortlist.vocab import Vocab

LISTS = {
    "item_day_counts": (DAY_BUCKETS, np.float64),
    "item_group_counts": (NUM_GROUPS, np.float64),
    "item_group_decayed": (NUM_GROUPS, np.float64),
}
"""State columns that hold lists -> (length, dtype)."""

CONTENT = b"shortlist_content"
"""Parquet metadata key of the catalogue file that holds the hash of its content."""


class PackError(ValueError):
    """A pack is missing, unreadable, or was made with another feature schema."""


@dataclass(frozen=True)
class ItemState:
    """Item states in the order of a vocabulary: row i belongs to item_idx i, row 0 is padding.

    `state[name]` is (N + 1,), or (N + 1, length) for columns in LISTS. Items that are not in the
    feature pack have zeros.
    """

    pack_id: str
    as_of: int  # microseconds: the tick; only events strictly before it are counted
    state: dict[str, np.ndarray]
    matrix: np.ndarray | None = None
    """(N + 1, len(ITEM_FEATURES)) float32 features, if they were computed for all items."""

    def features(self, item_idx: np.ndarray, *, published_at: np.ndarray) -> np.ndarray:
        """Return the features of the items `item_idx` (...): (..., len(ITEM_FEATURES)) float32.

        Args:
            published_at: (N + 1,) microseconds, of the catalogue.
        """
        if self.matrix is not None:
            return self.matrix[item_idx]
        some, inverse = np.unique(item_idx, return_inverse=True)
        state = {name: values[some] for name, values in self.state.items()}
        values = finalize_items(state, as_of=self.as_of, published_at=published_at[some])
        return values[inverse.reshape(item_idx.shape)]

    def with_matrix(self, published_at: np.ndarray) -> "ItemState":
        """Return the states with `matrix` set, so that `features` only looks up rows."""
        every = np.arange(len(published_at))
        return replace(self, matrix=self.features(every, published_at=published_at))

    def first(self, num_items: int) -> "ItemState":
        """Return the states of the first `num_items` items, as array views without copying."""
        cut = {name: values[: num_items + 1] for name, values in self.state.items()}
        matrix = None if self.matrix is None else self.matrix[: num_items + 1]
        return ItemState(pack_id=self.pack_id, as_of=self.as_of, state=cut, matrix=matrix)


@dataclass(frozen=True)
class FeaturePack:
    """Item states as of one tick, in the order of `item_ids`."""

    as_of: int
    item_ids: list[str]
    state: dict[str, np.ndarray]
    schema: str
    items: pa.Table | None = None
    """The lake's whole catalogue when the pack was published (ITEMS contract); None if not kept."""
    commands: int = 0
    """Number of the last command (shortlist/items/commands.py) that the catalogue contains."""

    @cached_property
    def items_hash(self) -> str:
        """Hash of the catalogue's content; empty without a catalogue."""
        if self.items is None:
            return ""
        known = (self.items.schema.metadata or {}).get(CONTENT)
        return known.decode() if known else _table_hash(self.items)

    @cached_property
    def pack_id(self) -> str:
        """Id made of the tick in seconds, the schema hash and a content hash.

        Packs with the same id hold the same states and the same catalogue. A late event or a
        changed price yields a new id for the same tick.
        """
        content = hashlib.blake2b("\0".join(self.item_ids).encode(), digest_size=4)
        for name in PACK_STATE:
            dtype = LISTS[name][1] if name in LISTS else None
            content.update(np.ascontiguousarray(self.state[name], dtype=dtype).data)
        content.update(self.items_hash.encode())
        return f"{self.as_of // 1_000_000}-{self.schema}-{content.hexdigest()}"

    def with_commands(self, pending: Sequence[Command]) -> "FeaturePack":
        """Return the pack with posted changes applied to its catalogue.

        Its id is that of this pack, followed by "+<first>.<last>", the numbers of these commands.
        The skew check reads them from the serving log.

        Args:
            pending: the commands (posted changes of items) that follow number `commands`.
        """
        if not pending:
            return self
        first, last = pending[0].number, pending[-1].number
        if self.items is None:
            return replace(self, commands=last)
        changed = replace(self, items=with_changes(self.items, pending), commands=last)
        changed.__dict__["pack_id"] = f"{self.pack_id}+{first}.{last}"
        return changed

    def align(self, vocab: Vocab) -> ItemState:
        """Return the states in the order of `vocab`.

        Raises:
            PackError: the pack's feature schema differs from this code's.
        """
        _check_schema(self.pack_id, self.schema)
        rows = vocab.encode(self.item_ids)
        kept = rows > 0
        aligned = {}
        for name in PACK_STATE:
            values = self.state[name]
            out = np.zeros((vocab.size, *values.shape[1:]), dtype=values.dtype)
            out[rows[kept]] = values[kept]
            aligned[name] = out
        return ItemState(pack_id=self.pack_id, as_of=self.as_of, state=aligned)

    def save(self, path: Path, *, same_items: Path | None = None) -> None:
        """Write the states to `path`, with tick and schema in the metadata, and the catalogue to
        `items_path(path)`.

        Args:
            same_items: catalogue file of another pack; it is hard-linked if its content is equal.
        """
        columns = {"item_id": pa.array(self.item_ids, pa.string())}
        for name in PACK_STATE:
            values = self.state[name]
            # Give lists an explicit type: before the first tick a pack has no items to infer from.
            columns[name] = _lists(name, values) if name in LISTS else pa.array(values)
        table = pa.table(columns).replace_schema_metadata(
            {"shortlist": json.dumps({"as_of": self.as_of, "schema": self.schema})}
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.items is not None:
            target = items_path(path)
            if same_items is not None and _content_of(same_items) == self.items_hash:
                if not target.is_file():
                    target.hardlink_to(same_items)
            else:
                _write(self.items.replace_schema_metadata({CONTENT: self.items_hash}), target)
        _write(table, path)

    @classmethod
    def load(cls, path: Path) -> "FeaturePack":
        """Read a pack. Raises PackError if the file is missing, is not a pack, or has another
        feature schema.
        """
        if not path.is_file():
            raise PackError(f"{path}: no feature pack there; run `shortlist refresh`")
        table = read_parquet(path)
        raw = (table.schema.metadata or {}).get(b"shortlist")
        if raw is None:
            raise PackError(f"{path}: not a feature pack (no 'shortlist' metadata)")
        about = json.loads(raw)
        _check_schema(path.stem, about["schema"])
        state = {}
        for name in PACK_STATE:
            column = table.column(name).combine_chunks()
            if name in LISTS:
                values = column.flatten().to_numpy(zero_copy_only=False)
                length, dtype = LISTS[name]
                state[name] = values.astype(dtype, copy=False).reshape(-1, length)
            else:
                state[name] = column.to_numpy(zero_copy_only=False)
        return cls(
            as_of=about["as_of"],
            item_ids=table.column("item_id").to_pylist(),
            state=state,
            schema=about["schema"],
            items=read_parquet(items_path(path)) if items_path(path).is_file() else None,
        )


def _check_schema(pack_id: str, schema: str) -> None:
    if schema != schema_hash():
        raise PackError(
            f"pack {pack_id}: feature schema {schema}, this code has {schema_hash()};"
            " run `shortlist upgrade CONFIG`"
        )


def pending_in(pack_id: str) -> tuple[str, int, int]:
    """Return the parts of a pack id in the serving log.

    They are the id of the published pack, and the numbers of the first and last pending command
    that the worker had applied to it (0 and 0 if none).
    """
    published, _, numbers = pack_id.partition("+")
    first, _, last = numbers.partition(".")
    return published, int(first or 0), int(last or 0)


def items_path(path: Path) -> Path:
    """Return the path of the catalogue file that belongs to the pack file `path`."""
    return path.with_suffix(".items.parquet")


def _content_of(path: Path) -> str | None:
    """Return the content hash stored in a catalogue file; None if the file does not exist."""
    if not path.is_file():
        return None
    return (pq.read_schema(path).metadata or {}).get(CONTENT, b"").decode()


def _write(table: pa.Table, path: Path) -> None:
    partial = path.with_name(f"{path.name}.partial")
    pq.write_table(table, partial)
    partial.replace(path)


def _table_hash(table: pa.Table) -> str:
    content = hashlib.blake2b(digest_size=8)
    plain = table.replace_schema_metadata(None).combine_chunks()
    for batch in plain.to_batches():
        content.update(batch.serialize())
    return content.hexdigest()


def _lists(name: str, values: np.ndarray) -> pa.Array:
    """Convert (N, length) values to N Arrow lists without creating Python numbers."""
    length, dtype = LISTS[name]
    offsets = np.arange(len(values) + 1, dtype=np.int32) * length
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(np.ascontiguousarray(values, dtype=dtype).ravel())
    )
