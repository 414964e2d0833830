"""`shortlist bench sequence`: a sequence model on any file of lines "user item item ...".

    shortlist bench sequence --interactions FILE --format sequences --model auto --out FILE.json

Leave-one-out over the order of the file, ranked over the whole catalogue (see
`_sequence_protocol`). Each seed's figures and each epoch's state are kept in `--work`, so that the
same command goes on where it was stopped.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._result import about_machine, peak_gb, report
from benchmarks._sequence_protocol import FormatError, Sequences
from benchmarks._sequence_runs import GRIDS, Environment, fit_baseline, judge, kept, run_seed
from models.baselines import ease
from models.sequence.kinds import KINDS, Statistics, choose
from models.sequence.model import SequenceConfig
from shortlist.config import Settings, describe

BASELINES = ("popularity", "item_knn", "ease", "ials")
PARTS = ("validation", "test", "test_trained_on_validation_too")


def main() -> None:
    arguments = parse()
    try:
        sequences = Sequences.read(arguments.interactions)
        result = run(sequences, arguments)
    except FormatError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    report(result, arguments.out, shown={part: result[part] for part in PARTS if part in result})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="shortlist bench sequence", description=__doc__)
    parser.add_argument("--interactions", type=Path, required=True)
    parser.add_argument("--format", choices=["sequences"], default="sequences")
    models = [*KINDS, *BASELINES, "auto", "blend"]
    parser.add_argument("--model", choices=models, default="auto")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--only",
        type=int,
        metavar="SEED",
        help="run this seed alone and leave it in --work: seeds side by side, then all together",
    )
    parser.add_argument("--budget-minutes", type=float, help="training time of all seeds together")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. loss=bce"
    )
    parser.add_argument(
        "--skip-refit",
        action="store_true",
        help="leave out the second training with the validation item",
    )
    parser.add_argument("--work", type=Path, help="state to resume from; default SHORTLIST_HOME")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error(f"--seeds is {arguments.seeds}, want at least 1")
    if arguments.model in (*BASELINES, "blend"):
        for option, given in (("--set", arguments.set), ("--only", arguments.only is not None)):
            if given:
                parser.error(
                    f"{option} is for one sequence model, --model is {arguments.model};"
                    f" want --model auto or one of {', '.join(KINDS)}, or no {option}"
                )
    return arguments


def run(sequences: Sequences, arguments: argparse.Namespace) -> dict[str, Any]:
    """The result file's content."""
    statistics = Statistics.of(sequences.training(held_out=2))
    about = about_machine()
    result: dict[str, Any] = {
        "date": about["date"],
        "command": "shortlist bench sequence " + shlex.join(sys.argv[1:]),
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
        return result | kept(path, lambda: run_baseline(sequences, arguments.model))
    if arguments.model == "blend":
        from benchmarks._sequence_blend import run_blend

        return result | run_blend(sequences, statistics, arguments, work_folder)
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


def configuration(model: str, statistics: Statistics, changes: list[str]) -> SequenceConfig:
    """The rule's choice, or a named model with the rule's settings; then the changes of `--set`.

    Raises:
        FormatError: a change is not KEY=VALUE, or the model has no such setting.
    """
    from pydantic import ValidationError

    config = choose(statistics, kind=None if model == "auto" else model)
    values = config.model_dump(mode="json")
    for change in changes:
        key, equals, text = change.partition("=")
        *path, name = key.split(".")
        place = values
        for part in path:
            place = place.get(part, {})
        if not equals or name not in place:
            raise FormatError(f"--set {change}: want KEY=VALUE with a key of {', '.join(values)}")
        try:
            place[name] = json.loads(text)
        except json.JSONDecodeError:
            place[name] = text
    try:
        return type(config).model_validate(values)
    except ValidationError as error:
        raise FormatError(f"--set: {describe(error.errors()[0])}") from None


def seconds_each(arguments: argparse.Namespace) -> float:
    """Of the budget, for one training, or for one blend's trainings together."""
    if arguments.budget_minutes is None:
        return float("inf")
    once = arguments.skip_refit or arguments.model == "blend"  # which never trains a second time
    trainings = arguments.seeds * (1 if once else 2)
    return 60 * arguments.budget_minutes / trainings


def work_folder(
    arguments: argparse.Namespace, config: dict[str, Any], seconds: float | None = None
) -> Path:
    """A folder for this file, configuration and budget: another one never resumes from it."""
    import hashlib

    content = hashlib.sha256(arguments.interactions.read_bytes()).hexdigest()
    seconds = seconds_each(arguments) if seconds is None else seconds
    budget = "none" if arguments.budget_minutes is None else seconds
    about = json.dumps([content, config, budget, arguments.device], sort_keys=True)
    root = arguments.work or Settings().home / "bench" / "sequence"
    return root / f"{config['kind']}-{hashlib.sha256(about.encode()).hexdigest()[:12]}"


def run_baseline(sequences: Sequences, kind: str) -> dict[str, Any]:
    """Baselines have no seed that matters: one run, and a deviation of 0."""
    scorer, chosen = fit_baseline(sequences, kind)
    one = {
        "validation": judge(sequences, scorer, held_out=2),
        "test": judge(sequences, scorer, held_out=1),
    }
    return summary([one]) | {"config": {"kind": kind} | chosen}


def summary(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and deviation over seeds of every figure, and the mean speed."""
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
