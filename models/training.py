"""The only optimiser loop: AdamW, warm-up, clipping, early stopping that keeps the best weights."""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from shortlist.config import Config

BatchT = TypeVar("BatchT")


class TrainingError(ValueError):
    """Training cannot go on; the message names the model, the epoch and what to change."""


@dataclass(frozen=True)
class TrainingOptions:
    """The run's environment, apart from hyperparameters: where it computes and which seed it has.

    Every model draws from its own named streams, never from torch's global generator: models train
    in parallel threads of one process, where the numbers of the global one come in any order.
    """

    device: str = "cpu"
    seed: int = 0
    num_threads: int = 0
    """Threads of one torch operation; 0 leaves torch's own choice."""
    cache: Path | None = None
    """Folder for what is dear to compute and depends on content only (text vectors)."""

    def rng(self, name: str) -> np.random.Generator:
        """The stream `name`: the same seed and name always give the same numbers."""
        return np.random.default_rng([self.seed, *name.encode()])

    def generator(self, name: str) -> torch.Generator:
        """The same for torch, on `device`."""
        seed = int(self.rng(name).integers(2**62))
        return torch.Generator(device=self.device).manual_seed(seed)


class OptimiserConfig(Config):
    """AdamW (Loshchilov & Hutter 2019) and when to stop."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup_steps: int = 50
    clip_norm: float = 5.0
    num_epochs: int = 12
    patience: int = 2


@dataclass(frozen=True)
class TrainingHistory:
    """What a training came to; epochs count from 1."""

    epochs: int
    best_epoch: int
    best_ndcg: float
    seconds: float
    losses: tuple[float, ...]

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def train(
    model: nn.Module,
    batches: Callable[[int], Iterable[BatchT]],
    *,
    name: str,
    loss: Callable[[BatchT], Tensor],
    config: OptimiserConfig,
    validate: Callable[[], float],
    options: TrainingOptions,
    progress: Callable[[str], None] = print,
) -> TrainingHistory:
    """Fit `model` in place and leave it in evaluation mode with the weights of its best epoch.

    Args:
        batches: the batches of epoch i (from 0); it shuffles with a stream of its own.
        loss: one batch -> scalar mean loss.
        validate: nDCG of the model as it stands; called after each epoch in evaluation mode,
            without gradients. NaN (nothing to judge by) never stops it: the last weights are kept.
        progress: gets one line an epoch.

    Raises:
        TrainingError: the loss is no longer finite, or an epoch had no batch.
    """
    started = time.perf_counter()
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    losses: list[float] = []
    best_ndcg, best_epoch, best_weights = -math.inf, 0, None
    step = 0
    with limited_threads(options.num_threads):
        for epoch in range(config.num_epochs):
            model.train()
            total, count = 0.0, 0
            for batch in batches(epoch):
                step += 1
                for group in optimiser.param_groups:
                    group["lr"] = config.learning_rate * min(1.0, step / (config.warmup_steps + 1))
                value = loss(batch)
                optimiser.zero_grad(set_to_none=True)
                value.backward()
                nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
                optimiser.step()
                total, count = total + value.item(), count + 1
            _check_epoch(name, epoch, total, count, config)
            losses.append(total / count)
            model.eval()
            with torch.no_grad():
                ndcg = validate()
            progress(
                f"{name}: epoch {epoch + 1}/{config.num_epochs} loss {losses[-1]:.4f}"
                f" validation ndcg {ndcg:.4f} {time.perf_counter() - started:.1f} s"
            )
            if math.isnan(ndcg) or ndcg > best_ndcg:
                best_epoch, best_weights = epoch + 1, copy.deepcopy(model.state_dict())
                best_ndcg = best_ndcg if math.isnan(ndcg) else ndcg
            elif epoch + 1 - best_epoch >= config.patience:
                break
    assert best_weights is not None, "num_epochs is at least 1"
    model.load_state_dict(best_weights)
    model.eval()
    return TrainingHistory(
        epochs=len(losses),
        best_epoch=best_epoch,
        best_ndcg=best_ndcg if math.isfinite(best_ndcg) else math.nan,
        seconds=time.perf_counter() - started,
        losses=tuple(losses),
    )


def _check_epoch(name: str, epoch: int, total: float, count: int, config: OptimiserConfig) -> None:
    if count == 0:
        raise TrainingError(
            f"{name}: epoch {epoch + 1} had no batch; is the training window empty?"
        )
    if not math.isfinite(total):
        raise TrainingError(
            f"{name}: the loss is {total} in epoch {epoch + 1};"
            f" want a learning_rate below {config.learning_rate}"
        )


@contextmanager
def limited_threads(num_threads: int) -> Iterator[None]:
    """Run torch operations of this block on `num_threads` threads (0: as it is).

    With OpenMP, `torch.set_num_threads` takes effect in the calling thread and in threads that have
    not used torch yet; threads that train already keep their number. So parallel trainings in one
    process do not disturb each other as long as all ask for the same number, which the flow does.
    """
    if num_threads == 0:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
