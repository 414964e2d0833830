"""The audience model: vectors of known items, and vectors predicted for new ones."""

import numpy as np
import pyarrow as pa
import pytest

from models.content.audience import (
    Audience,
    AudienceConfig,
    attribute_matrix,
    attributes_of,
    fit_audience,
)
from models.training import TrainingOptions
from shortlist.contracts import TIMESTAMP
from tests.models.recommenders import with_new


@pytest.fixture(scope="module")
def fitted(checkerboard):
    data, validation = checkerboard
    return data, fit_audience(AudienceConfig(dim=4), data, validation, TrainingOptions())


def test_a_new_item_gets_the_vector_of_its_categorys_audience(fitted):
    data, source = fitted
    even = {"item_id": "new", "categories": ["even"]}
    catalogue = data.catalogue.with_current(with_new(data.catalogue.items, even))
    (vector,) = source.predicted(catalogue, np.array([catalogue.num_items]))
    is_even = np.array([names == ["even"] for names in data.catalogue.category_lists])
    similarity = source.item_vectors @ vector
    assert similarity[is_even].min() > 5 * abs(similarity[1:][~is_even[1:]]).max()


def test_attributes_are_categories_brand_and_period(fitted):
    data, _ = fitted
    item = {
        "item_id": "new",
        "categories": ["even", "x"],
        "brand": "acme",
        "published_at": pa.scalar(946_684_800_000_000, TIMESTAMP).as_py(),  # 2000-01-01
    }
    catalogue = data.catalogue.with_current(with_new(data.catalogue.items, item))
    names = attributes_of(catalogue, catalogue.num_items)
    assert names == ["any", "category:even", "category:x", "brand:acme", "period:5"]
    known = ["brand:acme", "category:even", "category:odd"]
    assert attribute_matrix([names], known).tolist() == [[1, 1, 0]]


def test_items_without_events_get_the_predicted_vector(checkerboard):
    data, validation = checkerboard
    config = AudienceConfig(dim=4, min_events=10**6)  # no item has that many
    source = fit_audience(config, data, validation, TrainingOptions())
    assert np.all(source.weights == 0)  # nothing to learn from
    assert np.all(source.item_vectors[1:] == 0)


def test_another_catalogue_is_refused(fitted, tmp_path):
    data, source = fitted
    source.save(tmp_path)
    loaded = Audience.load(tmp_path, data.catalogue)
    assert np.array_equal(loaded.item_vectors, source.item_vectors)
    longer = data.catalogue.with_current(with_new(data.catalogue.items, {"item_id": "new"}))
    with pytest.raises(ValueError, match="want the catalogue of its release"):
        Audience.load(tmp_path, longer)
