"""The only optimiser loop: AdamW, a learning-rate schedule, clipping, averaged weights, early
stopping that keeps the best, checkpoints that a training resumes from exactly.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from models.checkpoint import Progress, Stream, load_checkpoint, save_checkpoint
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
    checkpoints: Path | None = None
    """Folder in which a training leaves its state after each epoch, and goes on from it."""
    max_seconds: float = math.inf
    """Training time after which no further epoch begins; a cosine schedule ends with it."""
    epochs: int | None = None
    """Train exactly so many epochs without validation and keep the last weights; the schedule stays
    that of `num_epochs`. None: stop by validation and keep the best weights."""
    half_precision: bool = False
    """Compute the model in bfloat16 where torch deems it safe; for GPUs."""

    def rng(self, name: str) -> np.random.Generator:
        """The stream `name`: the same seed and name always give the same numbers."""
        return np.random.default_rng([self.seed, *name.encode()])

    def generator(self, name: str) -> torch.Generator:
        """The same for torch, on `device`."""
        seed = int(self.rng(name).integers(2**62))
        return torch.Generator(device=self.device).manual_seed(seed)


class OptimiserConfig(Config):
    """AdamW (Loshchilov & Hutter 2019) and when to stop."""

    model_config = ConfigDict(allow_inf_nan=False)

    learning_rate: NonNegativeFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0
    warmup_steps: NonNegativeInt = 50
    schedule: Literal["constant", "cosine"] = "constant"
    """Constant after the warm-up, or a half cosine down to a twentieth: over `num_epochs`, or over
    the time allowed where that is over sooner."""
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0
    """Judge and keep an exponential average of the weights (Polyak & Juditsky 1992); 0: none."""
    clip_norm: PositiveFloat = 5.0
    num_epochs: PositiveInt = 12
    patience: PositiveInt = 2

    def rate(self, *, step: int, epoch: int, time_spent: float = 0) -> float:
        """Learning rate of a step (from 1) in an epoch (from 0), when so much (0 to 1) of the time
        allowed is over."""
        rate = self.learning_rate * min(1.0, step / (self.warmup_steps + 1))
        if self.schedule == "cosine":
            done = min(max(epoch / self.num_epochs, time_spent), 1.0)
            rate *= 0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2
        return rate


@dataclass(frozen=True)
class TrainingHistory:
    """What a training came to; epochs count from 1."""

    epochs: int
    best_epoch: int
    best_ndcg: float
    seconds: float
    losses: tuple[float, ...]
    figures: tuple[float, ...] = ()
    """Validation nDCG after each epoch."""
    epoch_seconds: tuple[float, ...] = ()
    """Of `seconds`, what went into each epoch itself: without validation and checkpoints."""

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
        batches: the batches of epoch i (from 0); it shuffles with a stream of its own.
        loss: one batch -> scalar mean loss.
        validate: nDCG of the model as it stands; called after each epoch in evaluation mode,
            without gradients. NaN (nothing to judge by) never stops it: the last weights are kept.
        about: as JSON, what tells this training from others of its name: the model's config with
            its loss, and the data (`TrainingData.about`). Another's checkpoint is refused.
        streams: every source of random numbers that batches and model draw from. Only with all of
            them does a training that resumes from a checkpoint equal an uninterrupted one.
        progress: gets one line an epoch.

    Raises:
        TrainingError: the loss is no longer finite, or an epoch had no batch.
        CheckpointError: the checkpoint is another training's.
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
                    # Young averages must not remember the random start.
                    decay = min(config.average_decay, done.step / (done.step + 10))
                    for average, own in zip(averaged, parameters, strict=True):
                        average.lerp_(own.detach(), 1 - decay)
                total, count = total + value.item(), count + 1
            done.epoch_seconds.append(time.perf_counter() - began)
            _check_epoch(name, epoch, total, count, config)
            done.losses.append(total / count)
            model.eval()
            with torch.no_grad(), _swapped(parameters, averaged):
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
def _swapped(parameters: list[nn.Parameter], averaged: list[Tensor]) -> Iterator[None]:
    """Inside, the model has its averaged weights; it is left as it was."""
    if not averaged:
        yield
        return
    own = [p.detach().clone() for p in parameters]
    _put(parameters, averaged)
    try:
        yield
    finally:
        _put(parameters, own)


def _put(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
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
