"""Guesses of `shortlist init` about user behaviour, made from the data.

They are how often users return to the same item, and which ratings count as a like or a refusal
(negative feedback).
"""

from shortlist import columns as c
from shortlist.datasets.guess.sample import Guess, Sample
from shortlist.lake.engine import quoted

MANY_REPEATS = 0.3
"""If at least this share of target events repeats an item, items may be recommended again."""
HIGH, LOW = 0.7, 0.2
"""Positions on a rating scale from 0 (lowest) to 1 (highest). A rating at or above HIGH is a like,
one at or below LOW is a refusal.
"""
EDGE = 0.1
"""Share of the rows at each end that is ignored when the core of a rating scale is found."""
OUTLIERS = 0.05
"""If a larger share of rows lies beyond the scale, the scale is extended to all values."""
MANY_RATINGS = 50
"""With at least this many distinct values, a scale counts as continuous."""


def share_of_repeats(sample: Sample, events: Guess, *, target: str) -> float:
    """Return the share of target events that repeat an earlier event of the same user and item.

    Rows without a user or an item are left out.

    Args:
        target: the target event type, which models learn to predict.
    """
    user, item, time = (
        sample.text(events.mapping[name]) for name in (c.USER_ID, c.ITEM_ID, c.EVENT_TIMESTAMP)
    )
    nobody = ", ".join(quoted(word) for word in ("", *events.more.get("no_user", [])))
    ((pairs, all_),) = sample.ask(
        f"SELECT count(DISTINCT ({user}, {item})), count(DISTINCT ({user}, {item}, {time}))"
        f" FROM {sample.raw.relation} WHERE {user} NOT IN ({nobody}) AND {item} IS NOT NULL"
        f" AND {rows_of_type(sample, events, target)}"
    )
    return 1 - pairs / all_ if all_ else 0.0


def rows_of_type(sample: Sample, events: Guess, event_type: str) -> str:
    """Return an SQL condition that selects the rows of one event type."""
    quantity = events.more.get("return_if_negative")
    if quantity is not None and event_type == "purchase":
        return f"coalesce({sample.number(quantity)} >= 0, true)"
    words = [
        word for word in events.words if events.more["event_types"].get(word, word) == event_type
    ]
    if not words:
        return "true"
    listed = ", ".join(quoted(word) for word in words)
    return f"{sample.text(events.mapping[c.EVENT_TYPE])} IN ({listed})"


def rating_scale(ratings: dict[float, int]) -> tuple[dict[float, int], int]:
    """Find the rating scale that most rows use.

    The core of the scale is the middle 80% of the rows. The scale is extended outwards, value by
    value, as long as the gap to the next value is not wider than the scale so far (or than half of
    the core's largest absolute value). If more than OUTLIERS of the rows would lie beyond the
    scale, all values belong to it.

    Args:
        ratings: {rating: number of rows}, in increasing order of the rating.

    Returns:
        {rating: number of rows} on the scale, and the number of rows beyond it.
    """
    total, seen, core = sum(ratings.values()), 0, []
    for value, rows in ratings.items():
        if seen + rows > EDGE * total and seen < (1 - EDGE) * total:
            core.append(value)
        seen += rows
    if not core:
        return ratings, 0
    low, high = core[0], core[-1]
    near = max(abs(low), abs(high)) / 2
    for value in [rating for rating in ratings if rating > high]:
        if value - high <= max(high - low, near):
            high = value
    for value in [rating for rating in reversed(ratings) if rating < low]:
        if low - value <= max(high - low, near):
            low = value
    kept = {key: rows for key, rows in ratings.items() if low <= key <= high}
    beyond = total - sum(kept.values())
    return (ratings, 0) if beyond > OUTLIERS * total else (kept, beyond)


def liked_from(ratings: dict[float, int]) -> float:
    """Return the lowest rating that counts as a like.

    It is the lowest rating in the data at or above position HIGH of the scale. If there is none, or
    the scale is continuous, it is the value at this position.
    """
    low, high = min(ratings), max(ratings)
    edge = low + HIGH * (high - low)
    above = [rating for rating in ratings if rating >= edge]
    return min(above) if above and len(ratings) < MANY_RATINGS else round(edge, 1)


def low_rating(ratings: dict[float, int]) -> float | None:
    """Return the highest rating that counts as a refusal.

    It is the highest rating in the data at or below position LOW of the scale. None if all ratings
    are equal or the scale is continuous.
    """
    low, high = min(ratings), max(ratings)
    if low == high or len(ratings) >= MANY_RATINGS:
        return None
    return max((rating for rating in ratings if rating <= low + LOW * (high - low)), default=None)
