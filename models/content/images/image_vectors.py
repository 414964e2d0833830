"""Vectors of item images, by an encoder that is trained on them or by a pretrained one.

Shapes: N items; arrays have N + 1 rows and row 0 is padding.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from models.content.cache import KEY_BYTES, cached_vectors
from models.content.config import ContentFeatures
from models.content.images.convolution import DIM, SIZE, ImageEncoder, fit_image_encoder
from models.content.images.files import ImageFault, read_images
from models.content.images.pretrained import pretrained_side, pretrained_vectors
from models.training import TrainingOptions
from shortlist import columns as c
from shortlist.items.catalogue import Catalogue

SHOWN_FAULTS = 20
"""Number of unusable images that a report names."""


def image_paths(catalogue: Catalogue, config: ContentFeatures) -> list[str | None]:
    """Return N + 1 paths of image files; None where an item has no image."""
    paths: list[str | None] = [None, *catalogue.items.column(c.IMAGE).to_pylist()]
    folder = config.image_folder
    if folder is None:
        return paths
    return [path if not path or "://" in path else str(folder / path) for path in paths]


def fit_trained(
    paths: Sequence[str | None], catalogue: Catalogue, *, options: TrainingOptions
) -> tuple[ImageEncoder, np.ndarray, list[ImageFault]]:
    """Train an encoder on the images; return it, the vectors (N + 1, DIM), and unusable images."""
    pixels, rows, faults = read_images(paths, size=SIZE)
    labels = catalogue.category_matrix[rows]
    encoder = fit_image_encoder(pixels, labels, seed=options.seed, cache=options.cache)
    vectors = np.zeros((len(paths), DIM), dtype=np.float32)
    vectors[rows] = encoder.encode(pixels)
    return encoder, vectors, faults


def vectors_by_trained(
    encoder: ImageEncoder, paths: Sequence[str | None]
) -> tuple[np.ndarray, list[ImageFault]]:
    """Return the vectors (number of paths, DIM), zeros where missing, and unusable images."""
    pixels, rows, faults = read_images(paths, size=SIZE)
    vectors = np.zeros((len(paths), DIM), dtype=np.float32)
    vectors[rows] = encoder.encode(pixels)
    return vectors, faults


def vectors_by_pretrained(
    paths: Sequence[str | None], *, encoder: str, options: TrainingOptions
) -> tuple[np.ndarray, list[ImageFault]]:
    """Encode images by a pretrained model; files that did not change are read from the cache."""
    side, faults = pretrained_side(encoder), []
    named = [row for row, path in enumerate(paths) if path]
    keys = [file_key(paths[row] or "", encoder) for row in named]
    name = hashlib.sha256(encoder.encode()).hexdigest()[:16]

    def encode(missing: list[int]) -> np.ndarray:
        pixels, good, bad = read_images([paths[named[i]] for i in missing], size=side)
        faults.extend(ImageFault(named[missing[f.row]], f.path, f.reason) for f in bad)
        found = pretrained_vectors(pixels, encoder=encoder)
        vectors = np.zeros((len(missing), found.shape[1]), dtype=np.float32)
        vectors[good] = found
        return vectors

    path = options.cache / f"pictures-{name}.safetensors" if options.cache else None
    found = cached_vectors(keys, encode, path=path)
    dim = len(next(iter(found.values()))) if found else 0
    vectors = np.zeros((len(paths), dim), dtype=np.float32)
    for row, key in zip(named, keys, strict=True):
        vectors[row] = found[key]
    # Unusable files are in the cache as zeros; read them again for their reasons.
    reported = {fault.row for fault in faults}
    again = [row for row in named if row not in reported and not vectors[row].any()]
    faults += [
        ImageFault(again[fault.row], fault.path, fault.reason)
        for fault in read_images([paths[row] for row in again], size=side)[2]
    ]
    return vectors, faults


def file_key(path: str, encoder: str) -> bytes:
    """Return a hash that changes if the file or the encoder does."""
    try:
        about = os.stat(path.removeprefix("file://"))
        content = f"{about.st_size} {about.st_mtime_ns}"
    except (OSError, ValueError):
        content = "missing"
    return hashlib.sha256(f"{encoder} {path} {content}".encode(errors="replace")).digest()[
        :KEY_BYTES
    ]


def image_report(
    catalogue: Catalogue, paths: Sequence[str | None], faults: list[ImageFault]
) -> dict[str, Any]:
    """Return counts of images, and the items whose image can't be used, with the reason."""
    named = sum(1 for path in paths if path)
    if faults:
        common = Counter(fault.reason for fault in faults).most_common(3)
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in common)
        print(f"content: {len(faults):,} of {named:,} images can't be used: {reasons}")
    return {
        "named": named,
        "unusable": len(faults),
        "faults": [
            {
                "item_id": catalogue.vocab.ids[fault.row - 1],
                "path": fault.path,
                "reason": fault.reason,
            }
            for fault in faults[:SHOWN_FAULTS]
        ],
    }
