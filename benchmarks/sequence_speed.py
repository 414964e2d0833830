"""`shortlist bench sequence_speed`: compare the speed of SASRec in Shortlist and in RecTools.

    shortlist bench sequence_speed --interactions FILE --rectools-python PYTHON --out FILE.json

FILE has lines "user item item ...". PYTHON is that of an environment with RecTools, made with
`pip install "rectools[torch]"`.

Both models have 64 dimensions, 2 blocks of 2 heads, feed-forward layers of 64, histories of 50,
batches of 256 histories, and the same dropout and learning rate. Sampled losses use 256 negatives:
RecTools draws them for each position, Shortlist shares them in the batch. Times are wall-clock and
CPU seconds; other processes on the machine disturb CPU seconds less. The machine's throughput of
matrix products, the limit of training, is measured before and after; the better value is used.

Each finished part is stored in the folder `--work`, so that the same command on the same file
resumes after an interruption.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._result import about_machine, command_line, report
from benchmarks.sequence_model.protocol import FormatError, Sequences
from benchmarks.sequence_model.runs import cached
from benchmarks.sequence_model.speed import measure_matmul, run_epochs, run_steps
from models.sequence.sasrec import SasrecConfig
from models.training import OptimiserConfig
from shortlist.config import Settings

LOSSES = ["full_softmax", "sampled_softmax"]


def main() -> None:
    arguments = parse()
    try:
        sequences = Sequences.read(arguments.interactions)
        check_rectools(arguments.rectools_python)
    except FormatError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    arguments.work = work_folder(arguments)
    measured: dict[str, Any] = {}
    for name, measure in parts_of(sequences, arguments).items():
        measured[name] = cached(arguments.work / f"{name.replace(' ', '-')}.json", measure)
        print(name, json.dumps(measured[name]), flush=True)
    about = about_machine()
    result = {
        "date": about["date"],
        "command": command_line("sequence_speed"),
        "machine": f"{about['machine']}, threads {arguments.threads}",
        "measured": measured,
        "compared": compare(measured),
    }
    report(result, arguments.out, shown=result["compared"])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="shortlist bench sequence_speed", description=__doc__)
    parser.add_argument("--interactions", type=Path, required=True)
    parser.add_argument("--rectools-python", type=Path, help="default: don't measure RecTools")
    parser.add_argument("--learning-rate", type=float, default=6e-3)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of Shortlist")
    parser.add_argument("--rectools-steps", type=int, default=4, help="timed steps of RecTools")
    parser.add_argument(
        "--epochs",
        type=int,
        default=0,
        help="epochs of Shortlist, to compare times to an equal nDCG; 0: don't compare them",
    )
    parser.add_argument(
        "--rectools-epochs", type=int, default=0, help="epochs of RecTools, as --epochs"
    )
    parser.add_argument(
        "--losses", nargs="+", choices=LOSSES, default=LOSSES, help="losses to compare"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--work", type=Path, help="folder of finished parts; default: bench/ in SHORTLIST_HOME"
    )
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def check_rectools(python: Path | None) -> None:
    """Raise FormatError if `python` can't be run or can't import RecTools."""
    if python is None:
        return
    found = shutil.which(python)
    command = [str(found), "-c", "import rectools"]
    if found is None or subprocess.run(command, capture_output=True, check=False).returncode:
        raise FormatError(
            f"--rectools-python {python}: no Python that imports rectools; make one with"
            ' `python -m venv rt && rt/bin/pip install "rectools[torch]"`'
        )


def work_folder(arguments: argparse.Namespace) -> Path:
    """Return the folder for finished parts.

    Its name is a hash of the file's content and the settings, so that runs with other inputs have
    other folders.
    """
    settings = {
        name: str(value)
        for name, value in vars(arguments).items()
        if name not in ("interactions", "work", "out", "losses")
    }
    about = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    about.update(arguments.interactions.read_bytes())
    root = arguments.work or Settings().home / "bench"
    return root / f"sequence-speed-{about.hexdigest()[:12]}"


def parts_of(
    sequences: Sequences, arguments: argparse.Namespace
) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return {name: function that measures it}, in the order of the run.

    Measurements of Shortlist and RecTools alternate, so that changes of the machine's load affect
    both.
    """
    threads = arguments.threads
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "matmul": lambda: measure_matmul(sequences.num_items, threads=threads)
    }
    for loss in arguments.losses:
        config = config_of(loss, arguments)
        parts[f"shortlist steps {loss}"] = lambda config=config: run_steps(
            sequences, config, steps=arguments.steps, threads=threads
        )
        if arguments.rectools_python:
            parts[f"rectools steps {loss}"] = lambda loss=loss: run_rectools(
                loss, arguments, batches=arguments.rectools_steps
            )
        if arguments.epochs:
            parts[f"shortlist epochs {loss}"] = lambda config=config: run_epochs(
                sequences, config, threads=threads
            )
        if arguments.rectools_python and arguments.rectools_epochs:
            parts[f"rectools epochs {loss}"] = lambda loss=loss: run_rectools(loss, arguments)
    return parts | {"matmul again": parts["matmul"]}


