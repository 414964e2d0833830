"""Image vectors by a vision model of transformers that lies in a folder."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from models.content.config import ContentFeatures
from models.content.images.pretrained import pretrained_vectors
from models.content.modalities import ContentEncoder
from models.content.vectors import ContentError
from models.training import TrainingOptions
from shortlist import columns as c
from shortlist.items.catalogue import Catalogue
from tests.models.small_data import catalogue_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A vision transformer with random weights, saved as transformers does."""
    import torch
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ViTConfig(image_size=16, patch_size=8, intermediate_size=32, **small)
    path = tmp_path_factory.mktemp("vit")
    ViTModel(config).save_pretrained(path)
    return path


def test_images_are_encoded_and_found_in_the_cache(folder, tmp_path, capsys):
    Image.new("RGB", (30, 30), "red").save(tmp_path / "red.png")
    Image.new("RGB", (30, 30), "blue").save(tmp_path / "blue.png")
    (tmp_path / "bad.png").write_text("no")
    names = ["red.png", "blue.png", "bad.png", "red.png"]
    items = catalogue_of([[]] * 5).items
    paths = pa.array([*(str(tmp_path / name) for name in names), None])
    place = items.schema.get_field_index(c.IMAGE)
    catalogue = Catalogue.from_items(items.set_column(place, c.IMAGE, paths))
    read = ContentFeatures(text=None, categories=False, vectors=False, images=str(folder))
    options = TrainingOptions(cache=tmp_path / "cache", num_threads=1)
    encoder, features = ContentEncoder.fit(read, catalogue, reviews=None, options=options)
    assert features.shape == (6, 16)
    np.testing.assert_allclose(np.linalg.norm(features[[1, 2, 4]], axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(features[1], features[4])
    assert not np.allclose(features[1], features[2])
    assert not features[[0, 3, 5]].any()
    again, same = ContentEncoder.fit(read, catalogue, reviews=None, options=options)
    np.testing.assert_array_equal(same, features)
    for one in (encoder, again):
        assert [fault["item_id"] for fault in one.report["image"]["faults"]] == ["i003"]
    assert "1 of 4 images can't be used: 1 is not an image" in capsys.readouterr().out
    new = encoder.encode_new(catalogue, np.array([2, 3]))
    np.testing.assert_allclose(new, features[[2, 3]], atol=1e-6)


def test_a_folder_without_a_model_is_an_error(tmp_path):
    with pytest.raises(ContentError, match=r"can't be loaded.*want `trained`, the folder"):
        pretrained_vectors(np.zeros((1, 16, 16, 3), np.uint8), encoder=str(tmp_path))
