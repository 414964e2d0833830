"""Adds new items to a trained content model. Its weights stay, as items are read by content."""

import copy

import numpy as np
import torch

from models.content.fusion import ContentModel
from models.data import TrainingData
from models.incremental import Increment
from models.index.faiss_index import VectorIndex
from models.training import TrainingOptions
from models.vector_source import VectorSource


def extend_content(
    source: VectorSource, data: TrainingData, increment: Increment, options: TrainingOptions
) -> VectorSource:
    """Return the source with the vectors of the items that the catalogue has after its own.

    Args:
        increment: not used, because nothing is trained.

    Raises:
        TextEncoderError: there are new items, and the text encoder can't be loaded.
    """
    trained = source.model
    assert isinstance(trained, ContentModel)
    new = np.arange(len(source.item_vectors), data.num_items + 1)
    vectors = source.item_vectors
    if len(new):
        vectors = np.concatenate([vectors, trained.encode_items(data.catalogue, new)])
    model = copy.copy(trained)  # shares the weights, but not the table
    model._buffers = {**trained._buffers, "table": torch.from_numpy(vectors)}
    return VectorSource(
        source.name,
        config=source.config,
        model=model,
        item_vectors=vectors,
        index=VectorIndex.build(vectors, config=options.index),
    )
