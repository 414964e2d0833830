"""Training on requests with sampled negatives: what the two-tower and the content model share."""

from typing import Any, Protocol

import torch

from models.data import Validation
from models.retrieval.examples import RequestExamples
from models.sampling import MixedNegatives
from models.training import OptimiserConfig, TrainingOptions, train
from models.vector_source import exact_ndcg


class RequestConfig(Protocol):
    """The hyperparameters that this training reads."""

    batch_size: int
    num_negatives: int
    optimiser: OptimiserConfig

    def model_dump(self, *, mode: str = ...) -> dict[str, Any]: ...


def train_on_requests(
    model: Any,
    examples: RequestExamples,
    *,
    name: str,
    config: RequestConfig,
    validation: Validation,
    options: TrainingOptions,
    negatives: type[MixedNegatives] = MixedNegatives,
) -> Any:
    """Train `model.loss(batch, sampler)` until validation nDCG stops rising; what `train` returns.

    Args:
        negatives: the sampler; it draws from the stream `<name> negatives`.
    """
    sampler = negatives(
        torch.from_numpy(examples.data.item_counts).to(options.device),
        num_uniform=config.num_negatives,
        generator=options.generator(f"{name} negatives"),
    )
    return train(
        model,
        lambda epoch: examples.batches(config.batch_size),
        name=name,
        loss=lambda batch: model.loss(batch, sampler),
        config=config.optimiser,
        validate=lambda: exact_ndcg(model, validation),
        options=options,
        about={"config": config.model_dump(mode="json"), "data": examples.data.about},
    )
