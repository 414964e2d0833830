"""Published columns don't reveal latent attributes beyond the intended correlations.

Each published column is converted to numbers or codes, and each latent attribute is regressed on
it. The explained share of the attribute's variance has a limit, which is higher for intended
correlations.
"""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from shortlist.contracts import INTERACTIONS, ITEMS, USERS
from simulation import World, load_world_config, stream
from simulation.tables import Publisher
from simulation.text import PRAISE, REVIEWS

VECTORS = ("vector_image", "vector_audio", "vector_video")
NOTHING = 0.05
"""Limit for columns that should explain nothing, above what chance gives with 1,500 items."""
INTENDED = {
    ("price", "quality"): 0.15,  # better items cost a little more
    ("description", "quality"): 0.75,  # praise depends on quality plus noise
    ("price", "promise"): 0.08,  # promise = appeal - quality, so it correlates through quality
    ("description", "promise"): 0.35,
}
NO_VALUE = ("view", "click", "add_to_cart", "like", "dislike", "hide", "search")


@pytest.fixture(scope="module")
def world() -> World:
    catalogue = {"items": 1_500, "topics": 8, "dim": 8}
    population = {"users": 1_500}
    changes: dict[str, object] = {"catalogue": catalogue, "population": population, "days": 9}
    return World(load_world_config("tiny", changes=changes))


@pytest.fixture(scope="module")
def items(world) -> pa.Table:
    return Publisher(world).items(0, world.num_items)


@pytest.fixture(scope="module")
def events(world) -> pa.Table:
    return pa.concat_tables(stream(world, ingested_at=5))


def item_latents(world: World) -> dict[str, np.ndarray]:
    items = world.items
    return {
        "quality": items.quality,
        "appeal": items.appeal,
        "promise": items.appeal - items.quality,
        "loudness": np.log(items.weight),
    }


def codes(values: list) -> np.ndarray:
    """Encode (n,) words one-hot: (n, codes). Words with fewer than five rows share one code."""
    names, place, counts = np.unique(np.array(values), return_inverse=True, return_counts=True)
    place = np.where(counts < 5, len(names), np.arange(len(names)))[place]
    return (place[:, None] == np.unique(place)).astype(float)


def tenths(values: np.ndarray) -> np.ndarray:
    """Return (n,) numbers and their one-hot deciles, which also capture non-linear relations."""
    place = np.searchsorted(np.quantile(values, np.arange(0.1, 1, 0.1)), values)
    return np.column_stack([values, codes(place.tolist())])


def words(texts: list[str]) -> np.ndarray:
    split = [set(re.findall(r"\w+", text)) for text in texts]
    known = sorted(set().union(*split))
    return np.array([[word in one for word in known] for one in split], dtype=float)


def explained(latent: np.ndarray, column: np.ndarray) -> float:
    """Return the adjusted R squared of a least squares fit."""
    x = column - column.mean(0)
    y = latent - latent.mean()
    left = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    freedom = len(y) - 1 - np.linalg.matrix_rank(x)
    return float(1 - (left @ left / freedom) / (y @ y / (len(y) - 1)))


