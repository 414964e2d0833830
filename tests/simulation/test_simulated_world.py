"""The published tables of the simulated world, and the validation of its config."""

import ast
import inspect
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from shortlist.config import ConfigError
from shortlist.contracts import EVENT_TYPES, INTERACTIONS
from shortlist.datasets import Batch
from simulation import (
    SimulatedConfig,
    World,
    load_simulated,
    load_world_config,
    open_world,
    preset_names,
    stream,
)


@pytest.fixture(scope="module")
def world() -> World:
    return open_world(SimulatedConfig(preset="tiny"))


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    config = SimulatedConfig(preset="tiny")
    return load_simulated(config, cache=tmp_path_factory.mktemp("cache"), now=5)


def test_every_type_of_event_is_there_and_the_contract_is_kept(batch):
    kinds = set(pc.unique(batch.interactions.column("event_type")).to_pylist())
    assert kinds == set(EVENT_TYPES)
    assert batch.interactions.schema.equals(INTERACTIONS)
    ids = batch.interactions.column("event_id")
    assert pc.count_distinct(ids).as_py() == len(ids)


def test_the_same_config_is_the_same_world_whatever_the_threads(batch, world):
    again = pa.concat_tables(stream(world, ingested_at=5, threads=1))
    assert again.equals(batch.interactions)
    chunked = World(load_world_config("tiny", changes={"chunk": 100}))
    one, two = (pa.concat_tables(stream(chunked, ingested_at=5, threads=n)) for n in (1, 2))
    assert one.equals(two)
    other = open_world(SimulatedConfig(preset="tiny", seed=1))
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
    """On a page, each event is later than its cause, such as a click than its impression."""
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


def test_texts_tell_topic_and_quality(batch, world):
    """Praise in descriptions correlates with quality; categories contain the item's topic."""
    from simulation.text import PRAISE, topic_names

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
    from simulation.images import draw, draw_all

    world = open_world(SimulatedConfig(preset="tiny"))
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
        ("[sessions]\nslate = 500\n[catalogue]\nitems = 20", "a slate cannot repeat an item"),
        ("[logging]\nuniform = 0.8\npersonal = 0.4", "want at most 1"),
        ("[logging]\nuniform = 0", "rare items are almost never shown"),
        ("[behaviour]\nclicks = 1", "behaviour.clicks: unknown key"),
        ("[logging]\nskew = 20", r"logging.skew: .*less than or equal to 3 \(got 20\)"),
        ("[population]\nusers_per_day = inf", "population.users_per_day: .*finite number"),
        ("[population]\nusers_per_day = 1e9", "population.users_per_day: .*less than or equal"),
        ("[population]\nusers_per_day = 1e6", "30,002,000 users after 30 days, want at most"),
        ("[behaviour]\nclick = -200", r"behaviour.click: .*equal to -20 \(got -200\)"),
        ("[sessions]\ngo_on = nan", "sessions.go_on: .*finite number"),
        ("[catalogue]\nprice_spread = 500", "catalogue.price_spread: .*less than or equal to 3"),
    ],
)
def test_an_impossible_world_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_text('name = "bad"\n' + text)
    with pytest.raises(ConfigError, match=message) as raised:
        load_world_config(str(path))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 250


def test_an_unknown_preset_lists_those_there_are():
    with pytest.raises(ConfigError, match="want one of grocery, large, shop, tiny, video"):
        load_world_config("shoppe")


def test_a_change_that_is_impossible_does_not_blame_the_preset():
    with pytest.raises(ConfigError) as raised:
        load_world_config("tiny", changes={"seed": -1, "days": None})
    wanted = (
        "world 'tiny' with seed = -1: seed: Input should be greater than or equal to 0 (got -1)"
    )
    assert str(raised.value) == wanted


def test_every_number_stands_with_its_meaning():
    """Each field of the world's configuration has an attribute docstring."""
    from simulation import config, parameters

    silent, fields = [], 0
    for module in (parameters, config):
        for section in ast.parse(inspect.getsource(module)).body:
            if not isinstance(section, ast.ClassDef):
                continue
            for field, after in itertools.pairwise([*section.body, ast.Pass()]):
                if not isinstance(field, ast.AnnAssign):
                    continue
                fields += 1
                said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                if not said or len(str(after.value.value)) < 10:
                    silent.append(f"{section.name}.{ast.unparse(field.target)}")
    assert silent == []
    assert fields > 80
