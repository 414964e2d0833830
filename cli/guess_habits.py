"""What `shortlist init` reads from people's habits: whether they come back for the same thing."""

from shortlist import columns as c
from shortlist.datasets.guess import Guess, Sample
from shortlist.lake.engine import quoted

MANY_REPEATS = 0.3
"""From this share of repeats on, people come back for what they know."""
HIGH, LOW = 0.7, 0.2
"""From that part of a rating scale on a rating is a like; up to that part it is a refusal."""
MANY_RATINGS = 50
"""With so many different values a scale has no steps."""


def share_of_repeats(sample: Sample, events: Guess, *, target: str) -> float:
    """Share of the target events whose user had one of the same item at another time."""
    columns = sample.raw.expressions
    user, item, time = (
        f"({columns[events.mapping[name]]})::VARCHAR"
        for name in (c.USER_ID, c.ITEM_ID, c.EVENT_TIMESTAMP)
    )
    words = [word for word in events.words if events.more["event_types"].get(word, word) == target]
    only = ""
    if words:
        listed = ", ".join(quoted(word) for word in words)
        only = f"AND ({columns[events.mapping[c.EVENT_TYPE]]})::VARCHAR IN ({listed})"
    ((pairs, all_),) = sample.ask(
        f"SELECT count(DISTINCT ({user}, {item})), count(DISTINCT ({user}, {item}, {time}))"
        f" FROM {sample.raw.relation}"
        f" WHERE {user} IS NOT NULL AND {item} IS NOT NULL {only}"
    )
    return 1 - pairs / all_ if all_ else 0.0


def liked_from(rating: tuple[float, float], counts: dict[str, int]) -> float:
    """The lowest rating that occurs at 70% of the scale or above: it counts as a like."""
    edge = rating[0] + HIGH * (rating[1] - rating[0])
    above = [one for one in _numbers(counts) if one >= edge]
    return min(above) if above and len(counts) < MANY_RATINGS else round(edge, 1)


def low_rating(rating: tuple[float, float], counts: dict[str, int]) -> float | None:
    """The highest rating in the lowest part of the scale; None if the scale says nothing."""
    edge = rating[0] + LOW * (rating[1] - rating[0])
    if not rating[0] < rating[1] or len(counts) >= MANY_RATINGS:
        return None
    return max((one for one in _numbers(counts) if rating[0] <= one <= edge), default=None)


def _numbers(counts: dict[str, int]) -> list[float]:
    """The values that are numbers."""
    numbers = []
    for word in counts:
        try:
            numbers.append(float(word))
        except ValueError:
            continue
    return numbers
