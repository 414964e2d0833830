"""What a posted event may say: the rules of validation that one event can be judged by.

Ingest would part such an event from the others a night later; by then it would have been in the
user's online state all day.
"""

from dataclasses import dataclass
from typing import Any

from shortlist.api import Event
from shortlist.contracts import MAX_VALUE, MEASURED
from shortlist.moments import moment_text

MAX_AHEAD = 20 * 60 * 1_000_000
"""Microseconds that a sender's clock may be ahead of this machine's. Local time sent as UTC is at
least 30 minutes off, and stays a mistake.
"""


@dataclass(frozen=True)
class EventLimits:
    """Limits of one release."""

    rating_range: tuple[float, float] | None
    """None: the run only warns of ratings beyond its range, or knows none."""
    earliest: int
    """Microseconds: validation would refuse an older event."""

    @classmethod
    def of(cls, about: dict[str, Any]) -> "EventLimits":
        limits = about.get("rating_range")
        return cls(
            rating_range=None if limits is None else (limits[0], limits[1]),
            earliest=about.get("earliest", 0),
        )

    def complaint(self, event: Event, *, now: int) -> str | None:
        """What is wrong with an event and what would be right, or None.

        Args:
            now: the wall's, microseconds. The replay clock stands in the past; nobody can have
                done anything after the wall's.
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
