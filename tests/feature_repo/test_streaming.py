"""States updated event by event equal batch states, with SQLite and with a Redis server."""

from pathlib import Path

import numpy as np

from flows.featurize import featurize
from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.config import Settings
from shortlist.feature_store import OfflineReader, OnlineReader, Tail
from shortlist.features.finalize import RequestRows
from tests.feature_repo.streams import (
    CODES,
    START,
    TARGETS,
    USERS_HERE,
    arrivals,
    as_posted,
    assert_same,
    publish,
)


def test_the_night_agrees_with_the_day(online_store: str, tmp_path: Path) -> None:
    """Online states after a day of posts equal the states that featurize builds afterwards."""
    settings = Settings(home=tmp_path / "home", online_store=online_store)
    publish(settings, "before", arrivals(40, seed=0, start=START))
    featurize(settings, TARGETS, until=START + 2 * DAY)
    day = arrivals(60, seed=1, start=START + 2 * DAY)
    reader, tail = OnlineReader(settings), Tail.of(settings)
    users, contexts = [*USERS_HERE, "nobody"], [""] * 5

    def read(at: int) -> RequestRows:
        return reader.read(users, contexts, np.full(5, at))

    def counts(at: int) -> tuple[float, float]:
        rows = read(at)
        others = rows.user["user_group_counts"].sum() + sum(held.count for held in rows.searches)
        return rows.user["user_events"].sum(), others

    for number, (event, when) in enumerate(day):
        ratings, others = counts(when + 1)
        assert len(tail.insert([as_posted(event, when, event_id=f"day-{number}")])) == 1
        # The next request sees the event.
        assert counts(when + 1) == (ratings + event.target, others + (not event.target))
        if number == 30:  # compared below with the point-in-time join at this time
            middle = read(when + 1)
    night = START + 4 * DAY
    streamed = read(night)
    publish(settings, "day", day)
    result = featurize(settings, TARGETS, until=night)
    rated = sum(event.target for event, _ in day)
    assert 30 < rated < 50
    assert result["rows"]["user_stats"] <= rated  # one more part, without a rebuild
    searched = sum(event.query is not None for event, _ in day)
    assert 5 < searched < 60 - rated
    assert result["rows"]["user_searches"] <= searched
    assert result["rows"]["user_event_groups"] <= 60 - rated - searched
    assert result["incremental"]
    assert_same(read(night), streamed)
    offline = OfflineReader(settings)
    assert_same(offline.read(users, contexts, np.full(5, night)), streamed)
    # For a time in the middle of the day, training sees what was served then.
    assert_same(offline.read(users, contexts, np.full(5, day[30][1] + 1)), middle)
    assert sum(counts(night)) == 100
    assert {*np.concatenate(streamed.history_types).tolist()} == {*CODES}
    assert streamed.user["user_events"][4] == 0
