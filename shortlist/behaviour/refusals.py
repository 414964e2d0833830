"""Refusals: negative feedback on an item, after which the item is not shown to that user.

A refusal counts from the time at which it became known, whatever the run's target events are. Later
positive feedback (TAKING_BACK, or a rating above `low_rating`) withdraws it. Other events, such as
views and clicks, don't change it.
"""

from dataclasses import dataclass, replace

from shortlist.features.event_groups import EVENT_GROUPS

REFUSING = EVENT_GROUPS["negatives"]
"""Event types that refuse an item."""
TAKING_BACK = ("like", "add_to_cart", "purchase")
"""Event types that withdraw a refusal."""
RATED = ("rating", "review")
"""Event types with a rating. If `low_rating` is set, a value up to it refuses the item and a higher
value withdraws a refusal.
"""
MAX_REFUSED = 1000
"""Maximum number of refusals kept per user; the newest are kept."""
USER_REFUSALS = ("refused_items", "refused_times")


@dataclass(frozen=True)
class Refusals:
    """Items that a user has refused, and the times of refusal: USER_REFUSALS without the prefix.

    Sorted by time (microseconds), then by the time at which the refusal became known.
    """

    items: tuple[str, ...] = ()
    times: tuple[int, ...] = ()

    def before(self, at: int) -> "Refusals":
        """Return the refusals strictly before `at` microseconds."""
        kept = [index for index, time in enumerate(self.times) if time < at]
        if len(kept) == len(self.times):
            return self
        return Refusals(
            tuple(self.items[index] for index in kept), tuple(self.times[index] for index in kept)
        )

    def with_event(self, item_id: str, *, refused: bool, timestamp: int) -> "Refusals":
        """Return the refusals after one more event, which became known after all earlier ones.

        Args:
            refused: True adds a refusal of the item, False withdraws it.
        """
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
    """Return True if an event refuses its item, False if it withdraws a refusal, None if neither.

    Args:
        low_rating: ratings up to this value refuse the item, higher ones withdraw a refusal; None:
            ratings are ignored.
    """
    if event_type in REFUSING:
        return True
    if event_type in TAKING_BACK:
        return False
    if event_type in RATED and low_rating is not None and value is not None and value == value:
        return value <= low_rating
    return None
