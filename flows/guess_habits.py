"""What `shortlist init` reads from people's habits: whether they come back for the same thing."""

from shortlist import columns as c
from shortlist.datasets.guess import Guess, Sample

MANY_REPEATS = 0.3
"""From this share of repeats on, people come back for what they know."""
LOW = 0.2
"""Part of a rating scale, from its lower end, that says `not this one`."""


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
        listed = ", ".join("'" + word.replace("'", "''") + "'" for word in words)
        only = f"AND ({columns[events.mapping[c.EVENT_TYPE]]})::VARCHAR IN ({listed})"
    ((pairs, all_),) = sample.ask(
        f"SELECT count(DISTINCT ({user}, {item})), count(DISTINCT ({user}, {item}, {time}))"
        f" FROM {sample.raw.relation}"
        f" WHERE {user} IS NOT NULL AND {item} IS NOT NULL {only}"
    )
    return 1 - pairs / all_ if all_ else 0.0


def low_rating(rating: tuple[float, float], counts: dict[str, int]) -> float | None:
    """The highest rating in the lowest part of the scale; None if the scale says nothing."""
    edge = rating[0] + LOW * (rating[1] - rating[0])
    if not rating[0] < rating[1] or len(counts) >= 50:
        return None
    numbers = []
    for word in counts:
        try:
            numbers.append(float(word))
        except ValueError:
            continue
    return max((one for one in numbers if rating[0] <= one <= edge), default=None)