def config_of(loss: str, arguments: argparse.Namespace) -> SasrecConfig:
    return SasrecConfig.model_validate(
        {
            "embedding_dim": 64,
            "num_blocks": 2,
            "num_heads": 2,
            "hidden_factor": 1,
            "max_history": 50,
            "dropout": arguments.dropout,
            "batch_size": 256,
            "loss": loss,
            "num_negatives": 256,
            "unknown_item_rate": 0,
            "learn_start": False,
            "optimiser": OptimiserConfig(
                learning_rate=arguments.learning_rate,
                num_epochs=max(arguments.epochs, 1),
                patience=max(arguments.epochs, 1),
            ),
        }
    )


def run_rectools(
    loss: str, arguments: argparse.Namespace, *, batches: int | None = None
) -> dict[str, Any]:
    """Train and score with RecTools in its environment; return its speed and validation nDCG.

    Args:
        batches: train only this many batches, after a warm-up batch, without validation.
    """
    lines = arguments.work / f"rectools-{loss}.jsonl"
    lines.unlink(missing_ok=True)
    lines.parent.mkdir(parents=True, exist_ok=True)
    name = "softmax" if loss == "full_softmax" else loss
    script = Path(__file__).with_name("_rectools_run.py")
    command = [
        *(str(arguments.rectools_python), str(script), str(arguments.interactions)),
        *("--loss", name, "--dropout", str(arguments.dropout)),
        *("--learning-rate", str(arguments.learning_rate), "--out", str(lines)),
        *("--threads", str(arguments.threads)),
        *("--epochs", "1" if batches else str(arguments.rectools_epochs)),
        *(["--batches", str(batches + 1)] if batches else []),
    ]
    subprocess.run(command, check=True)
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    trained, scored = [row for row in rows if "epoch" in row], rows[-1]
    result = {
        "version": scored["rectools"],
        "loss": loss + (", 256 negatives a position" if loss != "full_softmax" else ""),
        "real_positions": trained[0]["real_positions"],
        "tokens_per_s": round(float(np.median([row["tokens_per_s"] for row in trained])), 1),
        "tokens_per_cpu_s": float(np.median([row["tokens_per_cpu_s"] for row in trained])),
        "users_per_s": scored["users_per_s"],
        "users_per_cpu_s": scored["users_per_cpu_s"],
    }
    if batches:
        return result | {"steps": batches}
    seconds = [row["train_seconds"] for row in trained]
    return result | {
        "seconds_per_epoch": seconds,
        "seconds_until": np.cumsum(seconds).round(2).tolist(),
        "cpu_seconds_until": np.cumsum([row["cpu_seconds"] for row in trained]).round(2).tolist(),
        "validation_ndcg@10": [row["validation_ndcg@10"] for row in trained],
    }


def compare(measured: dict[str, Any]) -> dict[str, Any]:
    """Return the speed of Shortlist divided by that of RecTools, if both were measured.

    The result also has Shortlist's speed as a share of the machine's limit by matrix products.

    Args:
        measured: {name of a part: its figures}.
    """
    out: dict[str, Any] = {}
    for loss in LOSSES:
        ours = measured.get(f"shortlist steps {loss}")
        theirs = measured.get(f"rectools steps {loss}")
        if ours and loss == "full_softmax":
            timed = [part for name, part in measured.items() if name.startswith("matmul")]
            reached = ours["tokens_per_cpu_s"] * timed[0]["threads"]
            for name, limit in (
                ("full_softmax_share_of_matmul_limit", "full_softmax_limit_tokens_per_s"),
                ("full_softmax_share_of_best_matmul", "full_softmax_limit_at_best_tokens_per_s"),
            ):
                out[name] = round(reached / max(part[limit] for part in timed), 3)
        if ours and theirs:
            out[f"{loss} steps"] = {
                f"{name}_ratio": round(ours[name] / theirs[name], 1)
                for name in ("tokens_per_s", "tokens_per_cpu_s", "users_per_s", "users_per_cpu_s")
            }
        ours = measured.get(f"shortlist epochs {loss}")
        theirs = measured.get(f"rectools epochs {loss}")
        if ours and theirs:
            out[f"{loss} to equal nDCG"] = to_equal(ours, theirs)
    return out


def to_equal(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Compare the times until Shortlist and RecTools reach RecTools' best validation nDCG.

    Times are in wall-clock and in CPU seconds; None if Shortlist doesn't reach it.
    """
    best = int(np.argmax(theirs["validation_ndcg@10"]))
    wanted = theirs["validation_ndcg@10"][best]
    reached = [i for i, figure in enumerate(ours["validation_ndcg@10"]) if figure >= wanted]
    out: dict[str, Any] = {"validation_ndcg@10": wanted, "rectools_epochs": best + 1}
    out["shortlist_epochs"] = reached[0] + 1 if reached else None
    for clock in ("seconds_until", "cpu_seconds_until"):
        at = theirs[clock][best]
        seconds = ours[clock][reached[0]] if reached else None
        name = clock.removesuffix("_until")
        out |= {f"rectools_{name}": at, f"shortlist_{name}": seconds}
        out[f"times_sooner_by_{name}"] = round(at / seconds, 1) if seconds else None
    return out


if __name__ == "__main__":
    main()
