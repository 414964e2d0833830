"""The training loop of all neural models.

AdamW, learning-rate schedule, gradient clipping, weight averaging, early stopping that keeps the
best epoch, and checkpoints from which a training resumes exactly.
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
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from models.checkpoint import Progress, Stream, load_checkpoint, save_checkpoint
from shortlist.config import Config

BatchT = TypeVar("BatchT")


class TrainingError(ValueError):
    """Training can't continue; the message names the model, the epoch and what to change."""


@dataclass(frozen=True)
class TrainingOptions:
    """The run environment of a training, separate from hyperparameters: device, seed, folders.

    Every model draws from its own named random streams, never from torch's global generator. Models
    train in parallel threads of one process, so the order of draws from a shared generator varies.
    """

    device: str = "cpu"
    seed: int = 0
    num_threads: int = 0
    """Threads per torch operation; 0 keeps torch's default."""
    cache: Path | None = None
    """Folder for expensive results that depend only on content (text vectors)."""
    checkpoints: Path | None = None
    """Folder to which a training saves its state after each epoch, and from which it resumes."""
    max_seconds: float = math.inf
    """Training time in seconds after which no epoch starts; a cosine schedule ends at this time."""
    epochs: int | None = None
    """Train exactly this many epochs without validation and keep the last weights. The schedule is
    still that of `num_epochs`. None: stop by validation and keep the best weights."""
    half_precision: bool = False
    """Compute the model in bfloat16 where torch's autocast allows it; for GPUs."""

    def rng(self, name: str) -> np.random.Generator:
        """The random stream `name`; the same seed and name always give the same numbers."""
        return np.random.default_rng([self.seed, *name.encode()])

    def generator(self, name: str) -> torch.Generator:
        """The same stream as a torch generator on `device`."""
        seed = int(self.rng(name).integers(2**62))
        return torch.Generator(device=self.device).manual_seed(seed)


class OptimiserConfig(Config):
    """AdamW (Loshchilov & Hutter 2019), its learning-rate schedule and the stopping rule."""

    model_config = ConfigDict(allow_inf_nan=False)

    learning_rate: NonNegativeFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0
    warmup_steps: NonNegativeInt = 50
    schedule: Literal["constant", "cosine"] = "constant"
    """Constant after the warm-up, or a half cosine down to 1/20 of the rate. The cosine ends with
    `num_epochs` or with the time limit, whichever comes first."""
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0
    """Decay of an exponential moving average of the weights (Polyak & Juditsky 1992). Validation
    and the result use the average. 0: no averaging."""
    clip_norm: PositiveFloat = 5.0
    num_epochs: PositiveInt = 12
    patience: PositiveInt = 2

    def rate(self, *, step: int, epoch: int, time_spent: float = 0) -> float:
        """Learning rate of a step (from 1) in an epoch (from 0).

        Args:
            time_spent: share of the allowed time that has passed, 0 to 1.
        """
        rate = self.learning_rate * min(1.0, step / (self.warmup_steps + 1))
        if self.schedule == "cosine":
            done = min(max(epoch / self.num_epochs, time_spent), 1.0)
            rate *= 0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2
        return rate


@dataclass(frozen=True)
class TrainingHistory:
    """Summary of a training; epochs count from 1."""

    epochs: int
    best_epoch: int
    best_ndcg: float
    seconds: float
    losses: tuple[float, ...]
    figures: tuple[float, ...] = ()
    """Validation nDCG after each epoch."""
    epoch_seconds: tuple[float, ...] = ()
    """Seconds of each epoch without validation and checkpoints; `seconds` includes both."""

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
        batches: returns the batches of epoch i (from 0); shuffles with its own random stream.
        loss: one batch -> scalar mean loss.
        validate: nDCG of the current model; called after each epoch in evaluation mode, without
            gradients. NaN means that nothing can be judged: training doesn't stop early and the
            last weights are kept.
        about: JSON that identifies this training among others of the same name: the model's config
            with its loss, and the data (`TrainingData.about`). A checkpoint with another `about`
            is refused.
        streams: every source of random numbers that batches and model draw from. If one is missing,
            a resumed training differs from an uninterrupted one.
        progress: receives one line of text per epoch.

    Raises:
        TrainingError: the loss is no longer finite, or an epoch had no batch.
        CheckpointError: the checkpoint belongs to another training.
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
    """Use the averaged weights inside the block; restore the model's own weights afterwards."""
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
    """Run the torch operations of this block on `num_threads` threads (0: leave it unchanged).

    With OpenMP, `torch.set_num_threads` affects the calling thread and threads that have not used
    torch yet. Threads that are already training keep their number. Parallel trainings in one
    process are therefore independent as long as all request the same number; the flow does so.
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
    """Let each call of torch and BLAS in this process use one thread.

    A service answers several requests at once. If each call started a thread per core, they would
    wait for one another. FAISS and LightGBM get their number of threads with each call.
    """
    torch.set_num_threads(1)
    threadpool_limits(limits=1, user_api="blas")
