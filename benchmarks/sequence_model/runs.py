"""Training and evaluation of one model with one seed. The results of finished seeds are stored."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._result import peak_gb
from benchmarks.sequence_model.protocol import Scorer, Sequences, figures, ranks
from models import registry
from models.data import TrainingData, Validation
from models.queries import Queries, Source
from models.sequence.fit import train_sequence
from models.sequence.model import SequenceConfig, SequenceModel
from models.training import TrainingHistory, TrainingOptions
from shortlist.features.pack import ItemState

CHECK_USERS = (2_000, 6_000)
"""Minimum and maximum number of users for early stopping. The reported metrics use all users."""
CHECK_SHARE = 0.3
"""Number of events in the histories that early stopping encodes after each epoch, as a share of the
training events."""
TUNING_USERS = 3_000
"""Number of validation users on which baseline grids are evaluated."""
NO_STATES = ItemState(pack_id="none", as_of=0, state={})
"""Empty item features; the baselines don't read any."""


@dataclass(frozen=True)
class Environment:
    """Device, work folder and time limit of a run."""

    device: str
    work: Path  # folder of stored results and checkpoints
    seconds: float  # time limit of one training

    def options(self, *, seed: int, part: str) -> TrainingOptions:
        return TrainingOptions(
            device=self.device,
            seed=seed,
            checkpoints=self.work / f"seed-{seed}-{part}",
            max_seconds=self.seconds,
            half_precision=self.device.startswith("cuda"),
        )


def scorer_of(model: SequenceModel) -> Scorer:
    """Return a scorer that computes inner products of user states and item vectors."""
    import torch

    with torch.no_grad():
        vectors = model.item_vectors().float().cpu().numpy().T.copy()

    def score(queries: Queries) -> np.ndarray:
        with torch.no_grad():
            return model.encode(queries).float().cpu().numpy() @ vectors

    return score


def judge(sequences: Sequences, scorer: Scorer, *, held_out: int) -> dict[str, float]:
    return figures(ranks(scorer, sequences.chunks(held_out=held_out)))


def fit(
    sequences: Sequences,
    config: SequenceConfig,
    *,
    seed: int,
    environment: Environment,
) -> tuple[SequenceModel, TrainingHistory]:
    """Train without each user's last two items; stop early by nDCG@10 of the first of them."""
    users = checked_users(sequences)

    def validate(model: SequenceModel) -> float:
        chunks = sequences.chunks(held_out=2, users=users)
        return figures(ranks(scorer_of(model), chunks))["ndcg@10"]

    return train_sequence(
        config,
        sequences.training(held_out=2),
        validate=validate,
        options=environment.options(seed=seed, part="train"),
        progress=lambda line: print(f"seed {seed} {line}", flush=True),
    )


def checked_users(sequences: Sequences) -> np.ndarray:
    """Sample the users for early stopping: fewer users if histories are long (CHECK_SHARE)."""
    users = sequences.judged
    wanted = int(CHECK_SHARE * len(sequences.item_idx) / sequences.lengths[users].mean())
    wanted = min(max(wanted, CHECK_USERS[0]), CHECK_USERS[1], len(users))
    return np.random.default_rng(0).choice(users, wanted, replace=False)


def refit(
    sequences: Sequences,
    config: SequenceConfig,
    *,
    num_epochs: int,
    seed: int,
    environment: Environment,
) -> SequenceModel:
    """Train without each user's last item, for a fixed number of epochs.

    `num_epochs` is the best epoch of the first training. There is no early stopping, so the test
    item can't influence the training.
    """
    optimiser = config.optimiser.model_copy(update={"num_epochs": num_epochs})
    config = config.model_copy(update={"optimiser": optimiser})
    model, _ = train_sequence(
        config,
        sequences.training(held_out=1),
        validate=lambda model: float("nan"),
        options=environment.options(seed=seed, part="refit"),
        progress=lambda line: print(f"seed {seed} with validation: {line}", flush=True),
    )
    return model


