"""Removes forgotten people from the lake: from its newest snapshot, then the older snapshots."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shortlist import columns as c
from shortlist.contracts import TIMESTAMP
from shortlist.lake import partitions
from shortlist.lake.engine import connect, parquet
from shortlist.lake.leases import dead_holders, end_lease, lease_holders
from shortlist.lake.snapshot import (
    LakeError,
    Manifest,
    commit,
    current_folder,
    current_manifest,
    locked,
    workspace,
    write_whole,
)

GONE_USERS = "gone_users"


def remove_from_lake(root: Path, users: Mapping[str, int]) -> int:
    """Commit a snapshot without the users' events dated before their request.

    A user with later events stays, without attributes; otherwise the user's row is removed.

    Args:
        users: {user id: time of the request in microseconds}.

    Returns:
        The number of removed rows; 0 if there were none, and then nothing is committed.
    """
    with locked(root), workspace(root) as work, connect(work) as connection:
        old, manifest = current_folder(root), current_manifest(root)
        if old is None:
            return 0
        asked = pa.table(
            {
                c.USER_ID: pa.array(list(users), pa.string()),
                "asked_at": pa.array(list(users.values()), pa.int64()).cast(TIMESTAMP),
            }
        )
        connection.register(GONE_USERS, asked)
        manifest.version += 1
        new, removed = _without_events(connection, manifest, old=old, work=work)
        names = [name for part in manifest.partitions.values() for name in part["files"]]
        paths = [new[name] if name in new else old / name for name in names]
        tables = {}
        table = pq.read_table(old / "users.parquet")
        left = _users_left(connection, table, paths, users)
        if left is not None:
            write_whole(left, work / "users.parquet")
            tables["users.parquet"] = work / "users.parquet"
            removed += table.num_rows - left.num_rows
        if new or tables or removed:
            commit(root, manifest, new=new, tables=tables)
        return removed


def _without_events(
    connection: duckdb.DuckDBPyConnection, manifest: Manifest, *, old: Path, work: Path
) -> tuple[dict[str, Path], int]:
    """Rewrite the files with events of the users; `manifest` is updated.

    Returns:
        {name in the snapshot: new file}, and the number of removed events.
    """
    new: dict[str, Path] = {}
    removed = 0
    same = f"e.{c.USER_ID} = g.{c.USER_ID} AND e.{c.EVENT_TIMESTAMP} < g.asked_at"
    for key in list(manifest.partitions):
        part = manifest.partitions[key]
        for name in list(part["files"]):
            source = f"{parquet([old / name])} e"
            ((rows,),) = connection.execute(
                f"SELECT count(*) FROM {source} SEMI JOIN {GONE_USERS} g ON {same}"
            ).fetchall()
            if rows == 0:
                continue
            removed += rows
            fresh = f"{name.removesuffix('.parquet')}-{manifest.version:06d}.parquet"
            rest = f"SELECT {partitions.COLUMNS} FROM {source} ANTI JOIN {GONE_USERS} g ON {same}"
            written = partitions.write(connection, rest, work / fresh)
            part["files"].remove(name)
            part["rows"] -= rows
            if written is not None:
                part["files"].append(fresh)
                new[fresh] = written.path
        if not part["files"]:
            del manifest.partitions[key]
    return new, removed


def _users_left(
    connection: duckdb.DuckDBPyConnection,
    table: pa.Table,
    files: list[Path],
    users: Mapping[str, int],
) -> pa.Table | None:
    """Return the users table without the forgotten users; None if it has none of them.

    Args:
        files: all files of interactions after the removal.
    """
    ids = pa.array(list(users), pa.string())
    user_rows = table.filter(pc.is_in(table.column(c.USER_ID), value_set=ids))
    if user_rows.num_rows == 0:
        return None
    rest = table.filter(pc.invert(pc.is_in(table.column(c.USER_ID), value_set=ids)))
    back: set[str] = set()
    if files:
        query = (
            f"SELECT DISTINCT user_id FROM {parquet(files)} SEMI JOIN {GONE_USERS} USING (user_id)"
        )
        back = {user_id for (user_id,) in connection.execute(query).fetchall()}
    bare = [{c.USER_ID: user_id} for user_id in sorted(back)]
    if user_rows.num_rows == len(back) and user_rows.to_pylist() == [
        dict.fromkeys(table.column_names) | row for row in bare
    ]:
        return None
    kept = pa.Table.from_pylist(bare, schema=table.schema)
    return pa.concat_tables([rest, kept]).sort_by(c.USER_ID)


def drop_old_snapshots(root: Path) -> int:
    """Remove all snapshots but the newest; return their number.

    Leases of processes that died are ended: their runs can't be resumed afterwards.

    Raises:
        LakeError: a running process reads an older snapshot.
    """
    with locked(root):
        for holder in dead_holders(root):
            end_lease(root, holder)
        if holders := sorted(lease_holders(root)):
            raise LakeError(
                f"{root}: {', '.join(holders)} reads a snapshot of the lake that still has the"
                " person; wait until it has ended, or stop it, and run the command again"
            )
        now = current_folder(root)
        old = [snapshot for snapshot in (root / "snapshots").glob("[0-9]*") if snapshot != now]
        for folder in old:
            shutil.rmtree(folder)
        return len(old)
