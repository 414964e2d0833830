"""What `shortlist init` reads from people's habits: whether they come back for the same thing."""

from shortlist import columns as c
from shortlist.datasets.guess.sample import Guess, Sample
from shortlist.lake.engine import quoted

MANY_REPEATS = 0.3
"""From this share of repeats on, people come back for what they know."""
HIGH, LOW = 0.7, 0.2
"""From that part of a rating scale on a rating is a like; up to that part it is a refusal."""
EDGE = 0.1
"""Share of the rows on each side that doesn't decide where a rating scale begins."""
OUTLIERS = 0.05
"""With a larger share of rows beyond a scale, it is no scale."""
MANY_RATINGS = 50
"""With so many different values a scale has no steps."""


def share_of_repeats(sample: Sample, events: Guess, *, target: str) -> float:
    """Share of the target events whose user had one of the same item at another time. Rows without
    a user are left out.
    """
    user, item, time = (
        sample.text(events.mapping[name]) for name in (c.USER_ID, c.ITEM_ID, c.EVENT_TIMESTAMP)
    )
    nobody = ", ".join(quoted(one) for one in ("", *events.more.get("no_user", [])))
    ((pairs, all_),) = sample.ask(
        f"SELECT count(DISTINCT ({user}, {item})), count(DISTINCT ({user}, {item}, {time}))"
        f" FROM {sample.raw.relation} WHERE {user} NOT IN ({nobody}) AND {item} IS NOT NULL"
        f" AND {rows_of_type(sample, events, target)}"
    )
    return 1 - pairs / all_ if all_ else 0.0


def rows_of_type(sample: Sample, events: Guess, event_type: str) -> str:
    """SQL condition on the rows of one event type."""
    words = [
        word for word in events.words if events.more["event_types"].get(word, word) == event_type
    ]
    if not words:
        return "true"
    listed = ", ".join(quoted(word) for word in words)
    return f"{sample.text(events.mapping[c.EVENT_TYPE])} IN ({listed})"


def rating_scale(ratings: dict[float, int]) -> tuple[dict[float, int], int]:
    """The ratings of the scale that most rows are on, and the number of rows beyond it.

    The scale begins with the middle 80% of the rows. The next value belongs to it unless it is
    further away than the scale is wide. If many rows would lie beyond, all values are the scale.

    Args:
        ratings: {rating: rows}, by size.
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
    for value in [one for one in ratings if one > high]:
        if value - high <= max(high - low, near):
            high = value
    for value in [one for one in reversed(ratings) if one < low]:
        if low - value <= max(high - low, near):
            low = value
    kept = {one: rows for one, rows in ratings.items() if low <= one <= high}
    beyond = total - sum(kept.values())
    return (ratings, 0) if beyond > OUTLIERS * total else (kept, beyond)


def liked_from(ratings: dict[float, int]) -> float:
    """The lowest rating that occurs at 70% of the scale or above: it counts as a like."""
    low, high = min(ratings), max(ratings)
    edge = low + HIGH * (high - low)
    above = [one for one in ratings if one >= edge]
    return min(above) if above and len(ratings) < MANY_RATINGS else round(edge, 1)


def low_rating(ratings: dict[float, int]) -> float | None:
    """The highest rating in the lowest part of the scale; None if the scale says nothing."""
    low, high = min(ratings), max(ratings)
    if low == high or len(ratings) >= MANY_RATINGS:
        return None
    return max((one for one in ratings if one <= low + LOW * (high - low)), default=None)
