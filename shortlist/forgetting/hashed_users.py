"""Keyed hashes instead of user ids in releases.

A release holds the lists of the test window as a log, with which monitoring compares live traffic.
The log has hashes of the user ids. Monitoring finds the users by hashing the ids of the lake.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shortlist import columns as c
from shortlist.forgetting.keys import HomeKeyError, home_key, ids_of, user_hash
from shortlist.lake.snapshot import write_whole
from shortlist.releases.release import MANIFEST, rewritten_manifest

REFERENCE = Path("reference") / "serving_log.parquet"


def with_hashes(log: pa.Table, key: bytes) -> pa.Table:
    """Replace the user ids of a serving log by their hashes, also in the request ids."""
    users = log.column(c.USER_ID).to_pylist()
    hashes = {user: user_hash(key, user) for user in set(users)}
    requests = [
        request.removesuffix(user) + hashes[user] if request.endswith(f"-{user}") else request
        for request, user in zip(log.column(c.REQUEST_ID).to_pylist(), users, strict=True)
    ]
    columns = {
        c.USER_ID: pa.array([hashes[user] for user in users], pa.string()),
        c.REQUEST_ID: pa.array(requests, pa.string()),
    }
    return pa.table(
        [columns.get(name, log.column(name)) for name in log.column_names], schema=log.schema
    )


def with_ids(log: pa.Table, folder: Path, users: Iterable[str]) -> pa.Table:
    """Replace the hashes in a release's log by the ids of the home's users.

    Hashes of users that the home doesn't have stay, such as those of forgotten people. A log of an
    earlier version of the code has ids, which stay too.

    Args:
        folder: `Settings.forgotten`.

    Raises:
        HomeKeyError: no user of the log is one of the home's users.
    """
    here = set(users)
    names = ids_of(home_key(folder), here)
    ids = [names.get(user, user) for user in log.column(c.USER_ID).to_pylist()]
    if ids and here.isdisjoint(ids):
        raise HomeKeyError(
            f"{folder / 'key'}: with this key, no user of the release's reference log is one of"
            " the lake's users; want the key of the home that made the release (restore it from a"
            " backup), or train a new release"
        )
    column = log.schema.get_field_index(c.USER_ID)
    return log.set_column(column, log.schema.field(column), pa.array(ids, pa.string()))


def hash_release(release: Path, key: bytes) -> int:
    """Replace the user ids in a release of an earlier version; return the number of rows.

    The folder is replaced as a whole: a changed copy is built beside it, then two renames swap
    them. If the process is killed in between, `restore_releases` ends the swap.
    """
    log = pq.read_table(release / REFERENCE)
    new, old = (release.with_name(f".{kind}-{release.name}") for kind in ("hashed", "plain"))
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(release, new, copy_function=os.link)
    (new / REFERENCE).unlink()  # a link to the old file
    (new / MANIFEST).unlink()
    write_whole(with_hashes(log, key), new / REFERENCE)
    digest = hashlib.sha256((new / REFERENCE).read_bytes()).hexdigest()
    manifest = rewritten_manifest(release, {REFERENCE.as_posix(): digest})
    (new / MANIFEST).write_text(manifest)
    release.rename(old)
    new.rename(release)
    shutil.rmtree(old)
    return log.num_rows


def restore_releases(folder: Path) -> None:
    """End or undo the swaps of `hash_release` that were interrupted under `folder`."""
    for old in folder.rglob(".plain-*"):
        release = old.with_name(old.name.removeprefix(".plain-"))
        if release.is_dir():
            shutil.rmtree(old)
        else:
            old.rename(release)
    for new in folder.rglob(".hashed-*"):
        shutil.rmtree(new)


def releases_with_ids(folder: Path, users: Iterable[str]) -> list[Path]:
    """Return the releases under `folder`, also those inside Bentos, whose log names a user."""
    found, wanted = [], set(users)
    for path in folder.rglob(REFERENCE.as_posix()):
        if (path.parent.parent / MANIFEST).is_file():
            named = pq.read_table(path, columns=[c.USER_ID]).column(c.USER_ID)
            if wanted & set(named.to_pylist()):
                found.append(path.parent.parent)
    return found
