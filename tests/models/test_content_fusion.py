"""The content source: gated modalities, missing ones, new items, saved state, reviews."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from models import registry
from models.content.collaborative import collaborative_vectors
from models.content.config import ContentFeatures, FusionConfig
from models.content.fusion import ContentConfig, ContentModel
from models.content.gated import GatedFusion
from models.content.modalities import ContentEncoder
from models.content.reviews import Reviews
from models.content.vectors import ContentError
from models.data import TrainingData, Validation
from models.layers import prepare
from models.retrieval.two_tower import TwoTowerConfig
from models.training import OptimiserConfig, TrainingOptions
from models.vector_source import SourceError, VectorSource
from shortlist import columns as c
from shortlist.items.catalogue import Catalogue
from tests.models.small_data import catalogue_of, queries_of, state_of, training_data

OPTIONS = TrainingOptions(seed=3, num_threads=1)
ITEMS, OLD = 36, 30
"""Items 31 to 36 have no events. Odd and even items have different audiences."""
QUICK = OptimiserConfig(learning_rate=1e-2, warmup_steps=0, num_epochs=10)


def colours(folder: Path) -> TrainingData:
    """Return data in which only the vector and the image show whether an item is odd or even."""
    rng = np.random.default_rng(0)
    odd = np.arange(1, ITEMS + 1) % 2
    vectors = rng.normal(scale=0.2, size=(ITEMS, 4)) + np.eye(4)[odd]
    paths = []
    for item, is_odd in enumerate(odd, start=1):
        path = folder / f"{item}.png"
        Image.new("RGB", (8, 8), "red" if is_odd else "blue").save(path)
        paths.append(str(path))
    items = catalogue_of([[]] * ITEMS).items
    items = items.set_column(items.schema.get_field_index(c.IMAGE), c.IMAGE, pa.array(paths))
    rows = [None if i % 6 == 0 else row for i, row in enumerate(vectors.tolist())]
    items = items.append_column("vector_audio", pa.array(rows, pa.list_(pa.float32())))
    own = np.arange(1, OLD + 1)
    histories = [rng.permutation(own[own % 2 == user % 2]).tolist() for user in range(60)]
    return training_data(Catalogue.from_items(items), histories)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> TrainingData:
    return colours(tmp_path_factory.mktemp("images"))


def fit(data: TrainingData, read: ContentFeatures, **changes) -> VectorSource:
    config = ContentConfig(
        features=read, embedding_dim=16, batch_size=16, num_negatives=32, negatives="used"
    ).model_copy(update={"optimiser": QUICK} | changes)
    source = registry.fit(config, data, Validation([]), OPTIONS)
    assert isinstance(source, VectorSource)
    return source


def knows_colours(source: VectorSource) -> bool:
    """Whether all items of a history's colour are above the others, new items included."""
    scores = source.query_vectors(queries_of([[1, 3, 5], [2, 4, 8]])) @ source.item_vectors[1:].T
    odd, even = scores[:, ::2], scores[:, 1::2]
    return bool(odd[0].min() > even[0].max() and even[1].min() > odd[1].max())


ONLY = {"text": None, "categories": False}
IMAGES = ContentFeatures(images="trained", vectors=False, **ONLY)
BOTH = ContentFeatures(images="trained", **ONLY)


