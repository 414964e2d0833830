"""Measures whether the image encoder that is trained here finds the topic of pictures."""

from pathlib import Path

import numpy as np

from benchmarks.content_worth.data import Log
from models.content.images.convolution import SIZE, fit_image_encoder
from models.content.images.files import read_images
from shortlist import columns as c


def image_topic(log: Log, *, seed: int, cache: Path) -> dict[str, float]:
    """Train the image encoder on four in five pictures; find the topic of the others.

    The topic of a held-out picture is that of the nearest centroid of the training pictures.
    """
    assert log.world is not None
    catalogue = log.catalogue
    pixels, rows, _ = read_images(catalogue.items.column(c.IMAGE).to_pylist(), size=SIZE)
    number = [int(item_id[1:]) - 1 for item_id in catalogue.vocab.ids]
    topic = log.world.items.topic[np.array(number)][rows]
    held = np.random.default_rng([seed, 3]).random(len(rows)) < 0.2
    labels = catalogue.category_matrix[1:][rows]
    found: dict[str, float] = {}
    for name, given in {
        "images and categories": labels,
        "images alone": labels[:, :0],
    }.items():
        if name == "images alone" and seed:  # one seed, to save time
            continue
        encoder = fit_image_encoder(pixels[~held], given[~held], seed=seed, cache=cache)
        found[name] = nearest_centroid(encoder.encode(pixels), topic, held)
    flat = pixels.reshape(len(pixels), -1) / 255 - 0.5
    found["raw pixels"] = nearest_centroid(flat, topic, held)
    found["most frequent topic"] = float(np.mean(topic[held] == np.bincount(topic[~held]).argmax()))
    return {name: round(value, 4) for name, value in found.items()}


def nearest_centroid(vectors: np.ndarray, topic: np.ndarray, held: np.ndarray) -> float:
    topics = np.unique(topic[~held])
    centroids = np.stack([vectors[~held & (topic == label)].mean(0) for label in topics])
    distance = ((vectors[held][:, None] - centroids) ** 2).sum(-1)
    return float(np.mean(topics[distance.argmin(1)] == topic[held]))
