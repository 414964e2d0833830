"""Recommend all: makes one list per user and writes them to a file, for mails and other batches.

The users are cut into shards by a hash of their id. A Prefect task makes the lists of a shard with
the same code and the same state as the service, in a process of its own.
"""

import hashlib
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from prefect import flow, task
from prefect.task_runners import ProcessPoolTaskRunner

from flows.runtime.retries import step_options
from models.recommend.local import local_recommender, now_of
from models.training import one_thread_per_call
from shortlist import columns as c
from shortlist.config import ConfigError, Settings
from shortlist.forgetting.register import Register
from shortlist.http.api import RecommendRequest
from shortlist.lake import Lake
from shortlist.releases.release import ReleaseStore

LISTS = pa.schema(
    {
        "user_id": pa.string(),
        "rank": pa.int32(),
        "item_id": pa.string(),
        "score": pa.float32(),
        "source": pa.string(),
        "reason": pa.string(),
        "release_id": pa.string(),
        "at": pa.timestamp("us", tz="UTC"),
    }
)
"""Columns of the file: one row per shown item, the lists of a user one after the other."""
FORMATS = (".parquet", ".csv")
SHARD_USERS = 5_000
"""Users per shard. Loading a release takes seconds, and the lists of so many users about half a
minute."""


@flow(name="recommend_all", log_prints=True)
def recommend_all_flow(
    out: Path,
    k: int = 10,
    users: Path | None = None,
    active_days: int | None = None,
    release_id: str | None = None,
    workers: int = 1,
) -> dict[str, Any]:
    """Write the list of each user to a file.

    Args:
        out: the file to write, `.parquet` or `.csv`. It appears when it is complete.
        k: number of items per list.
        users: a text file with one user id per line; None: everybody in the lake.
        active_days: only users with an event in this many days; None: also users without events.
        release_id: id of the release; None: the promoted release.
        workers: number of processes. Each holds the release's models.

    Returns:
        {"users", "rows", "skipped_stages": number of lists with a skipped stage, "forgotten": users
        left out, "release_id", "seconds", "out"}.

    Raises:
        ConfigError: `out` or `users` can't be used; the message says why.
        ReleaseError, LakeError: there is no release, or no lake.
    """
    settings, started = Settings(), time.perf_counter()
    check_out(out)
    release = ReleaseStore(settings.releases).open(release_id)
    chosen = listed_users(users) if users else lake_users(settings, active_days=active_days)
    kept = without_forgotten(settings, chosen)
    shards = cut(kept, number=max(1, -(-len(kept) // SHARD_USERS)))
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        runner = ProcessPoolTaskRunner(max_workers=min(workers, len(shards)))
        # Prefect's type annotation of `task_runner` leaves out runners of other futures.
        run = recommend_shards.with_options(task_runner=runner)  # pyright: ignore[reportArgumentType]
        figures = run(shards, partial, k=k, release_id=release.release_id)
        rows = join(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return {
        "users": len(kept),
        "rows": rows,
        "skipped_stages": sum(figures),
        "forgotten": len(chosen) - len(kept),
        "release_id": release.release_id,
        "seconds": round(time.perf_counter() - started, 1),
        "out": str(out),
    }


@flow(name="recommend_shards", log_prints=True)
def recommend_shards(shards: list[list[str]], folder: Path, k: int, release_id: str) -> list[int]:
    """Make the lists of all shards; return the number of lists with a skipped stage of each."""
    running = [
        recommend_shard.submit(users, folder / f"{number:05}.parquet", k=k, release_id=release_id)
        for number, users in enumerate(shards)
    ]
    return [each.result() for each in running]


@task(name="recommend_shard", **step_options("recommend", hours=12, retried=True))
def recommend_shard(users: list[str], path: Path, k: int, release_id: str) -> int:
    """Write the lists of some users to a Parquet file; return how many have a skipped stage."""
    one_thread_per_call()
    recommender = local_recommender(release_id)
    at, skipped = now_of(recommender), 0
    columns: dict[str, list[Any]] = {name: [] for name in LISTS.names}
    for user_id in users:
        slate = recommender.recommend(RecommendRequest(user_id=user_id, k=k), at=at)
        skipped += bool(slate.skipped_stages)
        for item in slate.items:
            row = (user_id, item.rank, item.item_id, item.score, item.source, item.reason)
            for name, value in zip(LISTS.names, (*row, release_id, at), strict=True):
                columns[name].append(value)
    pq.write_table(pa.table(columns, schema=LISTS), path)
    print(f"{len(users):,} lists")
    return skipped


def check_out(out: Path) -> None:
    """Raise ConfigError if the lists can't be written to `out`."""
    if out.suffix not in FORMATS:
        raise ConfigError(f"--out {out}: want a file that ends with {' or '.join(FORMATS)}")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}")


def listed_users(path: Path) -> list[str]:
    """Return the user ids of a text file, one per line, each once.

    Raises:
        ConfigError: the file doesn't exist, isn't UTF-8, or has no ids.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8"
        raise ConfigError(f"--users {path}: can't be read: {reason}") from None
    found = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not found:
        raise ConfigError(f"--users {path}: has no user ids, want one per line")
    return found


def lake_users(settings: Settings, *, active_days: int | None) -> list[str]:
    """Return the ids of all users of the lake, in order; see `recommend_all_flow`."""
    lake = Lake(settings.lake)
    latest = lake.manifest.latest
    since = None
    if active_days is not None and latest is not None:
        since = latest - active_days * c.MICROSECONDS_PER_DAY
    seen = pc.unique(lake.interactions(since=since).column(c.USER_ID)).to_pylist()
    known = [] if active_days is not None else lake.users().column(c.USER_ID).to_pylist()
    return sorted({*seen, *known})


def without_forgotten(settings: Settings, users: Sequence[str]) -> list[str]:
    """Leave out people who asked to be forgotten and weren't seen since."""
    forgotten = Register(settings.forgotten).among(users)
    if not forgotten:
        return list(users)
    later = Lake(settings.lake).interactions(since=min(forgotten.values()))
    user_ids, times = later.column(c.USER_ID).to_pylist(), later.column(c.EVENT_TIMESTAMP)
    newest = dict(zip(user_ids, times.cast(pa.int64()).to_pylist(), strict=True))  # sorted by time
    return [
        user_id
        for user_id in users
        if user_id not in forgotten or newest.get(user_id, -1) >= forgotten[user_id]
    ]


def cut(users: Sequence[str], *, number: int) -> list[list[str]]:
    """Cut users into shards by a hash of their id, so that a user stays in the same shard."""
    shards: list[list[str]] = [[] for _ in range(number)]
    for user_id in users:
        digest = hashlib.blake2b(user_id.encode(), digest_size=8).digest()
        shards[int.from_bytes(digest) % number].append(user_id)
    return shards


def join(folder: Path, out: Path) -> int:
    """Write the rows of all files of `folder` to `out`, which appears when it is complete.

    Returns:
        The number of rows.
    """
    rows, whole = 0, folder / f"whole{out.suffix}"
    parts = sorted(folder.glob("[0-9]*.parquet"))
    writer = (
        pq.ParquetWriter(whole, LISTS)
        if out.suffix == ".parquet"
        else pyarrow.csv.CSVWriter(whole, LISTS)
    )
    with writer:
        for table in tables(parts):
            writer.write_table(table)
            rows += table.num_rows
    whole.replace(out)
    return rows


def tables(parts: Sequence[Path]) -> Iterator[pa.Table]:
    for part in parts:
        yield pq.read_table(part, schema=LISTS)
