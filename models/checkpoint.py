"""Checkpoints: the state of a training run after an epoch, so that the run can resume exactly.

A checkpoint is one safetensors file without pickle. Weights, optimiser state and torch generator
states are tensors; all other values are JSON in the metadata.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

Stream = np.random.Generator | torch.Generator
"""Random generator that a training run draws from."""


class CheckpointError(ValueError):
    """A checkpoint belongs to another training run, with other settings or data.

    The message names the file and the differences.
    """


@dataclass
class Progress:
    """Counters and figures of a training run after its last completed epoch."""

    step: int
    """Number of optimiser steps so far."""
    losses: list[float]
    """Mean loss of each epoch."""
    best_ndcg: float
    best_epoch: int
    """Counted from 1; 0 before the first epoch."""
    seconds: float
    """Duration of the run so far, including interrupted parts."""
    epoch_seconds: list[float]
    """Duration of each epoch."""
    figures: list[float]
    """Validation nDCG after each epoch."""


def save_checkpoint(
    path: Path,
    *,
    about: Mapping[str, Any],
    progress: Progress,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    averaged: list[Tensor],
    best_weights: dict[str, Tensor] | None,
    streams: tuple[Stream, ...],
) -> None:
    """Write a checkpoint.

    Writes a temporary file and renames it, so that an interrupted write leaves the previous
    checkpoint intact.

    Args:
        about: JSON object that identifies the run: its config and data.
        averaged: moving averages of the weights.
        best_weights: weights of the best epoch so far; None if there are none.
        streams: random generators of the run.
    """
    tensors = {f"weights/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"averaged/{i}": value for i, value in enumerate(averaged)}
    tensors |= {f"best/{name}": value for name, value in (best_weights or {}).items()}
    for i, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{i}/{name}": value for name, value in state.items()}
    rngs: dict[str, Any] = {}
    for i, stream in enumerate(streams):
        if isinstance(stream, torch.Generator):
            tensors[f"stream/{i}"] = stream.get_state()
        else:
            rngs[str(i)] = stream.bit_generator.state
    metadata = {"about": about, "progress": vars(progress), "rngs": rngs}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    # Clone: safetensors refuses tensors that share memory.
    save_file(
        {name: value.detach().cpu().clone() for name, value in tensors.items()},
        partial,
        metadata={"shortlist": json.dumps(metadata)},
    )
    partial.replace(path)


def load_checkpoint(
    path: Path,
    *,
    about: Mapping[str, Any],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    averaged: list[Tensor],
    streams: tuple[Stream, ...],
) -> tuple[Progress, dict[str, Tensor] | None]:
    """Load a checkpoint into model, optimiser, averaged weights and random generators, in place.

    The arguments are those of `save_checkpoint`.

    Returns:
        The progress so far, and the weights of the best epoch (None if there are none).

    Raises:
        CheckpointError: the checkpoint was written by a run with another `about`.
    """
    with safe_open(path, framework="pt") as file:
        metadata = json.loads((file.metadata() or {}).get("shortlist", "{}"))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    different = differences(metadata.get("about") or {}, json.loads(json.dumps(about)))
    if different:
        raise CheckpointError(
            f"{path}: belongs to another training ({', '.join(different)});"
            " use a separate checkpoint folder, or delete the file"
        )

    def part(prefix: str) -> dict[str, Tensor]:
        return {
            name.removeprefix(prefix): value
            for name, value in tensors.items()
            if name.startswith(prefix)
        }

    model.load_state_dict(part("weights/"))
    for i, value in part("averaged/").items():
        averaged[int(i)].copy_(value)
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in part("optimiser/").items():
        i, key = name.split("/")
        state.setdefault(int(i), {})[key] = value
    whole = optimiser.state_dict()
    optimiser.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
    for i, stream in enumerate(streams):
        if isinstance(stream, torch.Generator):
            stream.set_state(tensors[f"stream/{i}"])
        else:
            stream.bit_generator.state = metadata["rngs"][str(i)]
    return Progress(**metadata["progress"]), part("best/") or None


def differences(old: Mapping[str, Any], new: Mapping[str, Any], *, inside: str = "") -> list[str]:
    """Return the differences of two nested JSON objects, for example "config.loss is 'bce', here
    'gbce'".

    Args:
        inside: prefix of the keys: the path of the two objects, with a final dot.
    """
    found = []
    for key in sorted(old.keys() | new.keys()):
        before, now = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found += differences(before, now, inside=f"{inside}{key}.")
        elif before != now:
            found.append(f"{inside}{key} is {before!r}, here {now!r}")
    return found
