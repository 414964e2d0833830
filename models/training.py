"""The training loop of all neural models.

It uses AdamW with a learning-rate schedule, gradient clipping and weight averaging. Early stopping
keeps the weights of the best epoch. An interrupted training run resumes from its checkpoint.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from models.checkpoint import Progress, Stream, load_checkpoint, save_checkpoint
from models.index.config import IndexConfig
from shortlist.config import Config

BatchT = TypeVar("BatchT")


class TrainingError(ValueError):
    """A training run can't continue; the message names model, epoch and likely cause."""


@dataclass(frozen=True)
class TrainingOptions:
    """Environment of a training run: device, seed, folders and limits, but no hyperparameters.

    Every model draws from separate named random streams, never from torch's global generator.
    Models train in parallel threads, so the order of draws from a shared generator would vary.
    """

    device: str = "cpu"
    seed: int = 0
    num_threads: int = 0
    """Threads per torch operation; 0 keeps torch's default."""
    cache: Path | None = None
    """Folder in which text vectors are cached; None: no cache."""
    checkpoints: Path | None = None
    """Folder in which a training run saves a checkpoint after each epoch, and from which it
    resumes. None: no checkpoints."""
    max_seconds: float = math.inf
    """Time limit of training one model, in seconds, checked after each epoch unless `epochs` is
    set. A cosine schedule reaches its lowest rate at this time."""
    epochs: int | None = None
    """Number of epochs to train without validation; the last weights are kept. The learning-rate
    schedule still depends on `num_epochs`. None: stop by validation and keep the best weights."""
    index: IndexConfig = field(default_factory=IndexConfig)
    """Settings of the index over the item vectors of a candidate source."""
    half_precision: bool = False
    """Whether the loss is computed under torch's autocast to bfloat16; for GPUs."""
    report: Callable[[int, float], None] | None = None
    """Called after each epoch with its number (from 1) and validation nDCG. It may raise an
    exception to end the training."""

    def rng(self, name: str) -> np.random.Generator:
        """Return the random stream `name`. The same seed and name always give the same numbers."""
        return np.random.default_rng([self.seed, *name.encode()])

    def generator(self, name: str) -> torch.Generator:
        """Return a torch generator on `device`, seeded from the random stream `name`."""
        seed = int(self.rng(name).integers(2**62))
        return torch.Generator(device=self.device).manual_seed(seed)