def test_the_fusion_by_hand():
    fuse = GatedFusion({"a": 2, "b": 1}, 2, FusionConfig())
    a, b = (torch.tensor(rows) for rows in ([[1.0, 2.0], [0.0, 1.0]], [[3.0], [0.0]]))
    fuse.project[0].weight.data, fuse.project[1].weight.data = a, b
    fuse.gate_bias.data = torch.tensor([0.0, 100.0])  # gates of 1/2 and 1
    fuse.gate_weight.data = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    fuse.bias.data = torch.tensor([10.0, 0.0])
    fuse.eval()
    out = fuse(torch.tensor([[1.0, 1.0, 2.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    assert out.tolist() == [[10 + 3 / 2 + 6, 1 / 2], [10 + 3 / 2, 1 / 2], [10, 0]]
    is_open = GatedFusion({"a": 2, "b": 1}, 2, FusionConfig(gates="open")).eval()
    is_open.project[0].weight.data, is_open.project[1].weight.data = a, b
    assert is_open(torch.tensor([1.0, 1.0, 2.0])).tolist() == [3 + 6, 1]


def test_modality_dropout_hides_modalities_but_never_all_that_an_item_has():
    fuse = GatedFusion({"a": 1, "b": 1}, 1, FusionConfig(gates="open", modality_dropout=0.5))
    prepare(fuse, torch.Generator().manual_seed(0))
    fuse.project[0].weight.data, fuse.project[1].weight.data = (torch.ones(1, 1),) * 2
    both = fuse(torch.ones(400, 2)).ravel()
    # Kept modalities are scaled by 2. Alone: 2; both: 4; none: not hidden, so 1 + 1.
    assert set(both.tolist()) == {2.0, 4.0}
    one = fuse(torch.tensor([[1.0, 0.0]] * 400)).ravel()
    assert set(one.tolist()) == {1.0, 2.0}
    fuse.eval()
    assert set(fuse(torch.ones(50, 2)).ravel().tolist()) == {2.0}


@pytest.mark.parametrize("read", [IMAGES, ContentFeatures(**ONLY), BOTH])
def test_images_and_vectors_reach_the_model(data, read):
    source = fit(data, read)
    if read is IMAGES:  # every item has an image; some have no vector
        assert knows_colours(source)
    scores = source.item_vectors[1:] @ source.item_vectors[1:].T
    alike = np.arange(ITEMS)[:, None] % 2 == np.arange(ITEMS) % 2
    assert scores[alike].mean() > scores[~alike].mean() + 0.5
    report = source.notes["content"]
    assert {name: row["items"] for name, row in report.items()} == {
        name: count
        for name, count in {"image": ITEMS, "vector_audio": ITEMS - 6}.items()
        if name in report
    }


def test_a_saved_source_encodes_an_item_as_training_did(data, tmp_path):
    source = fit(data, replace_text(BOTH, "tfidf"))
    source.save(tmp_path)
    loaded = registry.load("content", tmp_path, data.catalogue)
    assert isinstance(loaded, VectorSource)
    model = loaded.model
    assert isinstance(model, ContentModel)
    item_idx = np.array([1, 2, 7, 33])
    found = model.encode_items(data.catalogue, item_idx)
    np.testing.assert_allclose(found, source.item_vectors[item_idx], atol=1e-5)
    np.testing.assert_array_equal(loaded.item_vectors, source.item_vectors)


def replace_text(read: ContentFeatures, text: str) -> ContentFeatures:
    return read.model_copy(update={"text": text})


def test_a_new_item_without_a_file_or_vector_is_encoded_all_the_same(data, caplog):
    source = fit(data, BOTH)
    items = data.catalogue.items.slice(0, 2).to_pylist()
    items[0] |= {c.ITEM_ID: "x1", c.IMAGE: "/nowhere.png", "vector_audio": [1.0, 2.0]}
    items[1] |= {c.ITEM_ID: "x2", c.IMAGE: None, "vector_audio": None}
    new = data.catalogue.with_current(
        pa.concat_tables(
            [
                data.catalogue.items,
                pa.Table.from_pylist(items, schema=data.catalogue.items.schema),
            ]
        )
    )
    model = source.model
    assert isinstance(model, ContentModel)
    vectors = model.encode_items(new, np.array([ITEMS + 1, ITEMS + 2]))
    np.testing.assert_array_equal(vectors[0], vectors[1])  # nothing is known of either
    assert np.isfinite(vectors).all()
    assert "/nowhere.png no such file" in caplog.text


def test_images_that_cannot_be_used_are_counted_and_named(data, tmp_path):
    items = data.catalogue.items
    paths = items.column(c.IMAGE).to_pylist()
    paths[4] = str(tmp_path / "gone.png")
    place = items.schema.get_field_index(c.IMAGE)
    broken = replace(
        data, catalogue=Catalogue.from_items(items.set_column(place, c.IMAGE, pa.array(paths)))
    )
    about = fit(broken, IMAGES).notes["content"]["image"]
    assert (about["named"], about["unusable"], about["items"]) == (ITEMS, 1, ITEMS - 1)
    assert about["faults"] == [{"item_id": "i005", "path": paths[4], "reason": "no such file"}]


def test_content_that_is_nowhere_is_an_error(data):
    with pytest.raises(ContentError, match="no item has a text, category, review, image or vector"):
        fit(data, ContentFeatures(vectors=False, **ONLY))
    with pytest.raises(ContentError, match="no column vector_smell; the catalogue has vector_aud"):
        fit(data, ContentFeatures(vectors=("vector_smell",), **ONLY))


def test_an_empty_catalogue_has_no_features():
    read = ContentFeatures(text="tfidf", images="trained", reviews=3)
    empty = Catalogue.from_items(catalogue_of([[]]).items.slice(0, 0))
    encoder, features = ContentEncoder.fit(read, empty, reviews=None, options=OPTIONS)
    assert features.shape == (1, 0)
    assert encoder.widths == {}


def test_reviews_describe_an_item_and_the_newest_count():
    texts = ["old", "tea pot", "tea cup", "running shoes", "running belt", "  "]
    reviews = Reviews(np.array([1, 1, 2, 3, 4, 2]), texts)
    assert reviews.newest(4, limit=1) == [
        [],
        ["tea pot"],
        ["tea cup"],
        ["running shoes"],
        texts[4:5],
    ]
    read = ContentFeatures(reviews=2, **ONLY)
    encoder, features = ContentEncoder.fit(
        read, catalogue_of([[]] * 5), reviews=reviews, options=OPTIONS
    )
    assert list(encoder.widths) == ["reviews"]
    similar = features @ features.T
    assert similar[1, 2] > similar[1, 3] + 0.2
    assert similar[3, 4] > similar[2, 3] + 0.2
    assert not features[5].any()


def test_collaborative_vectors_of_one_audience_are_near(data):
    vectors = collaborative_vectors(data, dim=2, rng=np.random.default_rng(0))
    similar = vectors[1 : OLD + 1] @ vectors[1 : OLD + 1].T
    assert similar[0, 2] > 0.95
    assert abs(similar[0, 1]) < 0.05
    assert not vectors[OLD + 1 :].any()


def test_the_second_loss_teaches_the_collaborative_vectors(data):
    assert knows_colours(fit(data, IMAGES, collaborative=1.0))


def test_the_item_tower_reads_content_for_items_without_events(data, tmp_path):
    config = TwoTowerConfig(
        content=IMAGES, embedding_dim=16, batch_size=16, num_negatives=32, unknown_item_rate=0.3
    ).model_copy(update={"optimiser": QUICK})
    source = registry.fit(config, data, Validation([]), OPTIONS)
    assert isinstance(source, VectorSource)
    queries = queries_of([[1, 3, 5], [2, 4, 8]])
    cold = source.query_vectors(queries) @ source.item_vectors[OLD + 1 :].T
    assert cold[0, ::2].min() > cold[0, 1::2].max()
    assert cold[1, 1::2].min() > cold[1, ::2].max()
    source.save(tmp_path)
    loaded = registry.load("two_tower", tmp_path, data.catalogue)
    state = state_of(data.item_counts)
    np.testing.assert_array_equal(
        loaded.retrieve(queries, state, k=5).item_idx, source.retrieve(queries, state, k=5).item_idx
    )


def test_a_source_of_an_earlier_version_asks_for_a_new_release(data, tmp_path):
    fit(data, IMAGES).save(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"widths"', '"other"'))
    with pytest.raises(SourceError, match="another version of this code; train a new release"):
        registry.load("content", tmp_path, data.catalogue)
