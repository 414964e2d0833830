"""Behaviour of simulated users on a page, and the oracle's expectations, checked by sampling."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from simulation import SimulatedConfig, World, open_world
from simulation.behaviour import LatentState, attraction, chances
from simulation.oracle import OBJECTIVES, Oracle
from simulation.outcome import Outcome, draw_outcome
from simulation.policy import Page
from simulation.state import State


@pytest.fixture(scope="module")
def world() -> World:
    return open_world(SimulatedConfig(preset="tiny"))


def moments(world: World, users: np.ndarray, *, seed: int = 0) -> LatentState:
    """Return the latent state of these users on day 3, each with a random mood."""
    rng = np.random.default_rng(seed)
    state = State.fresh(world, 0, world.num_users)
    mood = rng.normal(scale=0.2, size=(len(users), world.topics.shape[1])).astype(np.float32)
    intent = np.zeros(len(users), dtype=np.float32)
    at = np.full(len(users), world.midnight(3))
    return state.moment(world, users, mood=mood, intent=intent, at=at)


def page(world: World, users: np.ndarray) -> Page:
    n = len(users)
    at = np.full(n, world.midnight(3) + 43_200_000_000)
    return Page(users, at, np.zeros(n, dtype=bool), np.full(n, -1))


def draws_of(world: World, one: LatentState, slate: np.ndarray, *, draws: int) -> Outcome:
    """Draw `draws` outcomes of one slate for one latent state."""
    moment = one.take(np.zeros(draws, dtype=np.int64))
    slates = np.repeat(slate, draws, axis=0)
    return draw_outcome(world, moment, page(world, moment.user), slates, np.random.default_rng(4))


def test_measured_position_bias_is_the_configured_one(world):
    """With the same item at each position, clicks decrease as k ** -position_decay."""
    draws = 40_000
    one = moments(world, np.zeros(1, dtype=np.int64))
    every = np.arange(200)[None]
    _, attracted = attraction(world.config.behaviour, world.items, one, every)
    slate = np.full((1, 5), int(attracted[0].argmax()))
    out = draws_of(world, one, slate, draws=draws)
    clicks = np.bincount(out.place, minlength=5) / draws
    seen = np.array([1, 2, 3, 4, 5]) ** -world.config.behaviour.position_decay
    expected = seen * attracted.max()
    assert expected[0] > 3 * expected[4]
    assert clicks == pytest.approx(expected, abs=5 * np.sqrt(expected.max() * 0.5 / draws))


def test_attraction_is_liking_less_boredom_and_appeal(world):
    """Affinity and click probability equal values computed by hand."""
    params, items = world.config.behaviour, world.items
    one = moments(world, np.array([3]))
    one.boredom[:] = 0.5
    item = np.array([[0, 5, 11]])
    liking = items.vector[item[0]] @ one.taste[0] - params.boredom * 0.5
    odds = (
        params.click + params.click_affinity * liking + params.click_appeal * items.appeal[item[0]]
    )
    liked, attracted = attraction(params, items, one, item)
    assert liked[0] == pytest.approx(liking, abs=1e-5)
    assert attracted[0] == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-5)


def test_what_follows_a_click_happens_as_often_as_configured(world):
    """Views, ratings, reviews and survey answers have the configured shares.

    Very dissatisfied users answer surveys half as often.
    """
    params = world.config.behaviour
    one = moments(world, np.array([7]))
    mean = chances(params, world.items, one, np.arange(200)[None])
    mixed = np.where(abs(mean.satisfaction[0] + 0.5) < 0.3, mean.attraction[0], 0)
    out = draws_of(world, one, np.argsort(-mixed)[None, :6], draws=120_000)
    assert out.view.mean() == pytest.approx(params.view, abs=0.01)
    rated = out.stars[out.view] > 0
    assert rated.mean() == pytest.approx(params.rating, abs=0.01)
    assert out.reviewed[out.stars > 0].mean() == pytest.approx(params.review, abs=0.02)
    asked = params.survey * params.survey_answer
    upset = out.satisfaction < -0.5
    for group, share in ((out.view & upset, asked / 2), (out.view & ~upset, asked)):
        answered = out.surveyed[group] > 0
        error = 4 * np.sqrt(share / len(answered))
        assert error < asked / 8, "too few to tell"
        assert answered.mean() == pytest.approx(share, abs=error)
    assert not (out.surveyed[~out.view] > 0).any()


@pytest.fixture(scope="module")
def drawn(world):
    """The expected results of one slate for one latent state, and 60,000 draws."""
    one = moments(world, np.array([7]))
    slate = Oracle(world).best_slates(one, day=3, objective="satisfaction", k=6)
    return Oracle(world).expect(one, slate), draws_of(world, one, slate, draws=60_000)


@pytest.mark.parametrize("what", [name for name in OBJECTIVES if name != "retention"])
def test_the_oracles_expectation_is_the_mean_of_many_draws(drawn, what):
    expected, out = drawn
    values = {
        "clicks": out.clicks,
        "conversion": out.sum(out.bought.astype(float)),
        "watch_seconds": out.sum(out.watched),
        "satisfaction": out.satisfied,
        "revenue": out.revenue,
    }[what]
    error = 4 * values.std() / np.sqrt(len(values))
    assert getattr(expected, what)[0] == pytest.approx(values.mean(), abs=error)
    assert values.mean() > 5 * error / 4, "a figure near 0 would prove nothing"


@pytest.mark.parametrize("trust", [0.1, 0.6, 0.95, 1.0])
@pytest.mark.parametrize("pleases", [True, False])
def test_expected_retention_is_the_mean_over_drawn_pages(world, trust, pleases):
    """The expectation equals the mean over drawn pages of P(stay) x P(visit).

    Both depend on the trust after the page, clipped to 0..1.
    """
    one = replace(moments(world, np.array([7])), trust=np.array([trust], dtype=np.float32))
    item_values = Oracle(world).item_values(
        one, np.arange(world.items_on(3))[None], "satisfaction"
    )[0]
    slate = np.argsort(-item_values if pleases else item_values)[None, :6]
    out = draws_of(world, one, slate, draws=150_000)
    params, population = world.config.behaviour, world.config.population
    page_worth = params.trust_neutral + params.trust_gain * out.satisfied
    after = np.clip(trust + params.trust_rate * (page_worth - trust), 0, 1)
    visit = one.activity[0] * (params.visit_floor + (1 - params.visit_floor) * after)
    comes = (1 - population.churn * (1 - after)) * visit
    error = 4 * comes.std() / np.sqrt(len(comes))
    expected = Oracle(world).expect(one, slate).retention[0]
    assert expected == pytest.approx(comes.mean(), abs=error)


@pytest.mark.parametrize(("noise", "error"), [(0.0, 1e-4), (0.3, 1e-6)])
def test_expected_retention_is_what_arithmetic_gives_for_two_places(world, noise, error):
    """The expectation equals numerical integration over the noise, for all four sets of clicks."""
    from simulation.retention import return_chance

    params = world.config.behaviour.model_copy(update={"satisfaction_noise": noise})
    config = world.config.model_copy(update={"behaviour": params})
    clicked, satisfaction = np.array([[0.7, 0.2]]), np.array([[1.5, -2.0]])
    trust, z = np.array([0.98]), np.linspace(-8, 8, 20_001)
    normal = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    wanted = 0.0
    for clicks in itertools.product([0, 1], repeat=2):
        chance = np.prod(np.where(clicks, clicked, 1 - clicked))
        sums = satisfaction[0] @ clicks + noise * np.sqrt(sum(clicks)) * z
        item_values = params.trust_neutral + params.trust_gain * sums
        after = np.clip(trust + params.trust_rate * (item_values - trust), 0, 1)
        visit = 0.4 * (params.visit_floor + (1 - params.visit_floor) * after)
        wanted += chance * normal @ ((1 - config.population.churn * (1 - after)) * visit)
    found = return_chance(
        config, activity=np.array([0.4]), trust=trust, clicked=clicked, satisfaction=satisfaction
    )
    assert found[0] == pytest.approx(wanted, abs=error)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_slate_beats_the_best_one(world, objective):
    users = np.arange(40)
    moment = moments(world, users, seed=5)
    oracle = Oracle(world)
    best = oracle.best_slates(moment, day=3, objective=objective, k=5)
    top = getattr(oracle.expect(moment, best), objective)
    rng = np.random.default_rng(6)
    for _ in range(50):
        other = rng.integers(world.items_on(3), size=best.shape)
        assert (getattr(oracle.expect(moment, other), objective) <= top + 1e-6).all()
    swapped = best[:, ::-1]
    assert (getattr(oracle.expect(moment, swapped), objective) <= top + 1e-6).all()
