"""Reads what the service wrote: posted events and the serving log, both JSON Lines.

The service appends to these files. An unfinished last line is left for the next read.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from shortlist import columns as c
from shortlist.behaviour.counting import INBOX, ListRules, with_like
from shortlist.config import Settings
from shortlist.contracts import INTERACTIONS, SERVING_LOG, TIMESTAMP
from shortlist.datasets.batch import Batch
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.files.locate import SourceFile
from shortlist.datasets.identity import event_ids
from shortlist.datasets.service.impressions import stage_impressions
from shortlist.datasets.service.log_archive import parse_line, read_archive
from shortlist.datasets.service.posted import POSTED, RECEIVED_AT, excluded_ids
from shortlist.datasets.staging import Stager, stage_event_file
from shortlist.forgetting.lines import is_erased
from shortlist.forgetting.register import Register
from shortlist.http.api import Event
from shortlist.lake import Lake
from shortlist.moments import WANT, moment_problem

log = logging.getLogger("shortlist.datasets")
CHUNK_ROWS = 4_096
"""Number of rows of the serving log that are converted from Python objects to Arrow together."""
ITEM_KEYS = ("item_id", "position", "source", "score", "propensity", "features")
REQUEST_KEYS = tuple(field.name for field in SERVING_LOG if field.name not in ITEM_KEYS)


def read_lines(
    folder: Path, *, left_out: list[str] | None = None
) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    """Yield (file, line number, object) of every finished line under `folder`, sorted by file name.

    Archived files (log_archive.py) give the same objects. Erased lines are left out, and those of
    forgotten users that are older than the request.

    Args:
        left_out: list to which a message is added for each line that isn't a JSON object; None:
            such a line raises an error.

    Raises:
        DatasetError: a line isn't a JSON object, and `left_out` is None.
    """
    register = Register(folder.parent / "forgotten")
    for path, number, entry in _all_lines(folder, left_out=left_out):
        if not register.hides(entry.get(c.USER_ID), entry.get(c.EVENT_TIMESTAMP)):
            yield path, number, entry


def _all_lines(
    folder: Path, *, left_out: list[str] | None
) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    for path in sorted((*folder.rglob("*.jsonl"), *folder.rglob("*.parquet"))):
        if path.suffix == ".parquet":
            yield from ((path, number, entry) for number, entry in read_archive(path))
            continue
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if not raw.endswith(b"\n"):
                    break
                if is_erased(raw):
                    continue
                try:
                    content = parse_line(raw)
                    problem = f"not an object: {raw[:60]!r}"
                except ValueError as error:
                    content, problem = None, f"not JSON: {error}"
                if isinstance(content, dict):
                    yield path, number, content
                elif left_out is None:
                    raise DatasetError(f"{path}: line {number}: {problem}")
                else:
                    left_out.append(f"{path}: line {number}: {problem}")


def stage_service(stager: Stager) -> None:
    """Stage posted events and, unless `[data] impressions` is false, the logged impressions.

    Raises:
        LakeError: the lake has no catalogue yet.
        DatasetError: a line of the serving log is damaged.
    """
    Lake(stager.settings.lake).items()
    key = stager.key("service")
    known = stager.known(key)
    given = {
        "files": _stage_posted_events(stager, known.get("files", {})),
        "shown": known.get("shown", {}),
    }
    if stager.config.impressions:
        given["shown"] = stage_impressions(stager, given["shown"])
    stager.batch.source = (key, given)
    stager.batch.create = ("users",)


def _stage_posted_events(stager: Stager, known: dict[str, str]) -> dict[str, str]:
    """Stage the inbox files that are new or have changed, without an unfinished last line.

    A finished line that violates the schema goes to quarantine like any other bad row.

    Args:
        known: {file: fingerprint} after the last batch.

    Returns:
        {file: fingerprint} of the present files.
    """
    inbox = stager.settings.events
    seen = {}
    for path in sorted(inbox.rglob("*.jsonl")):
        name = path.relative_to(inbox).as_posix()
        whole = _finished_lines(path, stager.staged.folder / "inbox.jsonl")
        if whole is None:
            continue
        file = SourceFile(name, whole, "jsonl", None, label=f"{INBOX}{path.name}")
        seen[name] = file.fingerprint()
        if known.get(name) == seen[name]:
            stager.batch.unchanged += 1
            continue
        stager.fresh.append(seen[name])
        stager.batch.files = (*stager.batch.files, str(path))
        stage_event_file(stager, POSTED, file)
    return seen


def _finished_lines(path: Path, copy: Path) -> Path | None:
    """Copy a file without an unfinished last line; None if it has no finished line."""
    with path.open("rb") as file:
        content = file.read()
    end = content.rfind(b"\n") + 1
    if end == 0:
        return None
    lines = content[:end].splitlines(keepends=True)
    copy.write_bytes(b"".join(b"\n" if is_erased(line) else line for line in lines))
    return copy


def load_posted_events(
    settings: Settings, *, now: int, since: int | None = None, lists: ListRules = ListRules()
) -> Batch:
    """Read posted events as a batch, with the lake's items, its users and the events' new users.

    A line that isn't a valid `shortlist.http.api.Event` is left out with a warning. A refresh
    quarantines it.

    Args:
        now: microseconds, arrival time of lines without `received_at`.
        since: microseconds; events that happened and arrived before it are skipped without
            validation. None: read all.
        lists: rules that exclude events and derive likes from ratings.

    Raises:
        LakeError: the lake has no catalogue yet.
    """
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    for path, number, content in read_lines(settings.events, left_out=left_out):
        received = content.pop(RECEIVED_AT, now)
        moments = [received, content.get(c.EVENT_TIMESTAMP)]
        if since is not None and all(
            isinstance(moment, int) and moment < since for moment in moments
        ):
            continue
        try:
            event = Event.model_validate(content)
            if event.event_timestamp is None:
                raise ValueError("event_timestamp is missing")
            if not isinstance(received, int) or moment_problem(received, kind="event"):
                raise ValueError(f"received_at is {received!r}, {WANT}")
        except ValueError as error:
            left_out.append(f"{path}: line {number}: {_first_problem(error)}")
            continue
        rows.append(event.model_dump() | {c.INGESTED_AT: received})
    if left_out:
        log.warning("%d posted lines are no events and left out: %s", len(left_out), left_out[0])
    excluded = excluded_ids(rows, lists.exclude)
    rows = [
        event
        for row in rows
        if row[c.EVENT_ID] not in excluded
        for event in with_like(row, lists.like_threshold)
    ]
    lake = Lake(settings.lake)
    users = lake.users()
    known = set(users.column(c.USER_ID).to_pylist())
    new = sorted({row[c.USER_ID] for row in rows} - known)
    users = pa.concat_tables(
        [users, pa.table({c.USER_ID: pa.array(new, pa.string())})], promote_options="default"
    )
    return Batch.checked(str(settings.events), _interactions(rows), lake.items(), users)


def _first_problem(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors()[0]
    return "".join(f"{part}: " for part in problem["loc"]) + problem["msg"]


def _interactions(rows: list[dict[str, Any]]) -> pa.Table:
    columns: dict[str, pa.Array] = {}
    for field in INTERACTIONS:
        if field.name in (c.EVENT_ORDER, c.SOURCE, c.EVENT_ID):
            continue
        values = [row.get(field.name) for row in rows]
        plain = pa.int64() if pa.types.is_timestamp(field.type) else field.type
        columns[field.name] = pa.array(values, plain).cast(field.type)
    n = len(rows)
    derived = event_ids(pa.table(columns)).to_pylist()
    given = [row.get(c.EVENT_ID) or id_ for row, id_ in zip(rows, derived, strict=True)]
    columns[c.EVENT_ID] = pa.array(given, pa.string())
    columns[c.EVENT_ORDER] = pa.array(np.arange(n), pa.int64())
    columns[c.SOURCE] = pa.array([INBOX] * n, pa.string())
    return pa.table(columns)


def load_serving_log(
    folder: Path, *, since: int | None = None, release_id: str | None = None
) -> pa.Table:
    """Read the serving log as SERVING_LOG, one row per shown item.

    Keys that are not in the contract are ignored. Rows are converted to Arrow in chunks, so that
    memory use is that of the returned table.

    Args:
        since: microseconds; only responses at or after this time. None: all.
        release_id: only responses of this release. None: all.

    Raises:
        DatasetError: a line lacks a key of the contract, or a required value is null.
    """
    chunks = [SERVING_LOG.empty_table()]
    rows: list[dict[str, Any]] = []
    for path, number, content in read_lines(folder):
        where = f"{path}: line {number}"
        request = _picked(content, REQUEST_KEYS, where=where)
        items = content.get("items")
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise DatasetError(f"{where}: items is {items!r:.60}, want a list of objects")
        shown = [request | _picked(item, ITEM_KEYS, where=where) for item in items]
        is_old = since is not None and request[c.EVENT_TIMESTAMP] < since
        if is_old or release_id not in (None, request["release_id"]):
            continue
        rows += shown
        if len(rows) >= CHUNK_ROWS:
            chunks.append(_shown(rows, folder))
            rows = []
    return pa.concat_tables([*chunks, _shown(rows, folder)]).combine_chunks()


def read_responses(folder: Path, *, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the values of `keys` (some of REQUEST_KEYS) for every response in the serving log.

    Raises:
        DatasetError: a line lacks a key, or a required value is null.
    """
    for path, number, content in read_lines(folder):
        yield _picked(content, keys, where=f"{path}: line {number}")


def _shown(rows: list[dict[str, Any]], folder: Path) -> pa.Table:
    arrays = []
    for field in SERVING_LOG:
        plain = pa.int64() if field.type == TIMESTAMP else field.type
        try:
            arrays.append(pa.array([row[field.name] for row in rows], plain).cast(field.type))
        except (pa.ArrowException, OverflowError) as error:
            raise DatasetError(f"{folder}: key '{field.name}': {error}") from None
    return pa.table(arrays, schema=SERVING_LOG)


def _picked(content: dict[str, Any], keys: Sequence[str], *, where: str) -> dict[str, Any]:
    for key in keys:
        if key not in content:
            raise DatasetError(f"{where}: key '{key}' is missing")
        if content[key] is None and not SERVING_LOG.field(key).nullable:
            raise DatasetError(f"{where}: key '{key}' is null, want {SERVING_LOG.field(key).type}")
    return {key: content[key] for key in keys}
