"""Limits of posted events and items: the validation rules that can be checked for a single row.

The service refuses rows that break them. Otherwise validation would quarantine such a row only at
the next refresh. Until then, an event would be part of the user's online state, and an item would
be shown.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from shortlist import columns as c
from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.contracts import MAX_DAYS_AHEAD, MAX_VALUE, MEASURED
from shortlist.datasets.service.posted import broken_item_rules, broken_rules
from shortlist.http.api import Event, ItemChange
from shortlist.moments import moment_text

log = logging.getLogger("bentoml.shortlist")

MAX_AHEAD = 20 * 60 * 1_000_000
"""How far an event may be in the future, in microseconds, because a device's clock may be ahead.
Local time that is wrongly sent as UTC differs by at least 30 minutes, so it is still refused.
"""


@dataclass(frozen=True)
class EventLimits:
    """Limits of posted events, read from a file (see shortlist/validation/event_rules.py)."""

    enforced: frozenset[str] = frozenset()
    """Names of the rules that refuse an event; a rule that only warns is not among them."""
    rating_range: tuple[float, float] = (1, 5)
    latest: int | None = None
    """Latest valid time of an event, in microseconds; None: the present."""
    earliest: int = 0
    """Earliest valid time of an event, in microseconds."""
    max_text: int = 100_000
    """Maximum length of `text` and `query`, in characters."""
    sql: tuple[dict[str, Any], ...] = ()
    """Rules that the operator added or changed: SQL conditions on the columns of events."""
    items_sql: tuple[dict[str, Any], ...] = ()
    """The same for items."""

    @classmethod
    def read(cls, path: Path) -> "EventLimits":
        """Read the limits that validation wrote; without a file nothing is limited."""
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError:
            return cls()
        low, high = content["rating_range"]
        return cls(
            enforced=frozenset(content["enforced"]),
            rating_range=(low, high),
            earliest=content["earliest"],
            latest=content["latest"],
            max_text=content["max_text"],
            sql=tuple(content["sql"]),
            items_sql=tuple(content.get("items_sql", ())),
        )

    def complaint(self, event: Event, *, now: int) -> str | None:
        """Return what is wrong with an event and what would be right; None if it is valid.

        The rules in `sql` are not checked; see `complaints`.

        Args:
            now: wall-clock time in microseconds, even under the replay clock: replayed events are
                in the past, and no real event can be later than the wall clock.
        """
        at = event.event_timestamp
        if at is not None and at > now + MAX_AHEAD:
            return f"event_timestamp: {moment_text(at)} has not come yet; it is {moment_text(now)}"
        if at is not None and at < self.earliest and "event_timestamp.range" in self.enforced:
            return (
                f"event_timestamp: {moment_text(at)} is before {moment_text(self.earliest)}, the"
                " earliest time that validation accepts"
            )
        if at is not None and self.latest is not None and at > self.latest:
            return f"event_timestamp: {moment_text(at)} is after {moment_text(self.latest)}"
        for name, text in (("text", event.text), ("query", event.query)):
            if f"{name}.length" in self.enforced and len(text or "") > self.max_text:
                return f"{name}: want at most {self.max_text:,} characters, got {len(text or ''):,}"
        if event.value is None:
            return None
        return self._value_complaint(event.event_type, event.value)

    def _value_complaint(self, event_type: str, value: float) -> str | None:
        if abs(value) > MAX_VALUE and "value.finite" in self.enforced:
            return f"value: {value:g}; want at most {MAX_VALUE:g}"
        if event_type in MEASURED and value < 0 and "value.not_negative" in self.enforced:
            return f"value: a price or duration of {value:g}; want 0 or more"
        if event_type != "rating":
            return None
        low, high = self.rating_range
        rule = "value.unrated" if value == -1 and low > -1 else "value.rating_range"
        if rule in self.enforced and not low <= value <= high:
            return f"value: a rating of {value:g}; want {low:g} to {high:g}"
        return None

    def complaints(self, rows: Sequence[dict[str, Any]]) -> dict[str, str]:
        """Return {event_id: the reason} for the events that break a rule of `sql`.

        Args:
            rows: events as the inbox stores them (see `stored` in service.py).
        """
        return _evaluated(lambda rules: broken_rules(rows, rules), self.sql)

    def item_complaints(self, rows: pa.Table) -> dict[str, str]:
        """Return {item_id: the reason} for the items that break a rule of `items_sql`.

        Items that are not available are never refused: a withdrawal counts in any case.

        Args:
            rows: catalogue rows after the posted changes.
        """
        shown = rows.filter(pc.field(c.AVAILABLE))
        return _evaluated(lambda rules: broken_item_rules(shown, rules), self.items_sql)


def _evaluated(
    broken: Callable[[Sequence[dict[str, Any]]], dict[str, str]], rules: Sequence[dict[str, Any]]
) -> dict[str, str]:
    """Return {id: reason} for the rows that break one of `rules`.

    If a rule fails, each rule is evaluated alone, and those that fail are left out: they may need
    columns that only a batch has. The next refresh checks them.

    Args:
        broken: function that evaluates rules.
    """
    if not rules:
        return {}
    try:
        return broken(rules)
    except duckdb.Error:
        pass
    found: dict[str, str] = {}
    for rule in rules:
        try:
            found = broken([rule]) | found
        except duckdb.Error as error:
            text = str(error).splitlines()[0]
            log.error("'%s' can't be evaluated for posts: %s", rule["name"], text)
    return found


class EventLimitsFile:
    """The limits in force, read again whenever validation has rewritten their file."""

    def __init__(self, path: Path):
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._limits = EventLimits()

    def current(self) -> EventLimits:
        """Return the limits in force. If the file can't be read, the previous limits are used."""
        try:
            found = self._path.stat()
            stamp = found.st_mtime_ns, found.st_ino
        except OSError:
            return self._limits
        if stamp != self._stamp:
            try:
                self._limits = EventLimits.read(self._path)
            except (OSError, ValueError, KeyError):
                log.exception("events: %s can't be read; the limits stay", self._path)
            self._stamp = stamp
        return self._limits


def item_complaint(item: ItemChange, *, now: int) -> str | None:
    """Return what is wrong with a change of an item; None if it is valid.

    Args:
        now: wall-clock time in microseconds.
    """
    last = now + MAX_DAYS_AHEAD * MICROSECONDS_PER_DAY
    if item.published_at is not None and item.published_at > last:
        return (
            f"published_at: {moment_text(item.published_at)}; want at most {MAX_DAYS_AHEAD} days"
            f" ahead, so until {moment_text(last)}"
        )
    return None
