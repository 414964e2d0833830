"""Manifest of the state snapshots, and the check whether a new part can be added to them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from shortlist.behaviour.counting import ListRules
from shortlist.feature_store.states import target_sql
from shortlist.ticks import DAILY

FOOTER_BYTES = 65_536
"""Bytes at the end of a Parquet file that are hashed to recognise its content."""
OLDER = {"tick": DAILY, "once": True, "low_rating": None, "like_threshold": None, "exclude": []}
"""Defaults for keys that manifests of earlier versions of the code lack."""


@dataclass(frozen=True)
class Snapshots:
    """Manifest of the snapshots in a folder: the data and settings they were built from."""

    generation: str
    """Id of the last full build; added parts keep it."""
    part: int
    """Number of the newest part."""
    until: int
    """Microseconds; the snapshots contain the events that became known by then."""
    target_events: tuple[str, ...]
    schema: str
    tick: int
    """Tick length of items and contexts, microseconds."""
    once: bool
    """Whether a history holds each item once, not every event."""
    low_rating: float | None
    """Ratings up to this value refuse their item."""
    like_threshold: float | None
    """Ratings of at least this value also count as likes. The lake stores these likes as events.
    For posted events that are not in the lake yet, readers derive them.
    """
    exclude: tuple[str, ...]
    """SQL conditions of events that don't count; neither the lake nor the tail contains them."""
    folders: dict[str, dict[str, Any]]
    """Lake folder -> {"files": {name: hash of the footer}, "known": fingerprint}.

    The fingerprint (`target_sql.fingerprints`) covers the events known by `until`. It is recomputed
    for folders whose files changed.
    """

    @classmethod
    def read(cls, folder: Path) -> "Snapshots | None":
        """Read the manifest of a folder; None if it is missing or not readable by this code."""
        try:
            found = json.loads((folder / "manifest.json").read_text())
            found = OLDER | found
            lists = {name: tuple(found[name]) for name in ("target_events", "exclude")}
            return cls(**found | lists)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    @property
    def lists(self) -> ListRules:
        return ListRules(self.once, self.low_rating, self.like_threshold, self.exclude)


def can_append(
    connection: duckdb.DuckDBPyConnection,
    before: Snapshots,
    now: Snapshots,
    files: Sequence[Path],
    *,
    folder: Path,
) -> bool:
    """Return whether the snapshots `now` can be built by adding a part to the snapshots `before`.

    This requires equal settings, no removed users, and unchanged events up to `before.until`.
    """
    made_of = ("target_events", "schema", "tick", "once", "low_rating")
    same = all(getattr(before, name) == getattr(now, name) for name in made_of)
    current = folder / "current" / str(before.part)
    if not (same and current.is_dir() and now.until > before.until):
        return False
    profiles = current / "user_profile.parquet"
    ((gone,),) = connection.execute(
        f"SELECT count(*) FROM read_parquet('{sql_path(profiles)}') ANTI JOIN users USING (user_id)"
    ).fetchall()
    nothing: dict[str, Any] = {"files": {}, "known": (0, 0)}
    names = before.folders.keys() | now.folders.keys()
    old = {name: before.folders.get(name, nothing) for name in names}
    changed = {
        name for name in names if old[name]["files"] != now.folders.get(name, nothing)["files"]
    }
    found = target_sql.fingerprints(
        connection,
        [file for file in files if file.parent.name in changed],
        target_events=now.target_events,
        until=before.until,
    )
    # The events known by `before.until` must be unchanged: none were added or removed since.
    same_past = all(tuple(old[name]["known"]) == found.get(name, (0, 0)) for name in changed)
    return not gone and same_past


def lake_folders(files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Return `Snapshots.folders` of the lake's files, with empty fingerprints."""
    folders: dict[str, dict[str, Any]] = {}
    for file in files:
        folder = folders.setdefault(file.parent.name, {"files": {}, "known": (0, 0)})
        folder["files"][file.name] = _footer_hash(file)
    return folders


def _footer_hash(file: Path) -> str:
    """Hash the end of a Parquet file; the footer changes with the content of any row group."""
    with file.open("rb") as handle:
        size = handle.seek(0, 2)
        handle.seek(max(0, size - FOOTER_BYTES))
        return hashlib.blake2b(handle.read() + str(size).encode(), digest_size=8).hexdigest()


def known_keys(folder: Path, view: str, key: str, *, until: int) -> list[str]:
    """Return all users or contexts with a row stamped at or before `until`."""
    with duckdb.connect() as connection:
        rows = connection.execute(
            f"SELECT DISTINCT {key} FROM read_parquet('{sql_path(folder / view / '*.parquet')}')"
            f" WHERE event_timestamp <= make_timestamptz({until})"
        ).fetchall()
    return [value for (value,) in rows]


def sql_path(path: Path) -> str:
    """Escape a path for use inside an SQL string literal."""
    return str(path).replace("'", "''")
