"""The world's own claims, measured on what it publishes and on many draws."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from shortlist.config import ConfigError
from shortlist.contracts import EVENT_TYPES, INTERACTIONS, ITEMS, USERS
from shortlist.datasets import Batch
from shortlist.datasets.simulated import (
    SimulatedConfig,
    World,
    load_simulated,
    load_world_config,
    preset_names,
    stream,
)
from shortlist.datasets.simulated.behaviour import Moment, attraction, look
from shortlist.datasets.simulated.oracle import OBJECTIVES, Oracle
from shortlist.datasets.simulated.outcome import Outcome, act
from shortlist.datasets.simulated.policy import LoggingPolicy, Page
from shortlist.datasets.simulated.state import State

PUBLISHED = {"vector_image", "vector_audio", "vector_video"}


@pytest.fixture(scope="module")
def world() -> World:
    return SimulatedConfig(preset="tiny").world()


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    config = SimulatedConfig(preset="tiny")
    return load_simulated(config, cache=tmp_path_factory.mktemp("cache"), now=5)


def moments(world: World, users: np.ndarray, *, seed: int = 0) -> Moment:
    """Some users on day 3, each with a mood."""
    rng = np.random.default_rng(seed)
    state = State.fresh(world, 0, world.num_users)
    mood = rng.normal(scale=0.2, size=(len(users), world.topics.shape[1])).astype(np.float32)
    return state.moment(world, users, mood=mood, intent=np.zeros(len(users), dtype=np.float32))


def page(world: World, users: np.ndarray, *, topic: int = -1) -> Page:
    n = len(users)
    at = np.full(n, world.midnight(3) + 43_200_000_000)
    return Page(users, at, np.zeros(n, dtype=bool), np.full(n, topic))


def test_every_type_of_event_is_there_and_the_contract_is_kept(batch):
    kinds = set(pc.unique(batch.interactions.column("event_type")).to_pylist())
    assert kinds == set(EVENT_TYPES)
    assert batch.interactions.schema.equals(INTERACTIONS)
    ids = batch.interactions.column("event_id")
    assert pc.count_distinct(ids).as_py() == len(ids)


def test_no_latent_column_can_reach_the_lake(batch, world):
    """Columns are the contracts' and nothing more; none carries quality, appeal or a taste."""
    assert batch.interactions.column_names == INTERACTIONS.names
    assert set(batch.items.column_names) == {*ITEMS.names, *PUBLISHED}
    assert batch.users.column_names == USERS.names
    keys = {key for row in batch.items.column("attributes").to_pylist() for key, _ in row}
    keys |= {key for row in batch.users.column("attributes").to_pylist() for key, _ in row}
    assert keys == {"colour", "minutes", "age", "country"}
    numbers = [batch.items.column("price").to_numpy()]
    numbers += list(np.stack(batch.items.column("vector_image").to_pylist()).T)
    for latent in (world.items.quality, world.items.appeal, np.log(world.items.weight)):
        for column in numbers:
            assert abs(np.corrcoef(latent, column)[0, 1]) < 0.6
    texts = batch.items.column("description").to_pylist()
    assert len(set(texts)) < len(texts), "a text that is unique could spell out anything"


def test_the_same_config_is_the_same_world_whatever_the_threads(batch, world):
    again = pa.concat_tables(stream(world, ingested_at=5, threads=1))
    assert again.equals(batch.interactions)
    chunked = World(load_world_config("tiny", changes={"chunk": 100}))
    one, two = (pa.concat_tables(stream(chunked, ingested_at=5, threads=n)) for n in (1, 2))
    assert one.equals(two)
    other = SimulatedConfig(preset="tiny", seed=1).world()
    different = pa.concat_tables(stream(other, ingested_at=5))
    assert not different.equals(batch.interactions)


def test_a_log_that_stops_early_holds_what_was_there_by_then(batch, tmp_path):
    short = load_simulated(SimulatedConfig(preset="tiny", log_days=4), cache=tmp_path, now=5)
    n = short.interactions.num_rows
    assert short.interactions.equals(batch.interactions.slice(0, n))
    assert short.items.num_rows < batch.items.num_rows
    assert short.items.equals(batch.items.slice(0, short.items.num_rows))
    known = pc.is_in(short.interactions.column("item_id"), value_set=short.items.column("item_id"))
    assert pc.all(known).as_py()