def published(table: pa.Table) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return {column name: (rows without null, numeric encoding of these rows)}."""
    every = np.arange(table.num_rows)
    attributes = [dict(row) for row in table.column("attributes").to_pylist()]
    titles = table.column("title").to_pylist()
    columns = {
        "title": words([title.rsplit(" No. ", 1)[0] for title in titles]),
        "description": words(table.column("description").to_pylist()),
        "categories": words([" ".join(row) for row in table.column("categories").to_pylist()]),
        "brand": codes(table.column("brand").to_pylist()),
        "price": tenths(np.log(table.column("price").to_numpy())),
        "published_at": tenths(table.column("published_at").cast(pa.int64()).to_numpy()),
        "order": tenths(every.astype(float)),
        "colour": codes([row["colour"] for row in attributes]),
    }
    out = {name: (every, column) for name, column in columns.items()}
    film = np.array([row for row in every if attributes[row].get("minutes") is not None])
    minutes = np.array([float(attributes[row]["minutes"]) for row in film])
    out["minutes"] = (film, tenths(minutes))
    for name in VECTORS:
        column = table.column(name)
        there = np.flatnonzero(column.is_valid().to_numpy())
        matrix = np.stack(column.take(pa.array(there)).to_pylist())
        out[name] = (there, np.column_stack([tenths(one) for one in matrix.T]))
    return out


def test_columns_are_the_contracts_and_nothing_more(items, events, world):
    assert events.column_names == INTERACTIONS.names
    assert set(items.column_names) == {*ITEMS.names, *VECTORS} - {"updated_at"}
    users = Publisher(world).users(0, world.num_users)
    assert users.column_names == USERS.names
    keys = {key for row in items.column("attributes").to_pylist() for key, _ in row}
    assert keys == {"colour", "minutes"}
    keys = {key for row in users.column("attributes").to_pylist() for key, _ in row}
    assert keys == {"age", "country"}


def test_item_columns_explain_latents_only_up_to_the_limit(items, world):
    for name, (rows, column) in published(items).items():
        for latent, truth in item_latents(world).items():
            limit = INTENDED.get((name, latent), NOTHING)
            found = explained(truth[rows], column)
            assert found < limit, f"{name} tells {found:.3f} of {latent}"


def test_intended_correlations_are_present(items, world):
    columns = published(items)
    for name, latent in INTENDED:
        found = explained(item_latents(world)[latent], columns[name][1])
        assert found > INTENDED[name, latent] / 3, f"{name} says nothing of {latent}"


def test_no_vector_is_the_latent_vector(items, world):
    """The three vectors together explain each dimension of the latent vector only partly."""
    columns = {}
    for name in VECTORS:
        column = items.column(name)
        columns[name] = {i: row for i, row in enumerate(column.to_pylist()) if row is not None}
    rows = sorted(set.intersection(*(set(column) for column in columns.values())))
    joint = np.column_stack([[columns[name][i] for i in rows] for name in VECTORS])
    told = [explained(truth, joint) for truth in world.items.vector[rows].T]
    assert min(told) > 0.3
    assert max(told) < 0.85


def test_ids_reveal_only_the_order_of_arrival(items, world):
    ids = items.column("item_id").to_pylist()
    assert ids == [f"i{row + 1:07d}" for row in range(world.num_items)]
    titles = items.column("title").to_pylist()
    assert [int(title.rsplit(" ", 1)[1]) for title in titles] == list(range(1, len(ids) + 1))
    assert items.column("image").null_count == len(ids)
    assert all(items.column("available").to_pylist())


def test_user_columns_do_not_reveal_latents(world):
    """Age correlates with taste; no column reveals other latent attributes such as activity."""
    table = Publisher(world).users(0, world.num_users)
    rows = [dict(row) for row in table.column("attributes").to_pylist()]
    columns = {
        "age": codes([row["age"] for row in rows]),
        "country": codes([row["country"] for row in rows]),
        "created_at": tenths(table.column("created_at").cast(pa.int64()).to_numpy()),
    }
    users = world.users
    latents = [users.activity, users.price_sense, users.phone, users.evening, users.patience]
    for name, column in columns.items():
        assert max(explained(truth, column) for truth in latents) < NOTHING, name
        taste = [explained(truth, column) for truth in users.taste.T]
        assert max(taste) < (0.35 if name == "age" else NOTHING), name


def test_an_events_value_is_what_its_type_says(world, events):
    """By type, `value` is null, a propensity, a price, seconds watched, or a score of 1 to 5."""
    item = pc.utf8_slice_codeunits(events.column("item_id"), 1).cast(pa.int64()).to_numpy() - 1
    kind = np.array(events.column("event_type").to_pylist())
    value = events.column("value").to_numpy()
    assert np.isnan(value[np.isin(kind, NO_VALUE)]).all()
    told = ~np.isin(kind, NO_VALUE)
    assert not np.isnan(value[told]).any()
    shown = kind == "impression"
    assert ((value[shown] > 0) & (value[shown] <= 1)).all()
    sold = np.isin(kind, ("purchase", "return"))
    assert value[sold] == pytest.approx(world.items.price[item[sold]])
    watched = kind == "watch"
    assert (value[watched] <= world.items.seconds[item[watched]] + 1e-6).all()
    for opinion in ("rating", "review", "survey"):
        assert set(np.unique(value[kind == opinion])) <= {1.0, 2.0, 3.0, 4.0, 5.0}
    others = {"impression", "purchase", "return", "watch", "rating", "review", "survey"}
    assert set(kind) == {*NO_VALUE, *others}
    # A propensity necessarily reveals the item's popularity weight, but it must not reveal quality.
    times = np.bincount(item[shown], minlength=world.num_items)
    usual = np.bincount(item[shown], weights=np.log(value[shown]), minlength=world.num_items)
    rows = np.flatnonzero(times)
    truth = item_latents(world)
    usual = usual[rows] / times[rows]
    assert explained(truth["quality"][rows], tenths(usual)) < NOTHING
    loud = world.config.logging.loudness**2
    assert explained(truth["appeal"][rows], tenths(usual)) < loud + NOTHING


def test_other_columns_of_events_are_words_of_known_lists(world, events):
    assert set(pc.unique(events.column("surface")).to_pylist()) == {"home", "search", None}
    assert set(pc.unique(events.column("device")).to_pylist()) == {"phone", "desktop", None}
    assert set(pc.unique(events.column("source")).to_pylist()) == {"simulated"}
    places = set(pc.unique(events.column("position")).to_pylist())
    assert places == {None, *range(1, world.config.sessions.slate + 1)}
    queries = set(pc.unique(events.column("query")).to_pylist()) - {None}
    assert queries <= set(Publisher(world).grammar.queries)
    texts = set(pc.unique(events.column("text")).to_pylist()) - {None}
    praise = "|".join(re.escape(one) for ones in PRAISE.values() for one in ones)
    forms = [re.escape(text) for ones in REVIEWS.values() for text in ones]
    known = "|".join(
        form.replace(r"\{praise\}", f"({praise})")
        .replace(r"\{thing\}", r"[\w' -]+")
        .replace(r"\{topic\}", r"[\w ]+")
        for form in forms
    )
    assert all(re.fullmatch(known, text) for text in texts)
