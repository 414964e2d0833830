"""Clean windows that are hard: what changes although nothing is wrong."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.detection.faults import Context, ranked_with
from benchmarks.detection.log import Log, picked
from benchmarks.detection.record import Lists
from monitoring.traffic.join import DAY, HOUR


def weekend(at: Context, lists: Lists) -> Lists:
    """Weekly season: only half of the pages of the working days."""
    day = (lists.page.at - at.shop.world.start) // DAY % 7
    return lists.take(np.flatnonzero((day >= 5) | (at.rng.random(len(lists)) < 0.5)))


def holiday(at: Context, lists: Lists) -> Lists:
    """Twice the traffic on three days, by the same users."""
    day = (lists.page.at - at.shop.world.start) // DAY % 7
    again = np.flatnonzero(day < 3)
    page = lists.page.take(again)
    later = replace(lists.take(again), page=replace(page, at=page.at + HOUR))
    rows = np.concatenate([np.arange(len(lists)), again])
    both = lists.take(rows)
    at_ = np.concatenate([lists.page.at, later.page.at])
    moved = replace(both, page=replace(both.page, at=at_))
    return moved.take(np.argsort(at_, kind="stable"))


def campaign(at: Context, lists: Lists) -> Lists:
    """Everybody wants one topic more than usual, and the lists follow."""
    topic = at.shop.world.topics[int(at.rng.integers(len(at.shop.world.topics)))]
    moment = replace(lists.moment, taste=(lists.moment.taste + 0.35 * topic).astype(np.float32))
    known = replace(at.known, taste=at.known.taste + 0.35 * topic)
    return ranked_with(at, replace(lists, moment=moment), known)


def catalogue_drop(at: Context, lists: Lists) -> Lists:
    """A tenth of the items is sold out."""
    gone = at.rng.random(at.shop.world.num_items) < 0.1
    return ranked_with(at, lists, at.known, allowed=~gone)


def nights(at: Context, lists: Lists) -> Lists:
    """A third of the traffic, as if only the quiet hours were served."""
    return lists.take(np.flatnonzero(at.rng.random(len(lists)) < 1 / 3))


def retraining(at: Context, lists: Lists) -> Lists:
    """A new release: other noise in tastes and items, and scores on another scale."""
    dim = at.known.taste.shape[1]
    noise = at.rng.standard_normal(at.known.taste.shape) * 0.1 / dim**0.5
    known = replace(at.known, taste=at.known.taste + noise)
    lists = ranked_with(at, lists, known)
    return replace(lists, score=0.9 * lists.score + 0.1)


def label_delay(at: Context, log: Log) -> Log:
    """All events arrive up to twelve hours late, within the delay that is configured."""
    late = (at.rng.random(len(log.events)) * 12 * HOUR).astype(np.int64)
    return replace(log, events=log.events.assign(known=log.events["known"] + late))


def plain(at: Context, log: Log) -> Log:
    return picked(log, np.ones(len(log.requests), dtype=bool))


OF_PAGES: dict[str, Callable[[Context, Lists], Lists]] = {
    "weekly season": weekend,
    "holiday": holiday,
    "night hours": nights,
}
"""Other pages, before lists are made."""
OF_LISTS: dict[str, Callable[[Context, Lists], Lists]] = {
    "campaign": campaign,
    "catalogue drop": catalogue_drop,
    "planned retraining": retraining,
}
"""Other lists, in each round of the closed loop."""
OF_LOG: dict[str, Callable[[Context, Log], Log]] = {"label delay": label_delay, "plain": plain}
KINDS = (*OF_PAGES, *OF_LISTS, *OF_LOG)