def test_events_follow_what_caused_them(batch):
    """A click lies after its impression, a purchase after its cart, on the page that showed it."""
    frame = batch.interactions.to_pandas()
    frame = frame[frame["request_id"].notna()]
    key = ["request_id", "item_id"]
    first = {
        kind: frame[frame["event_type"] == kind].set_index(key)["event_timestamp"]
        for kind in ("impression", "click", "view", "add_to_cart", "purchase", "survey")
    }
    for cause, effect in (
        ("impression", "click"),
        ("click", "view"),
        ("view", "add_to_cart"),
        ("add_to_cart", "purchase"),
        ("view", "survey"),
    ):
        joined = first[effect].to_frame("effect").join(first[cause].to_frame("cause"))
        assert joined["cause"].notna().all(), f"{effect} without {cause}"
        assert (joined["effect"] > joined["cause"]).all()


def test_propensities_match_frequencies(world):
    """First places: chances of all items sum to 1 and are how often each is drawn."""
    policy = LoggingPolicy(world, 3)
    user = np.zeros(60_000, dtype=np.int64)
    item, chance = policy.slates(page(world, user), k=3, rng=np.random.default_rng(1))
    every = np.arange(policy.n)
    wanted = np.full(policy.n, world.users.favourite[0])
    exact = policy.chance(every, wanted, np.zeros(policy.n, dtype=bool))
    assert exact.sum() == pytest.approx(1)
    assert chance[:, 0] == pytest.approx(exact[item[:, 0]])
    for place in range(3):
        drawn = np.bincount(item[:, place], minlength=policy.n)
        if place == 0:
            error = (drawn - 60_000 * exact) / np.sqrt(60_000 * exact * (1 - exact))
            assert abs(error).max() < 5
        # Inverse propensities: sum over drawn of 1 / chance is N less those used, for each place.
        assert (1 / chance[:, place]).mean() == pytest.approx(policy.n - place, rel=0.1)
    assert (np.sort(item, axis=1)[:, 1:] > np.sort(item, axis=1)[:, :-1]).all(), "an item twice"


def test_a_query_shows_only_its_topic(world):
    policy = LoggingPolicy(world, 3)
    topic = int(np.argmax(np.bincount(policy.topic)))
    asked = page(world, np.arange(200), topic=topic)
    item, chance = policy.slates(asked, k=5, rng=np.random.default_rng(2))
    assert (world.items.topic[item] == topic).all()
    assert (chance > 0).all()
    assert (chance <= 1).all()


def test_measured_position_bias_is_the_configured_one(world):
    """The same item on every place for the same moment: clicks fall as looks do."""
    draws = 40_000
    moment = moments(world, np.zeros(draws, dtype=np.int64))
    moment = moment.take(np.zeros(draws, dtype=np.int64))
    _, attracted = attraction(
        world.config.behaviour, world.items, moment.take(np.zeros(1, int)), np.arange(200)[None]
    )
    item = np.full((draws, 5), int(attracted[0].argmax()))
    out = act(world, moment, page(world, moment.user), item, np.random.default_rng(3))
    clicks = np.bincount(out.place, minlength=5) / draws
    expected = look(world.config.behaviour, 5) * attracted.max()
    assert expected[0] > 3 * expected[4]
    assert clicks == pytest.approx(expected, abs=5 * np.sqrt(0.25 / draws))


def draws_of(world: World, one: Moment, slate: np.ndarray, *, draws: int) -> tuple[Moment, Outcome]:
    """The same slate for the same moment, many times."""
    moment = one.take(np.zeros(draws, dtype=np.int64))
    slates = np.repeat(slate, draws, axis=0)
    return moment, act(world, moment, page(world, moment.user), slates, np.random.default_rng(4))


