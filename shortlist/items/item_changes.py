"""Applies changes of items that clients posted to the service (commands) to catalogue rows."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from shortlist import columns as c
from shortlist.contracts import ITEMS
from shortlist.items.commands import Command
from shortlist.moments import EPOCH

VECTORS = "vectors"
"""Key of the vectors of a change: {modality: vector} for columns `vector_<modality>`."""
DELETED = "deleted"
"""Key of a change that deletes the item. A deleted item stays in the catalogue as unavailable,
because events refer to it.
"""


def changed_rows(items: pa.Table, commands: Sequence[Command]) -> pa.Table:
    """Return the rows of the changed items, after all changes.

    Args:
        items: the catalogue before the changes: ITEMS columns and vectors.
        commands: in the order in which they apply. A change replaces the fields that it contains. A
            change of an unknown item adds the item.
    """
    touched = {command.change[c.ITEM_ID] for command in commands}
    ids = pa.array(sorted(touched), pa.string())
    known = items.filter(pc.is_in(items.column(c.ITEM_ID), value_set=ids)).to_pylist()
    rows: dict[str, dict[str, Any]] = {row[c.ITEM_ID]: row for row in known}
    for command in commands:
        item_id = command.change[c.ITEM_ID]
        new = {c.ITEM_ID: item_id, c.CATEGORIES: [], c.AVAILABLE: True}
        rows[item_id] = rows.get(item_id, new) | _columns(command)
    further = [field for field in items.schema if field.name not in ITEMS.names]
    named = {name for row in rows.values() for name in row} - {*items.schema.names, *ITEMS.names}
    further += [pa.field(name, pa.list_(pa.float32())) for name in sorted(named)]
    schema = pa.schema([*ITEMS, *further])
    return pa.Table.from_pylist([rows[item_id] for item_id in sorted(rows)], schema=schema)


def with_changes(items: pa.Table, commands: Sequence[Command]) -> pa.Table:
    """Return the catalogue after the changes of `commands`; without metadata."""
    changed = changed_rows(items, commands)
    ids = changed.column(c.ITEM_ID)
    rest = items.filter(pc.invert(pc.is_in(items.column(c.ITEM_ID), value_set=ids)))
    rest = rest.replace_schema_metadata(None)
    return pa.concat_tables([rest, changed], promote_options="default").combine_chunks()


def _columns(command: Command) -> dict[str, Any]:
    """Return the values of the ITEMS columns that a command sets."""
    given = {name: value for name, value in command.change.items() if name != DELETED}
    if command.change.get(DELETED):
        given[c.AVAILABLE] = False
    if given.get(c.PUBLISHED_AT) is not None:
        given[c.PUBLISHED_AT] = EPOCH + timedelta(microseconds=given[c.PUBLISHED_AT])
    if given.get(c.ATTRIBUTES) is not None:
        given[c.ATTRIBUTES] = sorted(given[c.ATTRIBUTES].items())
    for modality, vector in given.pop(VECTORS, {}).items():
        given[f"vector_{modality}"] = vector
    return given | {c.UPDATED_AT: EPOCH + timedelta(microseconds=command.received_at)}
