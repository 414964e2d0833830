"""Limits of posted events: the validation rules that apply to a single event.

Validation would quarantine such an event at the next refresh. Until then, it would be part of the
user's online state.
"""

from dataclasses import dataclass
from typing import Any

from shortlist.api import Event
from shortlist.contracts import MAX_VALUE, MEASURED
from shortlist.moments import moment_text

MAX_AHEAD = 20 * 60 * 1_000_000
"""How far an event may be in the future, in microseconds, because a device's clock may be ahead.
Local time that is sent as UTC differs by at least 30 minutes, so it is still refused.
"""


@dataclass(frozen=True)
class EventLimits:
    """Limits of posted events, from the manifest of one release."""

    rating_range: tuple[float, float] | None
    """Lowest and highest accepted rating; None if the release doesn't limit ratings."""
    earliest: int
    """Validation refuses events before this time, in microseconds."""

    @classmethod
    def of(cls, about: dict[str, Any]) -> "EventLimits":
        limits = about.get("rating_range")
        return cls(
            rating_range=None if limits is None else (limits[0], limits[1]),
            earliest=about.get("earliest", 0),
        )

    def complaint(self, event: Event, *, now: int) -> str | None:
        """Return what is wrong with an event and what would be right; None if it is valid.

        Args:
            now: wall-clock time in microseconds, even under the replay clock: replayed events are
                in the past, and no real event can be later than the wall clock.
        """
        at, value = event.event_timestamp, event.value
        if at is not None and at > now + MAX_AHEAD:
            return f"event_timestamp: {moment_text(at)} has not come yet; it is {moment_text(now)}"
        if at is not None and at < self.earliest:
            return (
                f"event_timestamp: {moment_text(at)} is before {moment_text(self.earliest)}, the"
                " earliest that this release's validation takes"
            )
        if value is None:
            return None
        if abs(value) > MAX_VALUE:
            return f"value: {value:g}; want at most {MAX_VALUE:g}"
        if event.event_type in MEASURED and value < 0:
            return f"value: a price or duration of {value:g}; want 0 or more"
        if event.event_type == "rating" and self.rating_range is not None:
            low, high = self.rating_range
            if not low <= value <= high:
                return f"value: a rating of {value:g}; this release's are {low:g} to {high:g}"
        return None
