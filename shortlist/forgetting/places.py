"""The places of a home that can hold data about people, and how each is erased."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

from shortlist.config import Settings
from shortlist.feature_store.store import ONLINE_STORE
from shortlist.forgetting.at_once import delete_online
from shortlist.forgetting.formats import (
    ERASERS,
    count_mentions,
    erase_lines,
    erase_parquet,
    format_of,
    vacuum,
)
from shortlist.forgetting.person import Person

LABELS = {
    "lake": "lake",
    "features": "states",
    "feast": "online store",
    "events": "posted events",
    "serving_log": "serving log",
    "answer_log": "answer log",
    "shown.db": "shown items",
    "quarantine": "quarantine",
    "held_back": "held-back events",
    "runs": "runs",
    "releases": "releases",
    "bentoml": "Bentos",
    "reports": "reports",
    "great_expectations": "validation results",
    "logs": "logs",
    "prefect": "Prefect",
    "cache": "downloads",
}
"""First part of a path in the home -> name of the place; others have the name of that part."""
OF_LINES = ("events", "serving_log", "answer_log")
"""Folders of logs whose lines belong to one user each."""
CODE = (".py", ".pyc", ".js", ".css", ".svg", ".sh")
FOREVER = 2**62


def label(settings: Settings, path: Path) -> str:
    """Return the name of the place that a file of the home belongs to."""
    first = path.relative_to(settings.home).parts[0]
    return LABELS.get(first, first)


def files_of(settings: Settings) -> Iterator[Path]:
    """Yield all files of the home but those that the erasure itself needs, and program code."""
    inbox = settings.events / "commands.db"
    for path in sorted(settings.home.rglob("*")):
        inside = path.relative_to(settings.home).parts
        if path.is_symlink() or not path.is_file() or inside[0] in ("forgotten", "locks"):
            continue
        if path.suffix not in CODE and not path.name.startswith(inbox.name):
            yield path


def erase_file(settings: Settings, path: Path, people: Sequence[Person]) -> int:
    """Erase people from a file; return the number of removed rows, lines or mentions.

    The lake, the online files and releases are erased elsewhere.

    Raises:
        OSError: the file can't be erased now.
    """
    first = path.relative_to(settings.home).parts[0]
    if first in ("lake", "releases") or path.name.endswith(("-wal", "-shm", "-journal")):
        return 0
    if path in online_files(settings):
        return 0
    if first == "cache":  # downloads of sources are fetched again when they are needed
        return _erase_download(path, people)
    if first in OF_LINES and path.suffix == ".jsonl":
        return erase_lines(path, people)
    if first == "held_back":  # these events are known already, whatever their time
        people = [replace(person, at=FOREVER) for person in people]
    erase = ERASERS.get(format_of(path))
    return 0 if erase is None else erase(path, people)


def online_files(settings: Settings) -> tuple[Path, ...]:
    """Return the SQLite files with rows of users that requests read."""
    return (
        settings.events / "tail.db",
        settings.feast / ONLINE_STORE,
        settings.home / "shown.db",
    )


def erase_online(settings: Settings, people: Sequence[Person]) -> dict[str, int]:
    """Delete the people's rows in the tail, the online store and the shown items.

    The files are rewritten without free pages.

    Returns:
        {place: number of deleted rows}.

    Raises:
        EraseError: a process keeps a file locked.
    """
    removed: dict[str, int] = {}
    for person in people:
        for place, rows in delete_online(settings, person.user_id, at=person.at).items():
            removed[place] = removed.get(place, 0) + rows
    for path in online_files(settings):
        if path.is_file():
            vacuum(path)
    return removed


def erase_staged(settings: Settings, people: Sequence[Person]) -> int:
    """Remove staged batches with rows of the people; the next ingest stages them again.

    Returns:
        The number of rows of the people in these batches.
    """
    removed = 0
    for folder in (settings.lake / "incoming").glob("*"):
        rows = sum(erase_parquet(path, people) for path in folder.rglob("*.parquet"))
        if rows:
            rmtree(folder)
        removed += rows
    return removed


def mentions(settings: Settings, person: Person, *, has_later_events: bool) -> dict[str, int]:
    """Return {place: files and rows that still have the person}, read from all files of the home.

    Args:
        has_later_events: whether the person has events after the request; see `count_mentions`.
    """
    found: dict[str, int] = {}
    for path in files_of(settings):
        try:
            rows = count_mentions(path, person, has_later_events=has_later_events)
        except FileNotFoundError:  # another process removed it
            continue
        if rows:
            place = label(settings, path)
            found[place] = found.get(place, 0) + rows
    return found


def _erase_download(path: Path, people: Sequence[Person]) -> int:
    if format_of(path) == "binary":
        return 0
    asked = [replace(person, at=FOREVER) for person in people]
    content = path.read_bytes()
    found = sum(any(text in content for text in person.spellings) for person in asked)
    if format_of(path) in ("gzip", "parquet"):
        found += sum(count_mentions(path, person, has_later_events=False) for person in asked)
    if found:
        path.unlink()
    return found
