"""Stores what clients post: events, changes of items, and requests to forget a user.

Everything is on disk before it is acknowledged, and a post is stored as a whole or not at all.
"""

import logging
import sqlite3
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from bentoml.exceptions import InvalidArgument

from services.events.event_limits import EventLimitsFile, item_complaint
from services.events.event_log import EventLog, excluded_by
from shortlist.clock import HomeClock
from shortlist.config import Settings
from shortlist.datasets.service.item_commands import rows_after
from shortlist.forgetting.at_once import request_forgetting
from shortlist.forgetting.register import Register
from shortlist.http.api import Event, ItemChange
from shortlist.items.commands import CommandError, CommandInbox
from shortlist.lake import LakeError

log = logging.getLogger("bentoml.shortlist")


class NotStored(Exception):
    """The disk doesn't take a post now, and the message says why. Clients may send it again."""


@dataclass(frozen=True)
class StoredEvents:
    """What became of the events of a post."""

    new: list[dict[str, Any]]
    """Events that were stored, as lines of the inbox."""
    duplicates: int
    """Events whose `event_id` was stored before."""
    forgotten: int
    """Events of forgotten users that are older than the request to forget them."""


class Intake:
    """Writes posts to the inbox of events, the inbox of commands and the register of a home."""

    def __init__(self, settings: Settings, clock: HomeClock):
        self.settings = settings
        self.clock = clock
        self.limits = EventLimitsFile(settings.event_rules)
        self.commands = CommandInbox.of(settings)
        self.register = Register(settings.forgotten)
        self.inbox = EventLog(settings.events, now=clock.now, excluded=excluded_by(settings))

    @property
    def num_waiting(self) -> int:
        """Number of stored events that lists don't reflect yet."""
        return self.inbox.num_waiting

    def store_events(self, events: Sequence[Event], *, received: int) -> StoredEvents:
        """Store the events of a post.

        Args:
            received: time of arrival on the wall clock, microseconds.

        Raises:
            InvalidArgument: an event breaks a rule; nothing was stored.
            NotStored: the inbox can't be written, or the tail can't be read.
        """
        limits = self.limits.current()
        for number, event in enumerate(events):
            if complaint := limits.complaint(event, now=received):
                raise InvalidArgument(f"events.{number}.{complaint}; nothing was stored")
        try:
            with self.clock.stamping() as moment:
                wall = self.clock.kind == "wall"
                rows = [stored(event, received=moment, wall=wall) for event in events]
                broken = limits.complaints(rows)
                if broken:
                    refuse_broken(rows, broken)
                kept = [
                    row
                    for row in rows
                    if not self.register.hides(row["user_id"], row["event_timestamp"])
                ]
                new = self.inbox.append(kept)
        except (OSError, sqlite3.Error) as error:
            log.exception("events: the inbox cannot be written, or the tail cannot be read")
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise NotStored(reason) from error
        try:
            newest = max((row["event_timestamp"] for row in kept), default=-1)
            self.clock.advance(newest + 1)
        except OSError as error:  # the events are stored; the next post writes the clock
            log.warning("events: the home's clock cannot be written: %s", error)
        return StoredEvents(new, duplicates=len(kept) - len(new), forgotten=len(rows) - len(kept))

    def store_items(self, changes: Sequence[ItemChange], *, above: int) -> int:
        """Write changes of items to the command inbox; return the number of the last command.

        Args:
            above: number of a command that workers know; the new ones get larger numbers.

        Raises:
            InvalidArgument: an item breaks a rule; nothing was stored.
            NotStored: the command inbox can't be written.
        """
        for number, item in enumerate(changes):
            if complaint := item_complaint(item, now=self.clock.now()):
                raise InvalidArgument(f"items.{number}.{complaint}; nothing was stored")
        try:
            self._refuse_broken_items(changes)
            with self.clock.stamping() as moment:
                given = [one.given for one in changes]
                return self.commands.append(given, received_at=moment, above=above)
        except (OSError, CommandError) as error:
            log.exception("items: the command inbox cannot be written")
            raise NotStored(str(error)) from error

    def forget(self, user_id: str) -> tuple[int, dict[str, int]]:
        """Store the request to forget a user; return its time and {place: rows removed at once}.

        Raises:
            NotStored: the register or the command inbox can't be written.
        """
        try:
            with self.clock.stamping() as moment:
                removed = request_forgetting(self.settings, user_id, at=moment)
            self.clock.advance(moment + 1)
        except (OSError, CommandError) as error:
            log.exception("users: the command inbox cannot be written")
            raise NotStored(str(error)) from error
        return moment, removed

    def close(self) -> None:
        self.inbox.close()

    def _refuse_broken_items(self, changes: Sequence[ItemChange]) -> None:
        """Raise InvalidArgument if an item would break a rule of the operator after the changes."""
        limits = self.limits.current()
        if not limits.items_sql:
            return
        given = [one.given for one in changes]
        try:
            rows = rows_after(self.settings, given, received_at=self.clock.now())
        except LakeError as error:  # a service without a lake; the refresh checks the rules
            log.warning("items: rules of validation can't be checked: %s", error)
            return
        broken = limits.item_complaints(rows)
        for number, item in enumerate(changes):
            if reason := broken.get(item.item_id):
                raise InvalidArgument(f"items.{number}: {reason}; nothing was stored")


def refuse_broken(rows: Sequence[dict[str, Any]], broken: dict[str, str]) -> NoReturn:
    """Raise InvalidArgument for the first posted event that breaks a rule of the operator.

    Args:
        rows: the posted events.
        broken: {event_id: why it is refused}.
    """
    number, event_id = next(
        (number, row["event_id"]) for number, row in enumerate(rows) if row["event_id"] in broken
    )
    raise InvalidArgument(f"events.{number}: {broken[event_id]}; nothing was stored")


def stored(event: Event, *, received: int, wall: bool) -> dict[str, Any]:
    """Return an event as a line of the inbox.

    Args:
        received: time of arrival on the home's clock, microseconds.
        wall: True for the wall clock. Then an event time after the arrival is replaced by the
            arrival time - 1.
    """
    row = event.model_dump(exclude_none=True)
    row.setdefault("event_id", uuid.uuid4().hex)
    # A request sees only events strictly before it. The replay clock may stand still between post
    # and request; without the - 1, the next response would then not reflect the event.
    row.setdefault("event_timestamp", received - 1)
    if wall:
        row["event_timestamp"] = min(row["event_timestamp"], received - 1)
    return row | {"received_at": received}
