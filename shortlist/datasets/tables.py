"""Stages sources that give tables with the contracts' columns, so that nothing must be mapped."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from shortlist import columns as c
from shortlist.contracts import INTERACTIONS, ITEMS, USERS, check
from shortlist.datasets.batch import Batch
from shortlist.datasets.config import InteractionFile
from shortlist.datasets.files.locate import SourceFile
from shortlist.datasets.files.readers import open_raw
from shortlist.datasets.staging import Stager
from shortlist.lake.engine import parquet

PART_ROWS = 1_000_000
OWN = {name: name for name in INTERACTIONS.names if name not in (c.EVENT_ORDER, c.SOURCE)}


def stage_tables(stager: Stager, key: str, batch: Batch) -> None:
    """Stage a batch in memory, unless the lake already has this content."""
    if not is_new(stager, key, batch.batch_id):
        return
    stage_stream(stager, key, [batch.interactions])
    stage_catalogue(stager, batch.items, batch.users)


def is_new(stager: Stager, key: str, fingerprint: str) -> bool:
    """Return whether the lake doesn't have this content of the source yet.

    The fingerprint is recorded in the batch for the next run.
    """
    stager.batch.source = (stager.key(key), {"fingerprint": fingerprint})
    stager.batch.create = ()
    if stager.known(stager.key(key)).get("fingerprint") == fingerprint:
        stager.batch.unchanged = 1
        return False
    stager.fresh.append(fingerprint)
    return True


def stage_stream(stager: Stager, key: str, tables: Iterable[pa.Table]) -> None:
    """Stage a stream of INTERACTIONS tables, at least PART_ROWS rows per part."""
    path = stager.staged.folder / "table.parquet"
    file = SourceFile(key, path, "parquet", None)
    mapped = InteractionFile(path=key, columns=OWN)
    for some in _gathered(tables):
        with pq.ParquetWriter(path, INTERACTIONS, compression="lz4") as writer:
            for table in some:
                writer.write_table(table)
        stager.events(open_raw(file, mapped), mapped, file=file)
        path.unlink()
    stager.batch.given_ids = False  # the ids are derived from the content


def stage_catalogue(stager: Stager, items: pa.Table, users: pa.Table) -> None:
    """Stage ITEMS and USERS tables."""
    path = stager.staged.folder / "table.parquet"
    for name, table, schema in (("items", items, ITEMS), ("users", users, USERS)):
        pq.write_table(check(table, schema, where=name), path)
        whole = "SELECT *, 'insert' AS operation, NULL::VARCHAR[] AS faults, r AS original"
        file = SourceFile(name, path, "parquet", None)
        stager.rows(name, f"{whole} FROM {parquet([path])} r", file=file)
        path.unlink()


def _gathered(tables: Iterable[pa.Table]) -> Iterator[list[pa.Table]]:
    some: list[pa.Table] = []
    for table in tables:
        some.append(table)
        if sum(part.num_rows for part in some) >= PART_ROWS:
            yield some
            some = []
    if some:
        yield some
