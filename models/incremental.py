"""Incremental training: continues a trained neural source on new events, with replay of older ones.

The catalogue of the trained source comes first in the new one (`Catalogue.with_current`), so item
tables grow at their end. An item that gets its first training event starts from the embedding of
the unknown id, so from the vector that it was served with; its categories and content are added to
it as for every item.

Older examples are replayed beside the new ones, against forgetting: McCloskey & Cohen 1989; Rolnick
et al. 2019, "Experience Replay for Continual Learning".

Shapes: E examples, N items.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from models.training import OptimiserConfig, TrainingOptions


GROWING = ("embed.id.weight", "embed.category.weight", "bias")
"""Weights whose size depends on the catalogue."""


@dataclass(frozen=True)
class Increment:
    """New events of an incremental training, and how a source learns from them.

    The defaults are those that docs/experiments/incremental-training.md measured.
    """

    since: int
    """Microseconds: events at or after it are new to the trained source."""
    replay: float = 4.0
    """Number of older examples per new one, in each epoch."""
    epochs: int = 2
    learning_rate: float = 0.5
    """Factor of the learning rate of a full training."""

    def optimiser(self, config: "OptimiserConfig") -> "OptimiserConfig":
        """Return the optimiser settings for an increment, from those of a full training.

        There is no warm-up, which would take longer than a small increment.
        """
        return config.model_copy(
            update={
                "learning_rate": config.learning_rate * self.learning_rate,
                "warmup_steps": 0,
                "schedule": "constant",
            }
        )

    def options(self, options: "TrainingOptions") -> "TrainingOptions":
        """Return the options for an increment, from those of a full training."""
        return replace(options, epochs=self.epochs, checkpoints=None)

    def has_new(self, time: np.ndarray) -> bool:
        """Return whether any of the examples is new; `time` as for `examples`."""
        return bool((time >= self.since).any())

    def examples(self, time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the examples of an epoch: all new ones and a sample of the older ones.

        Args:
            time: (E,) microseconds, time of the newest event that each example predicts.

        Returns:
            Indices into `time`, ascending.
        """
        new, old = np.flatnonzero(time >= self.since), np.flatnonzero(time < self.since)
        count = min(len(old), round(self.replay * len(new)))
        return np.sort(np.concatenate([new, rng.choice(old, size=count, replace=False)]))


def grown_rows(rows: np.ndarray, *, num_rows: int) -> np.ndarray:
    """Return rows (N + 1, ...) with zeros appended up to `num_rows`."""
    added = np.zeros((num_rows - len(rows), *rows.shape[1:]), dtype=rows.dtype)
    return np.concatenate([rows, added])


def load_grown(model: "nn.Module", trained: "nn.Module") -> None:
    """Copy the weights of a trained model into one of a larger catalogue, in place.

    `model` has the attribute `embed`, an `ItemEmbedding`, whose `known` and `content` are kept. New
    categories have zero weights. Item biases (`bias`) start like the id embeddings.
    """
    import torch

    with torch.no_grad():
        before = trained.state_dict()
        for name, value in model.state_dict().items():
            if name in ("embed.known", "embed.content"):
                continue
            old = before.get(name)
            if old is None or old.shape != value.shape:
                assert name in GROWING, f"{name} can't grow"
                value.zero_()
            if old is not None:
                value[tuple(slice(length) for length in old.shape)] = old
        known: torch.Tensor = model.embed.known  # pyright: ignore[reportAssignmentType]
        first, before_known = known.clone(), before["embed.known"].to(known.device)
        first[: len(before_known)] &= ~before_known
        model.embed.id.weight[first] = model.embed.id.weight[0].clone()  # pyright: ignore
        bias = getattr(model, "bias", None)
        if bias is not None:
            bias[first] = bias[0].clone()
