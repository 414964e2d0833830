"""Propensities of the logging policy, checked against an enumeration of all possible pages."""

import itertools

import numpy as np
import pytest

from simulation import World, load_world_config
from simulation.day import ShownPages, simulate_day
from simulation.events import CODE
from simulation.policy import LoggingPolicy, Page
from simulation.state import State

PLACES = 3
DRAWS = 50_000


@pytest.fixture(scope="module")
def small() -> World:
    """A world with so few items that all pages can be enumerated; all topics allow search."""
    catalogue = {"items": 14, "items_per_day": 0, "topics": 2, "dim": 4}
    changes = {"catalogue": catalogue, "sessions": {"slate": PLACES, "search": 0.4}, "days": 3}
    world = World(load_world_config("tiny", changes={**changes}))
    assert np.bincount(world.items.topic).min() >= 2 * PLACES
    return world


def shares(world: World, topic: int, *, searched: bool) -> np.ndarray:
    """Return (N,) the probability of each item in one draw, by the documented mixture."""
    params, items = world.config.logging, world.items
    loud = items.weight / items.weight.sum()
    within = np.where(items.topic == topic, loud, 0)
    within = within / within.sum()
    if searched:
        return within
    uniform = np.full(len(loud), 1 / len(loud))
    rest = 1 - params.uniform - params.personal
    return params.uniform * uniform + params.personal * within + rest * loud


def conditional(share: np.ndarray, slate: np.ndarray) -> np.ndarray:
    """Return (S, K) the probability of each item, given the items at earlier positions."""
    drawn = share[slate]
    before = np.cumsum(drawn, axis=1) - drawn
    return drawn / (1 - before)


@pytest.mark.parametrize(("searched", "tries"), [(False, 200), (True, 200), (False, 1), (True, 1)])
def test_propensities_are_the_chances_of_whole_pages(small, searched, tries, monkeypatch):
    """Drawn pages have the frequencies that enumeration of all pages of three items gives.

    Compares items by position and whole pages. With `tries` = 1, `_draw_rest` draws repeated items
    from an enumeration.
    """
    monkeypatch.setattr("simulation.policy.TRIES", tries)
    topic = 1 - int(small.users.favourite[0]) if searched else int(small.users.favourite[0])
    share = shares(small, topic, searched=searched)
    n = small.num_items
    user = np.zeros(DRAWS, dtype=np.int64)
    asked = Page(user, np.zeros(DRAWS), user > 0, user + topic if searched else user - 1)
    policy = LoggingPolicy(small, 0)
    item, chance = policy.slates(asked, k=PLACES, rng=np.random.default_rng(1))
    assert chance == pytest.approx(conditional(share, item))
    pages = np.array(list(itertools.permutations(np.flatnonzero(share), PLACES)))
    exact = conditional(share, pages).prod(1)
    assert exact.sum() == pytest.approx(1)
    for place in range(PLACES):
        wanted = np.bincount(pages[:, place], weights=exact, minlength=n)
        found = np.bincount(item[:, place], minlength=n) / DRAWS
        error = np.sqrt(wanted * (1 - wanted) / DRAWS)
        assert (abs(found - wanted) <= 5 * error).all()
    code = np.array([n**2, n, 1])
    common = np.argsort(-exact)[:40]
    drawn = np.bincount(item @ code, minlength=n**3)[pages[common] @ code] / DRAWS
    assert (abs(drawn - exact[common]) <= 5 * np.sqrt(exact[common] / DRAWS)).all()


def test_a_page_is_filled_although_a_few_items_weigh_nearly_everything():
    catalogue = {"items": 400, "topics": 2}
    changes = {"catalogue": catalogue, "sessions": {"slate": 90}, "logging": {"skew": 3}}
    world = World(load_world_config("tiny", changes={**changes}))
    user = np.arange(100)
    asked = Page(user, np.zeros(100), user < 0, user % 3 - 1)
    item, _ = LoggingPolicy(world, 0).slates(asked, k=90, rng=np.random.default_rng(3))
    assert (np.diff(np.sort(item, axis=1), axis=1) > 0).all(), "an item twice"


def test_the_propensity_in_the_log_is_the_chance_of_that_place(small):
    """Impressions of home pages and of search pages have the documented propensities."""
    rounds: list[ShownPages] = []
    state = State.fresh(small, 0, small.num_users)
    simulate_day(small, state, 0, watch=rounds.append)
    seen = {False: 0, True: 0}
    for shown in rounds:
        events = shown.events
        logged = events.value[events.event_type == CODE["impression"]].reshape(shown.item.shape)
        for row, slate in enumerate(shown.item):
            searched = bool(shown.page.topic[row] >= 0)
            favourite = small.users.favourite[shown.page.user[row]]
            topic = int(shown.page.topic[row] if searched else favourite)
            share = shares(small, topic, searched=searched)
            assert logged[row] == pytest.approx(conditional(share, slate[None])[0])
            seen[searched] += 1
    assert min(seen.values()) > 20


def test_a_query_shows_only_its_topic(small):
    user = np.arange(200)
    asked = Page(user, np.zeros(200), user < 0, np.full(200, 1))
    item, _ = LoggingPolicy(small, 0).slates(asked, k=PLACES, rng=np.random.default_rng(2))
    assert (small.items.topic[item] == 1).all()
    assert (np.diff(np.sort(item, axis=1), axis=1) > 0).all(), "an item twice"
