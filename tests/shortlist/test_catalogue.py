"""Catalogue arrays in vocabulary order, saving and loading, and encoding of user profiles."""

import numpy as np
import pyarrow as pa

from shortlist.contracts import TIMESTAMP
from shortlist.features.profiles import ProfileEncoder
from shortlist.items.catalogue import Catalogue


def catalogue() -> Catalogue:
    return Catalogue.from_items(
        pa.table(
            {
                "item_id": ["b", "a"],
                "title": [None, "A film"],
                "description": ["quiet", None],
                "categories": pa.array([["drama"], ["comedy", "drama"]], pa.list_(pa.string())),
                "published_at": pa.array([None, 86_400_000_000], pa.int64()).cast(TIMESTAMP),
                "available": [False, True],
            }
        )
    )


def test_the_same_catalogue_has_the_same_indices_and_row_zero_is_padding():
    items = catalogue()
    assert items.vocab.ids == ["a", "b"]
    assert items.titles == ["", "A film", "b"]
    assert items.category_names == ["comedy", "drama"]
    assert items.category_matrix.tolist() == [[0, 0], [1, 1], [0, 1]]
    assert items.available.tolist() == [False, True, False]
    assert items.published_at.tolist() == [0, 86_400_000_000, 0]
    assert items.texts == ["", "A film. comedy, drama", "b. quiet. drama"]


def test_saved_and_loaded_it_is_the_same(tmp_path):
    catalogue().save(tmp_path / "items.parquet")
    again = Catalogue.load(tmp_path / "items.parquet")
    assert again.items.equals(catalogue().items)


def test_profiles_keep_attributes_that_describe_groups():
    people = [{"group": "x", "name": f"n{i}"} for i in range(3)] + [{"group": "y"}, {"group": "y"}]
    encoder = ProfileEncoder.fit(people)
    assert encoder.names == ("group",)  # each name occurs once, so `name` doesn't describe a group
    assert encoder.cardinalities == (3,)
    codes = encoder.encode([{"group": "y"}, {"group": "never seen"}, {}])
    assert np.array_equal(codes, [[2], [0], [0]])
    assert ProfileEncoder.from_json(encoder.to_json()) == encoder


def test_profiles_of_nobody():
    encoder = ProfileEncoder.fit([])
    assert encoder.encode([{}, {}]).shape == (2, 0)
