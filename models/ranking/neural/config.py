"""Hyperparameters that all neural rankers have."""

from typing import Literal

from pydantic import Field, PositiveInt

from models.ranking.requests import MAX_HISTORY
from models.ranking.shown import LabelsConfig
from models.training import OptimiserConfig


class NeuralConfig(LabelsConfig):
    """Hyperparameters of a neural ranker; each network adds its own."""

    embedding_dim: PositiveInt = 16
    hidden_dims: tuple[PositiveInt, ...] = (128, 64)
    """Widths of the hidden layers of the deep part."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    loss: Literal["listwise", "pointwise"] = "listwise"
    """Softmax over the candidates of a request (Cao et al. 2007), or the logistic loss of each
    candidate. Scores of the latter are log odds."""
    logarithms: bool = True
    """Whether each numeric feature is also read as its standardised logarithm, beside its quantile.
    Quantiles of rare values, such as a few events on a candidate, are nearly equal."""
    min_item_rows: PositiveInt = 1
    """Number of training candidates from which an item has an id embedding. Rarer items share the
    one of unknown items."""
    num_candidates: PositiveInt = 100
    """Number of candidates per request in a training batch; at most half of them are relevant."""
    batch_size: PositiveInt = 32
    """Number of requests in a training batch."""
    optimiser: OptimiserConfig = OptimiserConfig(
        learning_rate=1e-3, weight_decay=1e-2, num_epochs=8, patience=2
    )


class HistoryConfig(NeuralConfig):
    """Hyperparameters of a neural ranker that reads the history."""

    history_length: int = Field(default=20, ge=1, le=MAX_HISTORY)
    """Number of newest events that the network reads."""
    attention_dim: PositiveInt = 16
    """Width of the hidden layer that compares a candidate with an event."""
