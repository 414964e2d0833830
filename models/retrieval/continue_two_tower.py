"""Incremental training of the two-tower model (models/incremental.py)."""

import numpy as np

from models.data import TrainingData, Validation
from models.incremental import Increment, grown_rows, load_grown
from models.retrieval.requests import RequestExamples, train_on_requests
from models.retrieval.two_tower import TwoTower, TwoTowerConfig, untrained
from models.training import TrainingOptions
from models.vector_source import SourceError, VectorSource


def continue_two_tower(
    source: VectorSource, data: TrainingData, increment: Increment, options: TrainingOptions
) -> VectorSource:
    """Train a source further on new requests and a sample of older ones; return the new source.

    The standardisation of features and the codes of user attributes stay as they are. Without a new
    request, the weights stay too.

    Raises:
        SourceError: the item tower reads content, and the source was saved without its encoder.
    """
    config, trained = source.config, source.model
    assert isinstance(config, TwoTowerConfig)
    assert isinstance(trained, TwoTower)
    content = None
    if trained.widths is not None:
        if trained.encoder is None:
            raise SourceError(
                "two_tower was saved by an earlier version, without the encoder of its content;"
                " run a full training"
            )
        content = grown_rows(trained.embed.content.numpy(), num_rows=data.num_items + 1)
        new = np.arange(len(trained.embed.content), len(content))
        if len(new):
            content[new] = trained.encoder.encode_new(data.catalogue, new)
    model = untrained(
        config,
        data,
        options,
        profile_cardinalities=trained.profile_cardinalities,
        content=content,
        widths=trained.widths,
    )
    load_grown(model, trained)
    rng = options.rng("two_tower batches")
    examples = RequestExamples(data, max_history=config.max_history, rng=rng, increment=increment)
    history = None
    if increment.has_new(examples.at):
        gentle = config.model_copy(update={"optimiser": increment.optimiser(config.optimiser)})
        history = train_on_requests(
            model,
            examples,
            name="two_tower",
            config=gentle,
            validation=Validation([]),
            options=increment.options(options),
        )
    model.encoder = trained.encoder
    return VectorSource.build(
        "two_tower", config=config, model=model.eval().cpu(), history=history, index=options.index
    )