class OptimiserConfig(Config):
    """AdamW (Loshchilov & Hutter 2019), its learning-rate schedule and the stopping rule."""

    model_config = ConfigDict(allow_inf_nan=False)

    learning_rate: NonNegativeFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0
    warmup_steps: NonNegativeInt = 50
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up: constant, or a half cosine down to 1/20. The cosine ends
    after `num_epochs` or at the time limit, whichever is first."""
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0
    """Decay of an exponential moving average of the weights (Polyak & Juditsky 1992). Validation
    and the trained model use the average. 0: no averaging."""
    clip_norm: PositiveFloat = 5.0
    num_epochs: PositiveInt = 12
    patience: PositiveInt = 2
    """Number of epochs without a better validation nDCG after which training stops."""

    def rate(self, *, step: int, epoch: int, time_spent: float = 0) -> float:
        """Return the learning rate of a step (from 1) in an epoch (from 0).

        Args:
            time_spent: share of the time limit that has passed.
        """
        rate = self.learning_rate * min(1.0, step / (self.warmup_steps + 1))
        if self.schedule == "cosine":
            done = min(max(epoch / self.num_epochs, time_spent), 1.0)
            rate *= 0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2
        return rate


@dataclass(frozen=True)
class TrainingHistory:
    """Summary of a training run; epochs count from 1."""

    epochs: int
    best_epoch: int
    best_ndcg: float
    seconds: float
    losses: tuple[float, ...]
    figures: tuple[float, ...] = ()
    """Validation nDCG after each epoch."""
    epoch_seconds: tuple[float, ...] = ()
    """Seconds of each epoch without validation and checkpoint; `seconds` includes both."""

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
    about: Mapping[str, Any],
    streams: tuple[Stream, ...] = (),
    progress: Callable[[str], None] = print,
) -> TrainingHistory:
    """Fit `model` in place and leave it in evaluation mode with the weights of its best epoch.

    Args:
        batches: maps an epoch (from 0) to its batches; takes random numbers only from `streams`.
        name: name of the model, for messages and the checkpoint file.
        loss: maps a batch to its mean loss, a scalar.
        validate: returns the validation nDCG of the current weights. Called after each epoch in
            evaluation mode, without gradients. If it returns NaN (no validation requests), training
            doesn't stop early and keeps the last weights.
        about: JSON object that distinguishes this training run from others with the same `name`:
            the model's config and the data (`TrainingData.about`). A checkpoint with another
            `about` is refused.
        streams: all random generators that batches and model draw from; checkpoints contain their
            state. If one is missing, a resumed run differs from an uninterrupted one.
        progress: called with one line of text per epoch.

    Raises:
        TrainingError: the loss is no longer finite, or an epoch had no batch.
        CheckpointError: the checkpoint was written by a run with another `about`.
    """
    started = time.perf_counter()
    parameters = list(model.parameters())
    optimiser = torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    averaged = [p.detach().clone() for p in parameters] if config.average_decay else []
    done = Progress(0, [], -math.inf, 0, 0.0, [], [])
    best_weights: dict[str, Tensor] | None = None
    path = options.checkpoints / f"{name}.safetensors" if options.checkpoints else None
    about = {
        "name": name,
        "seed": options.seed,
        "optimiser": config.model_dump(mode="json"),
        **about,
    }
    if path is not None and path.is_file():
        done, best_weights = load_checkpoint(
            path,
            about=about,
            model=model,
            optimiser=optimiser,
            averaged=averaged,
            streams=streams,
        )
    before = done.seconds
    with limited_threads(options.num_threads):
        while not _finished(done, config, options):
            epoch = len(done.losses)
            model.train()
            total, count, began = 0.0, 0, time.perf_counter()
            for batch in batches(epoch):
                done.step += 1
                spent = (before + time.perf_counter() - started) / options.max_seconds
                for group in optimiser.param_groups:
                    group["lr"] = config.rate(step=done.step, epoch=epoch, time_spent=spent)
                with _precision(options):
                    value = loss(batch)
                optimiser.zero_grad(set_to_none=True)
                value.backward()
                nn.utils.clip_grad_norm_(parameters, config.clip_norm)
                optimiser.step()
                if averaged:
                    # A smaller decay in the first steps, so that the average isn't dominated by the
                    # random initialisation.
                    decay = min(config.average_decay, done.step / (done.step + 10))
                    for average, own in zip(averaged, parameters, strict=True):
                        average.lerp_(own.detach(), 1 - decay)
                total, count = total + value.item(), count + 1
            done.epoch_seconds.append(time.perf_counter() - began)
            _check_epoch(name, epoch, total, count, config)
            done.losses.append(total / count)
            model.eval()
            with torch.no_grad(), _with_averages(parameters, averaged):
                ndcg = validate() if options.epochs is None else math.nan
                done.figures.append(ndcg)
                if math.isnan(ndcg) or ndcg > done.best_ndcg:
                    done.best_epoch = epoch + 1
                    best_weights = copy.deepcopy(model.state_dict())
                    done.best_ndcg = done.best_ndcg if math.isnan(ndcg) else ndcg
            done.seconds = before + time.perf_counter() - started
            judged = "" if options.epochs is not None else f" validation ndcg {ndcg:.4f}"
            progress(
                f"{name}: epoch {epoch + 1}/{options.epochs or config.num_epochs}"
                f" loss {done.losses[-1]:.4f}{judged} {done.seconds:.1f} s"
            )
            if options.report is not None and not math.isnan(ndcg):
                options.report(epoch + 1, ndcg)
            if path is not None:
                save_checkpoint(
                    path,
                    about=about,
                    progress=done,
                    model=model,
                    optimiser=optimiser,
                    averaged=averaged,
                    best_weights=best_weights,
                    streams=streams,
                )
    assert best_weights is not None, "num_epochs is at least 1"
    model.load_state_dict(best_weights)
    model.eval()
    return TrainingHistory(
        epochs=len(done.losses),
        best_epoch=done.best_epoch,
        best_ndcg=done.best_ndcg if math.isfinite(done.best_ndcg) else math.nan,
        seconds=done.seconds,
        losses=tuple(done.losses),
        figures=tuple(done.figures),
        epoch_seconds=tuple(done.epoch_seconds),
    )


def _finished(done: Progress, config: OptimiserConfig, options: TrainingOptions) -> bool:
    epochs = len(done.losses)
    if epochs == 0:
        return False
    if options.epochs is not None:
        return epochs >= options.epochs
    waited = epochs - done.best_epoch
    return (
        epochs >= config.num_epochs
        or waited >= config.patience
        or done.seconds >= options.max_seconds
    )


def _precision(options: TrainingOptions) -> AbstractContextManager[Any]:
    if not options.half_precision:
        return nullcontext()
    return torch.autocast(torch.device(options.device).type, dtype=torch.bfloat16)


@contextmanager
def _with_averages(parameters: list[nn.Parameter], averaged: list[Tensor]) -> Iterator[None]:
    """Replace the weights by their averages inside the block, and restore them afterwards."""
    if not averaged:
        yield
        return
    own = [p.detach().clone() for p in parameters]
    _copy_into(parameters, averaged)
    try:
        yield
    finally:
        _copy_into(parameters, own)


def _copy_into(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.detach().copy_(value)


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
    """Limit torch operations inside the block to `num_threads` threads; 0 changes nothing.

    With OpenMP, `torch.set_num_threads` affects the calling thread and threads that have not used
    torch yet. Threads that are already training keep their limit. Models that train in parallel in
    one process must therefore all request the same number, as the training flow does.
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


def one_thread_per_call() -> None:
    """Limit each call of torch and BLAS in this process to one thread.

    A service answers several requests at once. With one thread per core for each call, requests
    would compete for the cores. FAISS and LightGBM get their number of threads with each call.
    """
    torch.set_num_threads(1)
    threadpool_limits(limits=1, user_api="blas")
