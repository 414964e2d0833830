"""Images of items: limits of the reader, and an encoder that finds the topic of drawn pictures."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.content.images import files
from models.content.images.convolution import DIM, fit_image_encoder
from models.content.images.files import read_images
from simulation.config import load_world_config
from simulation.images import draw, png
from simulation.world import World


def saved(path: Path, colour: str | tuple[int, ...], **options) -> str:
    mode = options.pop("mode", "RGB")
    Image.new(mode, options.pop("size", (40, 20)), colour).save(path, **options)
    return str(path)


def test_formats_modes_and_sizes_become_squares_of_rgb(tmp_path: Path):
    red = (255, 0, 0)
    paths = [
        saved(tmp_path / "a.png", red),
        None,
        saved(tmp_path / "b.jpg", red, quality=95),
        saved(tmp_path / "c.png", (255, 0, 0, 0), mode="RGBA"),  # transparent: white
        "file://" + saved(tmp_path / "d.png", 200, mode="L"),
        saved(tmp_path / "e.webp", red, size=(3, 90), lossless=True),
        "",
    ]
    pixels, rows, faults = read_images(paths, size=8)
    assert faults == []
    assert rows.tolist() == [0, 2, 3, 4, 5]
    assert pixels.shape == (5, 8, 8, 3)
    means = pixels.reshape(5, -1, 3).mean(1)
    expected = [red, red, (255, 255, 255), (200, 200, 200), red]
    np.testing.assert_allclose(means, expected, atol=3)


def test_a_file_that_cannot_be_used_is_reported_and_the_others_are_read(tmp_path, monkeypatch):
    whole = saved(tmp_path / "whole.png", "blue", size=(64, 64))
    noisy = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    (tmp_path / "cut.png").write_bytes(png(noisy)[:400])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    bomb = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(bomb, "png")  # 10 kB with 81 million pixels
    (tmp_path / "bomb.png").write_bytes(bomb.getvalue())
    monkeypatch.setattr(files, "MAX_BYTES", len(bomb.getvalue()) + 1)
    (tmp_path / "large.png").write_bytes(bytes(files.MAX_BYTES + 1))
    wrong = {
        str(tmp_path / "cut.png"): "is damaged: image file is truncated",
        str(tmp_path / "text.png"): "is not an image, want PNG, JPEG",
        str(tmp_path / "empty.png"): "is empty",
        str(tmp_path / "bomb.png"): "has 9,000 x 9,000 pixels, want at most",
        str(tmp_path / "large.png"): "bytes, want at most",
        saved(tmp_path / "line.png", "red", size=(50, 1)): "want at least 2 x 2",
        str(tmp_path): "is not a regular file",
        "/dev/zero": "is not a regular file",
        str(tmp_path / "none.png"): "no such file",
        "https://example.org/a.png": "is not a local file",
        "a\0b": "can't be read",
        "x" * 5_000: "can't be read",
    }
    pixels, rows, faults = read_images([whole, *wrong, whole], size=8)
    assert rows.tolist() == [0, len(wrong) + 1]
    assert len(pixels) == 2
    assert [fault.path for fault in faults] == list(wrong)
    for fault, reason in zip(faults, wrong.values(), strict=True):
        assert reason in fault.reason, fault


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Pictures of a simulated world, and the topic of each."""
    world = World(load_world_config("tiny"))
    rows = range(160)
    return np.stack([draw(world, row) for row in rows]), world.items.topic[:160]


@pytest.mark.parametrize("with_categories", [True, False])
def test_the_trained_encoder_finds_the_topic_of_pictures_that_it_has_not_seen(
    drawn, with_categories, tmp_path
):
    pixels, topic = drawn
    labels = np.eye(topic.max() + 1, dtype=np.float32)[topic]
    labels = labels if with_categories else labels[:, :0]
    old = np.arange(160) < 120
    encoder = fit_image_encoder(pixels[old], labels[old], seed=0, cache=tmp_path)
    vectors = encoder.encode(pixels)
    assert vectors.shape == (160, DIM)
    centroids = np.stack([vectors[old & (topic == t)].mean(0) for t in range(topic.max() + 1)])
    found = (vectors[~old] @ centroids.T).argmax(1)
    assert np.mean(found == topic[~old]) > 0.8
    again = fit_image_encoder(pixels[old], labels[old], seed=0, cache=tmp_path)
    np.testing.assert_allclose(again.encode(pixels[:5]), vectors[:5], atol=1e-5)


def test_no_or_one_image_gives_an_encoder():
    for count in (0, 1):
        pixels = np.zeros((count, 32, 32, 3), dtype=np.uint8)
        encoder = fit_image_encoder(pixels, np.zeros((count, 2), np.float32), seed=0, cache=None)
        assert encoder.encode(pixels).shape == (count, DIM)
