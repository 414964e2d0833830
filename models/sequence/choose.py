"""Chooses a sequence architecture and its hyperparameters by fixed rules from data statistics."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from models.data import TrainingData
from models.sequence.fit import ARCHITECTURES
from models.sequence.model import SequenceConfig
from models.training import OptimiserConfig


@dataclass(frozen=True)
class Statistics:
    """Statistics of the training data that the rule reads."""

    num_users: int
    num_items: int
    num_events: int
    mean_length: float
    length_90: float
    """90th percentile of the history length."""
    events_per_item: float

    @classmethod
    def of(cls, data: TrainingData) -> "Statistics":
        lengths = np.diff(data.offsets)
        return cls(
            num_users=data.num_users,
            num_items=data.num_items,
            num_events=len(data.item_idx),
            mean_length=float(lengths.mean()),
            length_90=float(np.quantile(lengths, 0.9)),
            events_per_item=len(data.item_idx) / data.num_items,
        )


SPARSE_OPTIMISER = OptimiserConfig(
    learning_rate=1e-2,
    weight_decay=0.15,
    schedule="cosine",
    average_decay=0.98,
    num_epochs=32,
    patience=12,  # nDCG often stalls early and rises again later, at low learning rates
)
DENSE_OPTIMISER = OptimiserConfig(
    learning_rate=2e-3, schedule="cosine", average_decay=0.99, num_epochs=24, patience=6
)
SHORT = 20.0
"""Mean number of events per history below which data counts as sparse. Models memorise sparse data
easily, so it needs stronger regularisation."""
SMALL_CATALOGUE = 5_000
"""Number of items up to which the full softmax takes no more time than the encoder."""


def choose(statistics: Statistics, *, kind: str | None = None) -> SequenceConfig:
    """Return the config of a sequence model, chosen by these rules.

    - Window: 50 events; 200 if more than 10% of the histories are longer than 50.
    - Sparse data (mean history length below `SHORT`): BSARec with dropout 0.5 and strong weight
      decay, in batches of 128 histories.
    - Other data: SASRec with dropout 0.2 and no weight decay, in batches of 32 histories. Histories
      are longer, so a batch has a similar number of events.
    - Loss: full softmax up to `SMALL_CATALOGUE` items, above that sampled softmax with negatives
      shared by the batch.

    Args:
        kind: source type of the architecture; None: choose it by the rules.

    Raises:
        ValueError: unknown sequence model.
    """
    sparse = statistics.mean_length < SHORT
    kind = kind or ("bsarec" if sparse else "sasrec")
    if kind not in ARCHITECTURES:
        raise ValueError(f"no sequence model '{kind}', want one of {', '.join(ARCHITECTURES)}")
    values: dict[str, Any] = {
        "max_history": 50 if statistics.length_90 <= 50 else 200,
        "dropout": 0.5 if sparse else 0.2,
        "batch_size": 128 if sparse else 32,
        "loss": "full_softmax" if statistics.num_items <= SMALL_CATALOGUE else "sampled_softmax",
        "num_negatives": 512,
        "unknown_item_rate": 0.0,
        "learn_start": False,
        "num_blocks": 2,
        "hidden_factor": 1 if sparse else 4,
        "optimiser": SPARSE_OPTIMISER if sparse else DENSE_OPTIMISER,
    }
    config_class = ARCHITECTURES[kind][0]
    return config_class.model_validate(
        {name: value for name, value in values.items() if name in config_class.model_fields}
    )
