"""Forget: carries out requests of people to be forgotten (`shortlist forget`, DELETE /users/{id}).

These functions aren't Prefect flows with parameters: Prefect would store the user's id.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from shortlist.config import Settings
from shortlist.feature_store import home_clock
from shortlist.forgetting.at_once import request_forgetting
from shortlist.forgetting.erase import erase
from shortlist.forgetting.places import LABELS
from shortlist.forgetting.requests import ForgetInbox
from shortlist.home.audit import write_audit
from shortlist.home.home_lock import REFRESH_WAIT, home_lock
from shortlist.ids import id_problem
from shortlist.releases.release import MANIFEST, ReleaseStore

WHAT = "shortlist forget"
WAIT_SECONDS = 60.0
AT_ONCE = ("online store", "shown items")
"""Places that a request empties at once."""


class ForgetError(ValueError):
    """The user id can't be an id; the message says why."""


def forget(settings: Settings, user_id: str, *, now: bool = False) -> dict[str, Any]:
    """Request that a user is forgotten; with `now`, erase the user from all files of the home.

    A user that the home doesn't know is recorded all the same: events of the past that are ingested
    later are then ignored.

    Returns:
        {"removed": {place: rows}, "left": [place: when it is erased, or why it isn't]}; with `now`
        also "proofs".

    Raises:
        ForgetError: `user_id` can't be the id of a user.
        HomeLocked: with `now`, a training or refresh runs. The request stays pending.
        LakeError: with `now`, a process reads an older snapshot. The request stays pending.
    """
    if problem := id_problem(user_id, of_user=True):
        raise ForgetError(f"USER: {problem}")
    clock = home_clock(settings, _clock_kind(settings))
    with clock.stamping() as at:
        removed = request_forgetting(settings, user_id, at=at)
    clock.advance(at + 1)  # so that later events have a later time, also in replay mode
    if not now:
        return {"removed": removed, "left": _pending_places(settings)}
    done = erase_pending(settings)
    for place, rows in removed.items():
        done["removed"][place] = done["removed"].get(place, 0) + rows
    return done


def erase_pending(settings: Settings) -> dict[str, Any]:
    """Erase everybody with a pending request from all files of the home; see `erase`.

    Raises:
        HomeLocked, LakeError: a process works with data of the people.
    """
    if not ForgetInbox(settings).pending():
        return {"removed": {}, "left": [], "proofs": []}
    with _all_locks(settings):
        done = erase(settings)
    write_audit(
        settings,
        "forget",
        before=None,
        after="",
        reason="requests to forget people",
        evidence={"people": len(done["proofs"]), "left": done["left"]},
    )
    return done


@contextlib.contextmanager
def _all_locks(settings: Settings) -> Iterator[None]:
    with (
        home_lock(settings, "train", what=WHAT),
        home_lock(settings, "refresh", what=WHAT, wait_seconds=REFRESH_WAIT),
        home_lock(settings, "release", what=WHAT, wait_seconds=WAIT_SECONDS),
    ):
        yield


def _pending_places(settings: Settings) -> list[str]:
    """Return the places of the home that a later step erases."""
    found = []
    for folder, place in LABELS.items():
        if not (settings.home / folder).exists() or place in AT_ONCE:
            continue
        when = "the next refresh" if place in ("lake", "states") else "the next compaction"
        found.append(f"{place}: erased by {when}")
    return found


def _clock_kind(settings: Settings) -> Any:
    """Return the clock of the served release; without one, a home with a stored clock replays."""
    store = ReleaseStore(settings.releases)
    if (current := store.current_id()) is not None:
        return json.loads((store.root / current / MANIFEST).read_text())["about"]["clock"]
    return "replay" if (settings.home / "clock.json").is_file() else "wall"
