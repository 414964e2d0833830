"""Turns a catalogue into content features: one block of numbers per modality, side by side.

A `ContentEncoder` is fitted on the catalogue of a training run and saved with the model, so that a
service can encode items that were added later.

Shapes: N items, V new items, F features of all modalities, K categories.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch import nn

from models.content.config import TFIDF, TRAINED, ContentFeatures
from models.content.images.convolution import ImageEncoder
from models.content.images.files import ImageFault
from models.content.images.image_vectors import (
    file_key,
    fit_trained,
    image_paths,
    image_report,
    vectors_by_pretrained,
    vectors_by_trained,
)
from models.content.reviews import Reviews
from models.content.text import encoder_ready, text_vectors
from models.content.tfidf import Tfidf
from models.content.vectors import (
    ContentError,
    given_vectors,
    unit_rows,
    vector_columns,
    vectors_of_items,
)
from models.training import TrainingOptions, limited_threads
from shortlist.items.catalogue import Catalogue

log = logging.getLogger("shortlist.content")

TEXT, CATEGORIES, REVIEWS, IMAGE = "text", "categories", "reviews", "image"


class ContentEncoder(nn.Module):
    """The fitted state of all modalities. It has no trainable parameters.

    `widths` is the number of features of each modality, in the order of the features.
    """

    def __init__(
        self,
        config: ContentFeatures,
        widths: dict[str, int],
        *,
        tfidf: Tfidf | None = None,
        images: ImageEncoder | None = None,
    ):
        super().__init__()
        self.config = config
        self.widths = widths
        self.tfidf = tfidf
        self.images = images
        self.report: dict[str, Any] = {}
        self.requires_grad_(False)

    def sizes(self) -> dict[str, Any]:
        """Return the settings and sizes from which `from_sizes` rebuilds the encoder, as JSON."""
        return {
            "features": self.config.model_dump(mode="json"),
            "widths": self.widths,
            "tfidf": self.tfidf.sizes() if self.tfidf is not None else None,
            "trained_images": self.images is not None,
        }

    @classmethod
    def from_sizes(cls, sizes: dict[str, Any]) -> "ContentEncoder":
        """Return an encoder whose state is not loaded yet."""
        return cls(
            ContentFeatures.model_validate(sizes["features"]),
            dict(sizes["widths"]),
            tfidf=Tfidf(**sizes["tfidf"]) if sizes["tfidf"] else None,
            images=ImageEncoder() if sizes["trained_images"] else None,
        )

    @property
    def num_features(self) -> int:
        return sum(self.widths.values())

    @classmethod
    def fit(
        cls,
        config: ContentFeatures,
        catalogue: Catalogue,
        *,
        reviews: Reviews | None,
        options: TrainingOptions,
        queries: Sequence[str] = (),
    ) -> tuple["ContentEncoder", np.ndarray]:
        """Fit on a catalogue; return the encoder and the features of its items.

        Args:
            reviews: texts about items before the end of the training window; None: there are none.
            queries: texts of searches, so that `tfidf` knows words that no item has.

        Returns:
            The encoder, whose `report` says how many items have each modality and which images
            could not be used; and the features (N + 1, F) float32. Row 0 and the blocks of missing
            modalities are zeros, other blocks are unit vectors.

        Raises:
            ContentError: a vector column is not valid, or no modality is left.
            TextEncoderError: a text encoder can't be loaded.
        """
        with limited_threads(options.num_threads):
            return _fit(config, catalogue, reviews=reviews, options=options, queries=queries)

    def encode_new(self, catalogue: Catalogue, item_idx: np.ndarray) -> np.ndarray:
        """Return the features of items that were added after training: (V, F) float32.

        Categories that were added after training come last in the catalogue and are not read. An
        image or a vector that can't be used is treated as missing. New items have no reviews.

        Raises:
            TextEncoderError: the text encoder can't be loaded.
        """
        return np.concatenate(
            [self._block(name, width, catalogue, item_idx) for name, width in self.widths.items()],
            axis=1,
        )

    def load_text_encoder(self) -> bool:
        """Return whether the text encoder is in memory; if not, start to load it in a thread."""
        if TEXT not in self.widths or self.tfidf is not None or self.config.text is None:
            return True
        return encoder_ready(self.config.text)

    def encode_queries(
        self, texts: Sequence[str], *, cache: Path | None = None, device: str = "cpu"
    ) -> np.ndarray | None:
        """Return the features of items that have only a text: (T, F) float32.

        None if the text is not among the modalities.

        Raises:
            TextEncoderError: the text encoder can't be loaded.
        """
        if TEXT not in self.widths:
            return None
        vectors = self._texts(texts, cache=cache, device=device)
        blocks = [
            vectors if name == TEXT else np.zeros((len(texts), width), dtype=np.float32)
            for name, width in self.widths.items()
        ]
        return np.concatenate(blocks, axis=1)

    def _texts(
        self, texts: Sequence[str], *, cache: Path | None = None, device: str = "cpu"
    ) -> np.ndarray:
        if self.tfidf is not None:
            return self.tfidf.encode(texts)
        encoder = self.config.text or TFIDF
        return text_vectors(texts, cache=cache, device=device, encoder=encoder)

    def keys(self, catalogue: Catalogue, item_idx: np.ndarray) -> list[bytes]:
        """Return hashes of V items that change if what `encode_new` reads changes."""
        items = catalogue.items.take(pa.array(item_idx - 1))
        read: list[Sequence[Any]] = [
            [catalogue.texts[i] for i in item_idx],
            [catalogue.category_lists[i] for i in item_idx],
        ]
        if IMAGE in self.widths:
            paths = image_paths(catalogue, self.config)
            read.append([file_key(paths[i] or "", "") for i in item_idx])
        read += [
            items.column(name).to_pylist()
            for name in self.widths
            if name.startswith("vector_") and name in items.column_names
        ]
        return [
            hashlib.sha256(repr(row).encode(errors="replace")).digest()
            for row in zip(*read, strict=True)
        ]

    def _block(
        self, name: str, width: int, catalogue: Catalogue, item_idx: np.ndarray
    ) -> np.ndarray:
        if name == TEXT:
            return self._texts([catalogue.texts[i] for i in item_idx])
        if name == CATEGORIES:
            return unit_rows(catalogue.category_matrix[item_idx, :width])
        if name == IMAGE:
            paths = image_paths(catalogue, self.config)
            vectors, faults = self._image_vectors([paths[i] for i in item_idx])
            for fault in faults:
                log.warning("image %s %s", fault.path, fault.reason)
            return vectors
        if name.startswith("vector_"):
            return vectors_of_items(catalogue, name, item_idx, dim=width)
        return np.zeros((len(item_idx), width), dtype=np.float32)

    def _image_vectors(self, paths: Sequence[str | None]) -> tuple[np.ndarray, list[ImageFault]]:
        if self.images is not None:
            return vectors_by_trained(self.images, paths)
        return vectors_by_pretrained(
            paths, encoder=self.config.images or "", options=TrainingOptions()
        )


def _fit(
    config: ContentFeatures,
    catalogue: Catalogue,
    *,
    reviews: Reviews | None,
    options: TrainingOptions,
    queries: Sequence[str],
) -> tuple[ContentEncoder, np.ndarray]:
    blocks: dict[str, np.ndarray] = {}
    report: dict[str, Any] = {}
    written = [""] * (catalogue.num_items + 1)
    newest: list[list[str]] = []
    if config.reviews and reviews is not None and len(reviews):
        newest = reviews.newest(catalogue.num_items, limit=config.reviews)
        written = ["\n".join(texts) for texts in newest]
    by_tfidf = config.text in (TFIDF, None)
    tfidf = None
    if config.text == TFIDF or (by_tfidf and newest):
        item_texts = catalogue.texts if config.text == TFIDF else written
        both = (
            ["\n".join(parts) for parts in zip(item_texts, written, strict=True)]
            if newest
            else item_texts
        )
        tfidf = Tfidf.fit([*both, *queries], dim=config.text_dim, rng=options.rng("tf-idf"))
    if config.text is not None:
        blocks[TEXT] = (
            tfidf.encode(catalogue.texts)
            if tfidf is not None
            else text_vectors(
                catalogue.texts, cache=options.cache, device=options.device, encoder=config.text
            )
        )
    if config.categories:
        blocks[CATEGORIES] = unit_rows(catalogue.category_matrix)
    if newest:
        blocks[REVIEWS] = (
            tfidf.encode(written)
            if tfidf is not None
            else _mean_vectors(newest, encoder=config.text or TFIDF, options=options)
        )
    images = None
    if config.images is not None:
        paths = image_paths(catalogue, config)
        if config.images == TRAINED:
            images, vectors, faults = fit_trained(paths, catalogue, options=options)
        else:
            vectors, faults = vectors_by_pretrained(paths, encoder=config.images, options=options)
        blocks[IMAGE] = vectors
        report[IMAGE] = image_report(catalogue, paths, faults)
    if config.vectors:
        for name in _vector_names(config, catalogue):
            blocks[name] = given_vectors(catalogue, name)
    blocks = {name: block for name, block in blocks.items() if block.any()}
    if not blocks and catalogue.num_items:
        raise ContentError(
            "items: no item has a text, category, review, image or vector that the settings of the"
            " content source read; set `features`, or leave the source `content` out of the run"
        )
    encoder = ContentEncoder(
        config,
        {name: block.shape[1] for name, block in blocks.items()},
        tfidf=tfidf,
        images=images if IMAGE in blocks else None,
    )
    for name, block in blocks.items():
        item_texts = {"items": int(block.any(axis=1).sum()), "dim": block.shape[1]}
        report[name] = item_texts | report.get(name, {})
    encoder.report = report
    none = np.zeros((catalogue.num_items + 1, 0), dtype=np.float32)
    return encoder, np.concatenate([none, *blocks.values()], axis=1)


def _vector_names(config: ContentFeatures, catalogue: Catalogue) -> list[str]:
    there = vector_columns(catalogue)
    if isinstance(config.vectors, bool):
        return there
    if missing := set(config.vectors) - set(there):
        raise ContentError(
            f"items: no column {', '.join(sorted(missing))}; the catalogue has"
            f" {', '.join(there) or 'no vector columns'}"
        )
    return list(config.vectors)


def _mean_vectors(newest: list[list[str]], *, encoder: str, options: TrainingOptions) -> np.ndarray:
    """Return the mean of the vectors of each item's texts, as unit vectors."""
    flat = [text for texts in newest for text in texts]
    owner = np.repeat(np.arange(len(newest)), [len(texts) for texts in newest])
    vectors = text_vectors(flat, cache=options.cache, device=options.device, encoder=encoder)
    total = np.zeros((len(newest), vectors.shape[1]), dtype=np.float32)
    np.add.at(total, owner, vectors)
    return unit_rows(total)
