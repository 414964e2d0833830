"""Items that a user refused: negative feedback, which holds until it is taken back.

A refusal counts from the moment at which it became known, whatever the run's target events are, and
the item isn't shown to that user again. A later event that says the opposite takes it back. Events
that say neither (a view, a click) change nothing.
"""

from dataclasses import dataclass, replace

from shortlist.features.event_groups import EVENT_GROUPS

REFUSING = EVENT_GROUPS["negatives"]
"""Event types that refuse an item."""
TAKING_BACK = ("like", "add_to_cart", "purchase")
"""Event types that take a refusal back."""
RATED = ("rating", "review")
"""With a `low_rating`: refuse the item up to that value, take a refusal back above it."""
MAX_REFUSED = 1000
"""So many of a user's newest refusals are held."""
USER_REFUSALS = ("refused_items", "refused_times")


@dataclass(frozen=True)
class Refusals:
    """USER_REFUSALS of one user without their prefix: when each item was refused, microseconds; in
    order of time, then of the moment at which it became known.
    """

    items: tuple[str, ...] = ()
    times: tuple[int, ...] = ()

    def before(self, at: int) -> "Refusals":
        """Those strictly before `at` microseconds."""
        kept = [place for place, time in enumerate(self.times) if time < at]
        if len(kept) == len(self.times):
            return self
        return Refusals(
            tuple(self.items[place] for place in kept), tuple(self.times[place] for place in kept)
        )

    def with_event(self, item_id: str, *, refused: bool, timestamp: int) -> "Refusals":
        """After one event more, which became known after all before."""
        rest = [pair for pair in zip(self.times, self.items, strict=True) if pair[1] != item_id]
        if refused:
            rest.append((timestamp, item_id))
            rest.sort(key=lambda pair: pair[0])
        elif len(rest) == len(self.items):
            return self
        rest = rest[-MAX_REFUSED:]
        return replace(
            self, items=tuple(item for _, item in rest), times=tuple(time for time, _ in rest)
        )


NO_REFUSALS = Refusals()


def refuses(event_type: str, value: float | None, *, low_rating: float | None) -> bool | None:
    """Whether an event refuses its item; False if it takes a refusal back, None if it says neither.

    Args:
        low_rating: ratings up to this value refuse; None: no rating says anything.
    """
    if event_type in REFUSING:
        return True
    if event_type in TAKING_BACK:
        return False
    if event_type in RATED and low_rating is not None and value is not None and value == value:
        return value <= low_rating
    return None