def run_seed(
    sequences: Sequences,
    config: SequenceConfig,
    *,
    seed: int,
    environment: Environment,
    with_validation: bool,
) -> dict[str, Any]:
    """Train and evaluate one seed; return its metrics, which are stored in the work folder.

    Args:
        with_validation: whether to train a second model that includes the validation items, and
            report its test metrics too.
    """

    def run() -> dict[str, Any]:
        model, history = fit(sequences, config, seed=seed, environment=environment)
        targets = count_targets(sequences.training(held_out=2), config)
        scorer = scorer_of(model)
        began = time.perf_counter()
        validation = judge(sequences, scorer, held_out=2)
        result: dict[str, Any] = {
            "seed": seed,
            "validation": validation,
            "scoring_users_per_s": len(sequences.judged) / (time.perf_counter() - began),
            "test": judge(sequences, scorer, held_out=1),
            "epochs": history.epochs,
            "best_epoch": history.best_epoch,
            "seconds": history.seconds,
            "seconds_per_epoch": float(np.mean(history.epoch_seconds)),
            "tokens_per_s": targets / float(np.mean(history.epoch_seconds)),
            "stopping_ndcg@10": history.figures,
        }
        if with_validation:
            second = refit(
                sequences,
                config,
                num_epochs=history.best_epoch,
                seed=seed,
                environment=environment,
            )
            result["test_trained_on_validation_too"] = judge(
                sequences, scorer_of(second), held_out=1
            )
        result["peak_gb"] = peak_gb()
        return result

    return cached(environment.work / f"seed-{seed}.json", run)


def cached(path: Path, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the metrics stored in `path`. If there are none, call `run` and store its result."""
    if path.is_file():
        return json.loads(path.read_text())
    result = run()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result))
    partial.replace(path)
    return result


def count_targets(data: TrainingData, config: SequenceConfig) -> int:
    """Return the number of positions with a loss in one epoch."""
    lengths = np.diff(data.offsets)
    starts = int((lengths > 0).sum())
    return len(data.item_idx) - (0 if config.learn_start else starts)


def fit_baseline(sequences: Sequences, kind: str) -> tuple[Scorer, dict[str, Any]]:
    """Fit a baseline and choose its hyperparameters on a sample of the validation users.

    Returns:
        Its scorer, and the chosen hyperparameters.
    """
    data = sequences.training(held_out=2)
    if kind == "popularity":
        counts = data.item_counts.astype(np.float32)
        return lambda queries: np.tile(counts, (len(queries), 1)), {}
    users = sequences.judged
    if len(users) > TUNING_USERS:
        users = np.random.default_rng(0).choice(users, TUNING_USERS, replace=False)
    chunks = sequences.chunks(held_out=2, users=users)
    validation = Validation(
        [(queries, NO_STATES, [np.array([i]) for i in target]) for queries, target in chunks]
    )
    config = registry.parse_source(json.dumps({"kind": kind} | GRIDS.get(kind, {})))
    source: Any = registry.fit(config, data, validation, TrainingOptions())
    return lambda queries: scores_of_all(source, queries, num_items=data.num_items), {
        **source.chosen,
        "at_grid_edge": at_edge(kind, source.chosen),
    }


GRIDS: dict[str, dict[str, Any]] = {
    "item_knn": {
        "neighbours": [200, 1000],
        "shrinkage": [0, 10],
        "decay": [0.5, 0.6, 0.7, 0.8, 1],
    },
    "ease": {"l2": [100, 300, 1000], "decay": [0.5, 0.6, 0.7, 0.8, 1]},
    "ials": {
        "embedding_dim": 128,
        "num_iterations": 8,
        "l2": [0.0003, 0.001, 0.003, 0.01],
        "unseen_weight": [0.003, 0.01, 0.03, 0.1],
        "decay": [0.4, 0.5, 0.7, 1],
    },
}
"""Hyperparameter grids of the baselines. They are wider than the defaults, because the histories of
this protocol are shorter."""


def at_edge(kind: str, chosen: dict[str, Any]) -> list[str]:
    """Return the names of hyperparameters whose chosen value is at an end of the grid.

    For these, a wider grid may be better.
    """
    grids = GRIDS.get(kind, {})
    return [
        name
        for name, value in chosen.items()
        if isinstance(grids.get(name), list) and value in (grids[name][0], grids[name][-1])
    ]


def scores_of_all(source: Source, queries: Queries, *, num_items: int) -> np.ndarray:
    """Return a source's scores of all items, (B, N + 1) float32; 0 for padding."""
    every = np.broadcast_to(np.arange(num_items + 1), (len(queries), num_items + 1))
    scores = source.score(queries, NO_STATES, every)
    scores[:, 0] = 0
    return scores
