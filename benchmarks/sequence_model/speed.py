"""Measurements for `shortlist bench sequence_speed`: speed of Shortlist's SASRec in training and
scoring, and the machine's limit.

The limit is the machine's throughput of matrix products.
"""

import time
from collections.abc import Callable
from itertools import chain, count, islice
from typing import Any

import numpy as np

from benchmarks.sequence_model.protocol import Sequences, figures, ranks
from benchmarks.sequence_model.runs import count_targets, scorer_of
from models.layers import prepare
from models.sequence.batches import SequenceData
from models.sequence.fit import train_sequence
from models.sequence.model import SequenceModel
from models.sequence.sasrec import SasrecConfig, SasrecEncoder
from models.training import TrainingHistory, TrainingOptions, limited_threads
from models.vector_source import VectorSource

KINDS_OF_WORK = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm"),
    "softmax and exponentials": ("softmax", "aten::exp", "aten::amax", "aten::log", "aten::sum"),
    "attention": ("attention",),
    "dropout": ("aten::random_", "aten::clamp", "aten::sub_"),
    "optimiser": ("adamw", "norm", "foreach"),
    "embeddings": ("embedding", "index", "gather", "scatter"),
}
"""{group of torch operations: substrings of their names}. An operation belongs to the first group
with a substring that its name contains."""


def loss_name(config: SasrecConfig) -> str:
    shared = ", 256 negatives shared by the batch"
    return config.loss + ("" if config.loss == "full_softmax" else shared)


def run_steps(
    sequences: Sequences, config: SasrecConfig, *, steps: int, threads: int
) -> dict[str, Any]:
    """Time training steps in wall-clock and CPU time, profile them, and time scoring."""
    import torch
    from torch.profiler import ProfilerActivity

    options = TrainingOptions(num_threads=threads)
    data = sequences.training(held_out=2)
    model = SequenceModel(
        config,
        SasrecEncoder(config),
        categories=data.catalogue.category_matrix,
        known=data.item_counts > 0,
    )
    model.generator = options.generator("steps")
    prepare(model, model.generator)
    batches = SequenceData(
        data, max_history=config.max_history, rng=options.rng("steps"), learn_start=False
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    loader = chain.from_iterable(batches.batches(config.batch_size) for _ in count())

    def run(number: int) -> int:
        positions = 0
        for batch in islice(loader, number):
            loss = model.loss(batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimiser.clip_norm)
            optimiser.step()
            positions += int((batch.targets > 0).sum())
        return positions

    with limited_threads(threads):
        run(3)
        started, cpu = time.perf_counter(), time.process_time()
        positions = run(steps)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiled:
            run(8)
        scored = score_all(config, model.eval(), sequences, limit=4096)
    return {
        "loss": loss_name(config),
        "steps": steps,
        "real_positions": positions,
        "tokens_per_s": round(positions / seconds, 1),
        "tokens_per_cpu_s": round(positions / cpu, 1),
        "profile_shares": shares_of(profiled),
    } | scored


def run_epochs(sequences: Sequences, config: SasrecConfig, *, threads: int) -> dict[str, Any]:
    """Train whole epochs with validation on all users, then score all users; return the times."""
    spent: list[float] = []  # CPU seconds of each epoch without validation

    def validate(model: SequenceModel) -> float:
        nonlocal began
        spent.append(time.process_time() - began)
        figure = figures(ranks(scorer_of(model), sequences.chunks(held_out=2)))["ndcg@10"]
        began = time.process_time()
        return figure

    data = sequences.training(held_out=2)
    began = time.process_time()
    model, history = train_sequence(
        config,
        data,
        validate=validate,
        options=TrainingOptions(num_threads=threads),
    )
    targets, epochs = count_targets(data, config), history.epoch_seconds
    with limited_threads(threads):
        scored = score_all(config, model, sequences)
    return {
        "loss": loss_name(config),
        "real_positions": targets,
        "seconds_per_epoch": [round(s, 2) for s in epochs],
        "tokens_per_s": round(float(targets / np.median(epochs)), 1),
        "seconds_until": np.cumsum(epochs).round(2).tolist(),
        "cpu_seconds_until": np.cumsum(spent).round(2).tolist(),
        "validation_ndcg@10": [round(f, 5) for f in history.figures],
    } | scored


def score_all(
    config: SasrecConfig, model: SequenceModel, sequences: Sequences, *, limit: int | None = None
) -> dict[str, float]:
    """Measure for how many users per second the model retrieves the 20 best unseen items.

    Args:
        limit: number of users; None: all evaluated users.
    """
    no_history = TrainingHistory(epochs=0, best_epoch=0, best_ndcg=0, seconds=0, losses=())
    source = VectorSource.build("sasrec", config=config, model=model, history=no_history)
    state: Any = None  # vector sources don't read item states
    started, cpu, users = time.perf_counter(), time.process_time(), 0
    for queries, _ in sequences.chunks(held_out=1, users=sequences.judged[:limit], size=2048):
        users += len(source.retrieve(queries, state, k=20).item_idx)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {"users_per_s": round(users / seconds, 1), "users_per_cpu_s": round(users / cpu, 1)}


def shares_of(profiled: Any) -> dict[str, float]:
    """Return the share of CPU time of each group of operations (KINDS_OF_WORK).

    Args:
        profiled: a finished `torch.profiler.profile`.
    """
    shares: dict[str, float] = dict.fromkeys([*KINDS_OF_WORK, "other"], 0.0)
    for event in profiled.key_averages():
        name = event.key.lower()
        operation_group = next(
            (k for k, names in KINDS_OF_WORK.items() if any(part in name for part in names)),
            "other",
        )
        shares[operation_group] += event.self_cpu_time_total
    total = sum(shares.values())
    return {operation_group: round(share / total, 3) for operation_group, share in shares.items()}


def measure_matmul(num_items: int, *, threads: int) -> dict[str, Any]:
    """Measure the throughput of matrix products: of square matrices, and as in the full softmax.

    Args:
        num_items: size of the catalogue, which determines the shapes in the full softmax.
    """
    import torch

    torch.set_num_threads(threads)

    def seconds(run: Callable[[], Any], *, repeat: int = 7) -> float:
        run()
        times = []
        for _ in range(repeat):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        return min(times)

    n, dim, chunk = 1536, 64, 128
    square = torch.randn(n, n)
    best = 2 * n**3 / seconds(lambda: square @ square)
    items, states = torch.randn(num_items, dim), torch.randn(chunk, dim)
    logits, p = torch.empty(chunk, num_items), torch.rand(chunk, num_items)
    ours = (
        seconds(lambda: torch.mm(states, items.T, out=logits))
        + seconds(lambda: p @ items)
        + seconds(lambda: p.T @ states)
    )
    flops = 6 * dim * num_items  # per position: three matrix products
    return {
        "threads": threads,
        "best_gflops": round(best / 1e9, 1),
        "softmax_shapes_gflops": round(flops * chunk / ours / 1e9, 1),
        "full_softmax_limit_tokens_per_s": round(chunk / ours, 1),
        "full_softmax_limit_at_best_tokens_per_s": round(best / flops, 1),
    }
