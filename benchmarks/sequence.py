"""`shortlist bench sequence`: train a sequence model on a file of lines "user item item ...".

    shortlist bench sequence --interactions FILE --format sequences --model auto --out FILE.json

Evaluates by leave-one-out in the order of the file, over the full catalogue
(`sequence_model.protocol`). The metrics of each seed and the training state after each epoch are
stored in the folder `--work`, so that the same command resumes after an interruption.
"""

import argparse
import sys
from typing import Any

import numpy as np

from benchmarks._result import about_machine, command_line, peak_gb, report
from benchmarks.sequence_model.arguments import (
    BASELINES,
    check,
    configuration,
    parse,
    seconds_each,
    work_folder,
)
from benchmarks.sequence_model.protocol import FormatError, Sequences
from benchmarks.sequence_model.runs import GRIDS, Environment, cached, fit_baseline, judge, run_seed
from models.baselines import ease
from models.checkpoint import CheckpointError
from models.sequence.choose import Statistics
from models.training import TrainingError

PARTS = ("validation", "test", "test_trained_on_validation_too")


def main() -> None:
    arguments = parse(__doc__)
    try:
        check(arguments)
        sequences = Sequences.read(arguments.interactions)
        result = run(sequences, arguments)
    except (FormatError, TrainingError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, FormatError) else 1)
    report(result, arguments.out, shown={part: result[part] for part in PARTS if part in result})


def run(sequences: Sequences, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate; return the content of the result file."""
    statistics = Statistics.of(sequences.training(held_out=2))
    about = about_machine()
    result: dict[str, Any] = {
        "date": about["date"],
        "command": command_line("sequence"),
        "machine": f"{about['machine']}, device {arguments.device}",
        "data": vars(statistics) | {"judged_users": len(sequences.judged)},
    }
    if arguments.model == "ease" and sequences.num_items > ease.MAX_ITEMS:
        raise FormatError(
            f"{arguments.interactions}: {sequences.num_items:,} items, --model ease takes at most"
            f" {ease.MAX_ITEMS:,} (its inverse is dense); want --model item_knn or ials"
        )
    if arguments.model in BASELINES:
        path = (
            work_folder(arguments, {"kind": arguments.model, "grid": GRIDS.get(arguments.model)})
            / "figures.json"
        )
        return result | cached(path, lambda: run_baseline(sequences, arguments.model))
    if arguments.model == "blend":
        from benchmarks.sequence_model.blend import run_blend

        return result | run_blend(sequences, statistics, arguments)
    config = configuration(arguments.model, statistics, arguments.set)
    environment = Environment(
        device=arguments.device,
        work=work_folder(arguments, config.model_dump(mode="json")),
        seconds=seconds_each(arguments),
    )
    seeds = [
        run_seed(
            sequences,
            config,
            seed=seed,
            environment=environment,
            with_validation=not arguments.skip_refit,
        )
        for seed in (range(arguments.seeds) if arguments.only is None else [arguments.only])
    ]
    return result | summary(seeds) | {"config": config.model_dump(mode="json"), "seeds": seeds}


def run_baseline(sequences: Sequences, kind: str) -> dict[str, Any]:
    """Run a baseline once, because seeds hardly affect it.

    The reported standard deviation over seeds is 0.
    """
    scorer, chosen = fit_baseline(sequences, kind)
    metrics = {
        "validation": judge(sequences, scorer, held_out=2),
        "test": judge(sequences, scorer, held_out=1),
    }
    return summary([metrics]) | {"config": {"kind": kind} | chosen}


def summary(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean and standard deviation of each metric over seeds, and the mean speed."""
    out: dict[str, Any] = {}
    for part in PARTS:
        rows = [seed[part] for seed in seeds if part in seed]
        if rows:
            out[part] = {
                name: {
                    "mean": round(float(np.mean([row[name] for row in rows])), 5),
                    "std": round(float(np.std([row[name] for row in rows])), 5),
                }
                for name in rows[0]
            }
    for name in ("seconds_per_epoch", "tokens_per_s"):
        if name in seeds[0]:
            out[name] = round(float(np.mean([seed[name] for seed in seeds])), 2)
    out["peak_gb"] = max([peak_gb(), *(seed.get("peak_gb", 0) for seed in seeds)])
    return out


if __name__ == "__main__":
    main()
