"""Erases people from all files of a home, and writes a proof of it.

Every step can be repeated. If the process is killed, the requests are still pending, and the next
erasure does what is left.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shortlist import columns as c
from shortlist.config import Settings
from shortlist.datasets.service.service_log import read_lines
from shortlist.files.plain_json import write_json
from shortlist.forgetting.formats import erase_parquet
from shortlist.forgetting.from_lake import drop_old_snapshots, remove_from_lake
from shortlist.forgetting.hashed_users import hash_release, releases_with_ids, restore_releases
from shortlist.forgetting.keys import home_key
from shortlist.forgetting.person import Person
from shortlist.forgetting.places import (
    erase_file,
    erase_online,
    erase_staged,
    files_of,
    label,
    mentions,
)
from shortlist.forgetting.register import Register
from shortlist.forgetting.requests import ForgetInbox, ForgetRequest
from shortlist.lake import Lake


def forget_in_lake(settings: Settings) -> int:
    """Remove the people with pending requests from the newest snapshot of the lake.

    The caller must hold the refresh lock, and build the states afterwards.

    Returns:
        The number of removed rows.
    """
    people = _people(ForgetInbox(settings).pending())
    if not people:
        return 0
    _complete_register(settings, people)
    removed = remove_from_lake(settings.lake, {person.user_id: person.at for person in people})
    for path in settings.features.rglob("*.parquet"):  # a rebuild would keep old profiles
        erase_parquet(path, people)
    return removed


def erase(settings: Settings) -> dict[str, Any]:
    """Erase everybody with a pending request from all files of the home.

    The caller must hold the locks `train`, `refresh` and `release`.

    Returns:
        {"removed": {place: rows}, "left": [place: why it still has one of the people],
        "proofs": [path]}. With an empty `left` the requests are complete.

    Raises:
        LakeError: a running process reads an older snapshot of the lake; nothing was erased.
    """
    inbox = ForgetInbox(settings)
    pending = inbox.pending()
    people = _people(pending)
    if not people:
        return {"removed": {}, "left": [], "proofs": []}
    _complete_register(settings, people)
    removed = _RemovedRows()
    removed.add(
        "lake", remove_from_lake(settings.lake, {person.user_id: person.at for person in people})
    )
    drop_old_snapshots(settings.lake)
    removed.add("lake", erase_staged(settings, people))
    failed = _erase_files(settings, people, removed)
    left = [f"{place}: {why}" for place, why in failed.items()]
    back = _users_with_later_events(settings, people)
    for person in people:
        found = mentions(settings, person, has_later_events=person.user_id in back)
        left += [f"{place}: {rows} rows or files" for place, rows in found.items()]
    left = sorted(set(left))
    proofs = [str(_write_proof(settings, person, removed.rows, left)) for person in people]
    if not left:
        inbox.complete([request.number for request in pending])
    return {"removed": removed.rows, "left": left, "proofs": proofs}


class _RemovedRows:
    """Counts removed rows by place."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}

    def add(self, place: str, rows: int) -> None:
        if rows:
            self.rows[place] = self.rows.get(place, 0) + rows


def _erase_files(
    settings: Settings, people: Sequence[Person], removed: _RemovedRows
) -> dict[str, str]:
    """Erase people from all files outside of the lake; return {place: why a file failed}."""
    failed: dict[str, str] = {}
    try:
        for place, rows in erase_online(settings, people).items():
            removed.add(place, rows)
    except OSError as error:
        failed["online store"] = str(error)
    restore_releases(settings.home)
    key = home_key(settings.forgotten)
    for release in releases_with_ids(settings.home, [person.user_id for person in people]):
        removed.add(label(settings, release), hash_release(release, key))
    for path in files_of(settings):
        try:
            removed.add(label(settings, path), erase_file(settings, path, people))
        except FileNotFoundError:  # another process removed it
            continue
        except OSError as error:
            failed[label(settings, path)] = str(error)
    return failed


def _people(requests: Sequence[ForgetRequest]) -> list[Person]:
    """Return each person once, with the time of the newest request."""
    newest: dict[str, int] = {}
    for request in requests:
        newest[request.user_id] = max(request.received_at, newest.get(request.user_id, 0))
    return [Person(user_id, at) for user_id, at in newest.items()]


def _complete_register(settings: Settings, people: Sequence[Person]) -> None:
    """Add people to the register whose request was stored just before a crash."""
    register = Register(settings.forgotten)
    for person in people:
        if (register.at(person.user_id) or 0) < person.at:
            register.add(person.user_id, person.at)


def _users_with_later_events(settings: Settings, people: Sequence[Person]) -> set[str]:
    """Return those of the people who have events after their request."""
    back: set[str] = set()
    lake = Lake(settings.lake)
    folder = lake.folder
    if folder is not None:
        known = set(lake.users().column(c.USER_ID).to_pylist())
        back |= {person.user_id for person in people if person.user_id in known}
    asked = {person.user_id for person in people}
    for log in (settings.events, settings.serving_log):
        seen = {entry.get(c.USER_ID) for _, _, entry in read_lines(log, left_out=[])}
        back |= asked.intersection(seen)
    return back


def _write_proof(
    settings: Settings, person: Person, removed: Mapping[str, int], left: Sequence[str]
) -> Path:
    """Write the proof of an erasure: what was removed, where and when, without the id."""
    name = Register(settings.forgotten).hash_of(person.user_id)
    now = datetime.now(UTC)
    proof = {
        "user": name,
        "requested_at": datetime.fromtimestamp(person.at / 1e6, UTC).isoformat(),
        "erased_at": now.isoformat(),
        "home": settings.home_name,
        "removed": dict(removed),
        "left": list(left),
        "complete": not left,
    }
    return write_json(settings.forgotten / f"{now:%Y%m%dT%H%M%S}-{name[:16]}.json", proof)
