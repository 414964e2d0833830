"""State of simulated users from day to day (visits, trust, boredom, taste), checked by sampling."""

import numpy as np
import pytest

from simulation import World, load_world_config
from simulation.day import ShownPages, simulate_day
from simulation.state import State

MONDAY, SATURDAY = 0, 5
DRAWS = 12


@pytest.fixture(scope="module")
def town() -> World:
    """A world with many users and few items."""
    changes: dict[str, object] = {"population": {"users": 5_000}, "days": 8}
    return World(load_world_config("tiny", changes=changes))


def fresh(world: World, *, trust: float | None = None, left: bool = False) -> State:
    state = State.fresh(world, 0, world.users_on(0))
    if trust is not None:
        state.trust[:] = trust
    state.left[:] = left
    return state


def near(found: float, chances: np.ndarray) -> bool:
    """Return whether a count is within 5 standard deviations of its expectation.

    Args:
        chances: probabilities of the independent events that are counted.
    """
    return abs(found - chances.sum()) <= 5 * np.sqrt((chances * (1 - chances)).sum())


@pytest.mark.parametrize("day", [MONDAY, SATURDAY])
@pytest.mark.parametrize("trust", [0.0, 0.5, 1.0])
def test_visits_and_departures_follow_trust(town, trust, day):
    """Visits and departures have the documented probabilities.

    P(visit) is activity x (floor + (1 - floor) x trust), times a factor on weekends. P(leave) is
    churn x (1 - trust).
    """
    params, population = town.config.behaviour, town.config.population
    visits = left = 0
    for draw in range(DRAWS):
        state = fresh(town, trust=trust)
        visits += len(state.draw_visits(town, day, np.random.default_rng([draw, day])))
        left += int(state.left.sum())
    activity = np.tile(town.users.activity[: town.users_on(0)], DRAWS)
    comes = activity * (params.visit_floor + (1 - params.visit_floor) * trust)
    comes = np.minimum(comes * (town.config.sessions.weekend if day == SATURDAY else 1), 1)
    leaves = np.full(len(comes), population.churn * (1 - trust))
    assert near(visits, comes * (1 - leaves))
    assert near(left, leaves)
    assert (left > 0) == (trust < 1)


def test_those_who_left_come_back_at_the_configured_rate(town):
    trust, back = 0.8, 0
    for draw in range(DRAWS):
        state = fresh(town, trust=trust, left=True)
        came = state.draw_visits(town, MONDAY, np.random.default_rng(draw))
        back += int((~state.left).sum())
        assert not state.left[came].any()
    assert near(back, np.full(DRAWS * town.users_on(0), town.config.population.comeback * trust))
    assert back > 0


@pytest.fixture(scope="module")
def lived(town) -> tuple[State, list[tuple[ShownPages, np.ndarray, np.ndarray]]]:
    """The state after one day, and its rounds of pages with trust and boredom after each."""
    state = fresh(town)
    rounds: list[tuple[ShownPages, np.ndarray, np.ndarray]] = []

    def watch(shown: ShownPages) -> None:
        rounds.append((shown, state.trust.copy(), state.boredom.copy()))

    simulate_day(town, state, MONDAY, watch=watch)
    return state, rounds


def test_a_page_moves_trust_towards_what_it_was_worth(town, lived):
    params = town.config.behaviour
    first, second = lived[1][:2]
    for shown, trust, _ in (first, second):
        worth = params.trust_neutral + params.trust_gain * shown.outcome.satisfied
        before = shown.moment.trust
        wanted = np.clip(before + params.trust_rate * (worth - before), 0, 1)
        assert trust[shown.page.user] == pytest.approx(wanted, abs=1e-6)
        assert (abs(wanted - before) > 0.001).mean() > 0.9
    went_on = second[0].page.user
    assert second[0].moment.trust == pytest.approx(first[1][went_on]), "trust carries over"


def test_boredom_rises_with_each_item_of_a_topic_and_fades_overnight(town, lived):
    params = town.config.behaviour
    shown, _, boredom = lived[1][0]
    topics = np.zeros_like(boredom)
    out = shown.outcome
    np.add.at(topics, (shown.page.user[out.row], town.items.topic[out.item]), 1)
    assert boredom == pytest.approx(np.minimum(params.boredom_rise * topics, 1), abs=1e-6)
    assert topics.max() > 1
    state = fresh(town)
    state.boredom[:] = 0.8
    came = state.draw_visits(town, 3, np.random.default_rng(0))
    assert state.boredom[came] == pytest.approx(0.8 * params.boredom_decay**3, abs=1e-5)
    stayed = np.setdiff1d(np.arange(len(state.trust)), came)
    assert state.boredom[stayed] == pytest.approx(0.8)


def test_tastes_drift_and_are_pulled_towards_what_is_consumed(town, lived):
    """Tastes drift by the configured step, and move towards clicked items.

    The mean squared step over g days is g x drift squared, minus the part along the taste itself,
    which normalisation removes.
    """
    population = town.config.population
    state = fresh(town)
    before = state.taste.copy()
    came = state.draw_visits(town, 4, np.random.default_rng(0))
    step = ((state.taste[came] - before[came]) ** 2).sum(1)
    dim = before.shape[1]
    wanted = 4 * population.taste_drift**2 * (dim - 1) / dim
    assert step.mean() == pytest.approx(wanted, rel=0.1)
    shown = lived[1][0][0]
    clicked = np.flatnonzero(shown.outcome.clicks == 1)
    user = shown.page.user[clicked]
    item = shown.outcome.item[np.isin(shown.outcome.row, clicked)]
    alone = ~np.isin(user, lived[1][1][0].page.user)
    moment = town.users.taste[user]
    moved = lived[0].taste[user] - moment
    towards = town.items.vector[item] - moment
    assert (moved * towards).sum(1)[alone].mean() > 0


def test_visits_have_a_daily_rhythm(town, lived):
    """Start times of visits have the documented distribution.

    They are normal around 12:30 (deviation 3 h) and 20:00 (2 h), plus up to 30 minutes. The
    configured share of visits starts with a query.
    """
    shown = lived[1][0][0]
    hour = (shown.page.at - town.midnight(MONDAY)) / 3.6e9
    rng = np.random.default_rng(0)
    evening = rng.random(400_000) < np.clip(
        rng.normal(town.config.sessions.evening, 0.2, size=400_000), 0, 1
    )
    drawn = np.where(evening, rng.normal(20, 2, size=400_000), rng.normal(12.5, 3, size=400_000))
    drawn = np.clip(drawn, 0.2, 22.5) + rng.uniform(0, 0.5, size=400_000)
    edges = [0, 6, 9, 12, 15, 18, 21, 24]
    wanted = np.histogram(drawn, edges)[0] / len(drawn)
    found = np.histogram(hour, edges)[0] / len(hour)
    assert (abs(found - wanted) <= 5 * np.sqrt(wanted * (1 - wanted) / len(hour))).all()
    assert wanted.max() > 20 * wanted.min()
    searches = (shown.page.topic >= 0).mean()
    assert searches == pytest.approx(town.config.sessions.search, abs=0.03)
