"""Table of sequence architectures, and the functions that train and load them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from models.content.vectors import content_vectors
from models.data import TrainingData, Validation, fingerprint
from models.incremental import Increment, load_grown
from models.layers import prepare, scale_down_residuals
from models.sequence.batches import SequenceData, next_sets
from models.sequence.bsarec import BsarecConfig, BsarecEncoder
from models.sequence.model import SequenceConfig, SequenceEncoder, SequenceModel
from models.sequence.sasrec import SasrecConfig, SasrecEncoder
from models.sequence.simple import AverageConfig, AverageEncoder, GruConfig, GruEncoder
from models.training import OptimiserConfig, TrainingHistory, TrainingOptions, train
from models.vector_source import SourceError, VectorSource, exact_ndcg, load_source
from shortlist.config import Config
from shortlist.items.catalogue import Catalogue

ARCHITECTURES: dict[str, tuple[type[SequenceConfig], Callable[[Any], SequenceEncoder]]] = {
    "sasrec": (SasrecConfig, SasrecEncoder),
    "bsarec": (BsarecConfig, BsarecEncoder),
    "gru": (GruConfig, GruEncoder),
    "average": (AverageConfig, AverageEncoder),
}
"""Source type -> config class and encoder class. A new architecture needs a file, a line here, and
its config in `SourceConfig` (models/registry.py)."""


def encoder_of(config: SequenceConfig) -> SequenceEncoder:
    """Return the untrained encoder of a config."""
    return ARCHITECTURES[config.kind][1](config)


def train_sequence(
    config: SequenceConfig,
    data: TrainingData,
    *,
    validate: Callable[[SequenceModel], float],
    options: TrainingOptions,
    content: np.ndarray | None = None,
    progress: Callable[[str], None] = print,
) -> tuple[SequenceModel, TrainingHistory]:
    """Train a sequence model. The seed determines initial weights, dropout, negatives and batches.

    Args:
        validate: returns the validation nDCG of the model, for early stopping.
        content: (N + 1, F) float32 content vectors of the items; ignored if `config.content` is
            False.

    Returns:
        The model and a summary of the training. `model.config` is the config without None settings.

    Raises:
        ValueError: `config.content` is true, but `content` is None.
        CheckpointError: the checkpoint in `options.checkpoints` belongs to another training run.
    """
    config, content = resolve(config, data, content)
    model = _untrained(config, data, options, content=content)
    history = _train(
        model,
        data,
        optimiser=config.optimiser,
        validate=validate,
        options=options,
        progress=progress,
    )
    return model, history


def _untrained(
    config: SequenceConfig,
    data: TrainingData,
    options: TrainingOptions,
    *,
    content: np.ndarray | None,
) -> SequenceModel:
    """Return a model with initial weights, over the catalogue of `data`."""
    model = SequenceModel(
        config,
        encoder_of(config),
        categories=data.catalogue.category_matrix,
        known=data.item_counts > 0,
        content=content,
    ).to(options.device)
    model.generator = options.generator(config.kind)
    prepare(model, model.generator)
    scale_down_residuals(model)
    return model


def _train(
    model: SequenceModel,
    data: TrainingData,
    *,
    optimiser: OptimiserConfig,
    validate: Callable[[SequenceModel], float],
    options: TrainingOptions,
    increment: Increment | None = None,
    progress: Callable[[str], None] = print,
) -> TrainingHistory:
    """Train a model in place, with the settings `optimiser` instead of those of its config."""
    config = model.config
    rng = options.rng(config.kind)
    sequences = SequenceData(
        data,
        max_history=config.max_history,
        rng=rng,
        learn_start=config.learn_start,
        increment=increment,
    )
    assert model.generator is not None
    content = model.embed.content if config.content else None
    return train(
        model,
        lambda epoch: sequences.batches(config.batch_size, device=options.device),
        name=config.kind,
        loss=model.loss,
        config=optimiser,
        validate=lambda: validate(model),
        options=options,
        about={
            "config": config.model_dump(mode="json"),
            "data": data.about,
            "content": None if content is None else fingerprint(content.cpu().numpy()),
        },
        streams=(model.generator, rng),
        progress=progress,
    )


def resolve(
    config: SequenceConfig, data: TrainingData, content: np.ndarray | None
) -> tuple[SequenceConfig, np.ndarray | None]:
    """Return the config with its None settings resolved, and the content vectors that it uses.

    Raises:
        ValueError: `config.content` is true, but `content` is None.
    """
    if config.content and content is None:
        raise ValueError("config.content is true, but no content vectors are given")
    if config.content is False:
        content = None
    types = config.event_types
    update = {
        "event_types": data.num_event_types > 1 if types is None else types,
        "content": content is not None,
    }
    return config.model_copy(update=update), content


def fit_sequence(
    config: SequenceConfig, data: TrainingData, validation: Validation, options: TrainingOptions
) -> VectorSource:
    """Train a sequence model with early stopping on validation nDCG, and index its item vectors."""
    model, history = train_sequence(
        config,
        data,
        validate=lambda model: exact_ndcg(model, validation),
        options=options,
        content=content_vectors(data.catalogue, options=options) if config.content else None,
    )
    return VectorSource.build(
        config.kind, config=model.config, model=model.cpu(), history=history, index=options.index
    )


def continue_sequence(
    source: VectorSource, data: TrainingData, increment: Increment, options: TrainingOptions
) -> VectorSource:
    """Train a source further on windows with new events and a sample of older ones.

    Without a new event to predict, its weights stay.

    Raises:
        SourceError: the content vectors of the catalogue have another width than in training.
    """
    config, trained = source.config, source.model
    assert isinstance(config, SequenceConfig)
    assert isinstance(trained, SequenceModel)
    content = content_vectors(data.catalogue, options=options) if config.content else None
    if content is not None and content.shape[1] != trained.embed.content.shape[1]:
        raise SourceError(
            f"{config.kind} was trained with content vectors of {trained.embed.content.shape[1]}"
            f" numbers, the catalogue now gives {content.shape[1]}; run a full training"
        )
    model = _untrained(config, data, options, content=content)
    load_grown(model, trained)
    history = None
    if increment.has_new(target_times(data, learn_start=config.learn_start)):
        history = _train(
            model,
            data,
            optimiser=increment.optimiser(config.optimiser),
            validate=lambda _: math.nan,
            options=increment.options(options),
            increment=increment,
        )
    return VectorSource.build(
        config.kind, config=config, model=model.eval().cpu(), history=history, index=options.index
    )


def target_times(data: TrainingData, *, learn_start: bool) -> np.ndarray:
    """Return the times of the events that states predict, microseconds."""
    low, high = next_sets(data)
    first = np.arange(len(low)) == data.offsets[data.user_row]
    return data.time[low[(low < high) & (learn_start | ~first)]]


def load_sequence(kind: str, folder: Path, catalogue: Catalogue) -> VectorSource:
    """Return the source of type `kind` that `VectorSource.save` wrote to `folder`."""

    def build(config: dict[str, Any], sizes: dict[str, Any]) -> tuple[Config, SequenceModel]:
        parsed = ARCHITECTURES[kind][0].model_validate(config)
        content = None
        if "num_content" in sizes:
            shape = (catalogue.num_items + 1, sizes["num_content"])
            content = np.zeros(shape, dtype=np.float32)
        model = SequenceModel(
            parsed,
            encoder_of(parsed),
            categories=catalogue.category_matrix,
            known=np.zeros(catalogue.num_items + 1, dtype=bool),
            content=content,
        )
        return parsed, model

    return load_source(kind, folder, catalogue, build=build)