@pytest.fixture(scope="module")
def drawn(world):
    """One slate for one moment: expected, and drawn 60,000 times."""
    one = moments(world, np.array([7]))
    slate = Oracle(world).best_slates(one, day=3, objective="satisfaction", k=6)
    return Oracle(world).expect(one, slate), draws_of(world, one, slate, draws=60_000)[1]


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
    """Trust after each drawn page, cut to 0..1 as the day cuts it, then the chance to stay times
    the chance to come.
    """
    one = replace(moments(world, np.array([7])), trust=np.array([trust], dtype=np.float32))
    worth = Oracle(world).worth(one, np.arange(world.items_on(3))[None], "satisfaction")[0]
    slate = np.argsort(-worth if pleases else worth)[None, :6]
    moment, out = draws_of(world, one, slate, draws=150_000)
    about, population = world.config.behaviour, world.config.population
    page_worth = about.trust_neutral + about.trust_gain * out.satisfied
    after = np.clip(trust + about.trust_rate * (page_worth - trust), 0, 1)
    visit = one.activity[0] * (about.visit_floor + (1 - about.visit_floor) * after)
    comes = (1 - population.churn * (1 - after)) * visit
    error = 4 * comes.std() / np.sqrt(len(comes))
    expected = Oracle(world).expect(one, slate).retention[0]
    assert expected == pytest.approx(comes.mean(), abs=error)


@pytest.mark.parametrize(("noise", "error"), [(0.0, 1e-4), (0.3, 1e-6)])
def test_expected_retention_is_what_arithmetic_gives_for_two_places(world, noise, error):
    """Four sets of clicks, each with a normal satisfaction, integrated on a fine grid."""
    from shortlist.datasets.simulated.retention import return_chance

    about = world.config.behaviour.model_copy(update={"satisfaction_noise": noise})
    config = world.config.model_copy(update={"behaviour": about})
    clicked, satisfaction = np.array([[0.7, 0.2]]), np.array([[1.5, -2.0]])
    trust, z = np.array([0.98]), np.linspace(-8, 8, 20_001)
    normal = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    wanted = 0.0
    for clicks in itertools.product([0, 1], repeat=2):
        chance = np.prod(np.where(clicks, clicked, 1 - clicked))
        sums = satisfaction[0] @ clicks + noise * np.sqrt(sum(clicks)) * z
        worth = about.trust_neutral + about.trust_gain * sums
        after = np.clip(trust + about.trust_rate * (worth - trust), 0, 1)
        visit = 0.4 * (about.visit_floor + (1 - about.visit_floor) * after)
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


def test_texts_tell_topic_and_quality(batch, world):
    """'superb' words stand for better items than 'poor' ones, and categories name the topic."""
    from shortlist.datasets.simulated.text import PRAISE, topic_names

    texts = batch.items.column("description").to_pylist()
    of = {
        grade: [world.items.quality[i] for i, t in enumerate(texts) if any(w in t for w in words)]
        for grade, words in PRAISE.items()
    }
    assert np.mean(of["superb"]) > np.mean(of["good"]) > np.mean(of["poor"])
    names = topic_names(world.config.catalogue.topics)
    rows = batch.items.column("categories").to_pylist()
    for row, topic in zip(rows, world.items.topic, strict=True):
        assert names[topic] in row


def test_images_are_drawn_once_and_look_like_their_topic(tmp_path):
    from shortlist.datasets.simulated.images import draw, draw_all

    world = SimulatedConfig(preset="tiny").world()
    paths = draw_all(world, tmp_path / "images", until=12)
    assert all(Path(path).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for path in paths)
    centre = np.stack([draw(world, i)[12:20, 12:20].mean((0, 1)) for i in range(120)])
    topic = world.items.topic[:120]
    within = [centre[topic == t].std(0).mean() for t in np.unique(topic)]
    assert np.mean(within) < centre.std(0).mean()


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_possible(name):
    assert load_world_config(name).name == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[population]\nusers_per_day = -1", "population.users_per_day: .*greater than or equal"),
        ("[sessions]\nslate = 500\n[catalogue]\nitems = 20", "cannot hold more items than there"),
        ("[logging]\nuniform = 0.8\npersonal = 0.4", "want at most 1"),
        ("[logging]\nuniform = 0", "rare items are never shown"),
        ("[behaviour]\nclicks = 1", "behaviour.clicks: unknown key"),
    ],
)
def test_an_impossible_world_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_text('name = "bad"\n' + text)
    with pytest.raises(ConfigError, match=message):
        load_world_config(str(path))


def test_an_unknown_preset_lists_those_there_are():
    with pytest.raises(ConfigError, match="want one of large, shop, tiny, video"):
        load_world_config("shoppe")
