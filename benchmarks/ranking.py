"""`shortlist bench ranking`: rankers on lists that were shown, against simple orders.

    shortlist bench ranking --dataset trivago --path DIR --out FILE.json

Sessions are split by time: the newest 20% are the test, the 12.5% before them are validation.
Early stopping and the best method are decided on validation. Every method orders the shown
lists; MRR and nDCG@25 are means over lists, with a bootstrap over lists of the mean of all seeds.
Each method and seed is saved beside FILE.json when it is done, so that a run that was interrupted
continues there. To run seeds side by side, give each its `--only SEED` and the same `--out`, and
then run without `--only`, which collects them.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._result import about_machine, command_line, peak_gb, report
from benchmarks.ranking_lists.data import WINDOWS, Lists, make_lists
from benchmarks.ranking_lists.figures import figures, interval, values_of
from benchmarks.ranking_lists.log import read_log
from benchmarks.ranking_lists.methods import SETTINGS, Fitted, fit, milliseconds
from models.data import fingerprint
from models.ranking.protocol import scores_of
from models.ranking.stack import StackConfig
from shortlist.datasets import DatasetError
from shortlist.files.plain_json import write_json

BASE = "lambdamart"
JUDGED = ("validation", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, choices=("trivago",))
    parser.add_argument("--path", type=Path, help="folder of the data set")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--only", type=int, help="train this seed alone, so that several can run side by side"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of each training")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    if arguments.only is not None and arguments.out is None:
        parser.error("--only keeps its results beside the file of --out, which is missing")
    try:
        result = run(arguments)
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if arguments.only is None:
        report(result, arguments.out, shown=result["methods"])


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and judge all methods; return the content of the result file."""
    lists = make_lists(read_log(arguments.path))
    out = arguments.out
    parts = Parts(None if out is None else out.with_suffix(".parts"), lists, arguments.threads)
    # Seed by seed, so that a stack finds its members trained.
    done: dict[str, list[dict[str, Any]]] = {method: [] for method in SETTINGS}
    for seed in range(arguments.seeds) if arguments.only is None else [arguments.only]:
        for method in SETTINGS:
            done[method].append(parts.of(method, seed=seed))
    return summary(lists, done) | {
        "dataset": arguments.dataset,
        "lists": {window: len(lists[window].data) for window in WINDOWS},
        "features": len(lists["train"].data.schema),
        "seeds": arguments.seeds,
        "processor_seconds_of_training": round(
            sum(p["seconds"] for ps in done.values() for p in ps), 1
        ),
        "peak_gb": peak_gb(),
        "command": command_line("ranking"),
        **about_machine(),
    }


class Parts:
    """The results of each method, setting and seed, in files if there is a folder."""

    def __init__(self, folder: Path | None, lists: dict[str, Lists], threads: int):
        self.folder, self.lists, self.threads = folder, lists, threads
        data = lists["train"].data
        self.data = fingerprint(data.x, data.item_idx, data.label, data.group)
        self.fitted: dict[int, dict[str, Fitted]] = {}
        """Seed -> rankers that this process trained."""

    def of(self, method: str, *, seed: int) -> dict[str, Any]:
        """Return a result from its file, or train the ranker and write the file.

        Returns:
            {"validation" and "test": (2, G) values of each metric, "seconds": of training,
            "milliseconds": to score a request}
        """
        config = SETTINGS[method]
        used = SETTINGS if isinstance(config, StackConfig) else {method: config}
        key = hashlib.sha256(repr([self.data, *map(str, used.values())]).encode()).hexdigest()
        path = None if self.folder is None else self.folder / f"{method}-{seed}-{key[:12]}.json"
        if path is not None and path.is_file():
            part = json.loads(path.read_text())
            return part | {window: np.array(part[window]) for window in JUDGED}
        trained = self.fitted.setdefault(seed, {})
        one = fit(config, self.lists, seed=seed, threads=self.threads, fitted=trained)
        trained[method] = one
        part: dict[str, Any] = {
            window: values_of(
                self.lists[window].data, scores_of(one.ranker, self.lists[window].data)
            )
            for window in JUDGED
        }
        part |= {
            "seconds": round(one.seconds, 1),
            "milliseconds": milliseconds(one.ranker, self.lists["validation"]),
        }
        print(f"{method}, seed {seed}: validation MRR {part['validation'][0].mean():.4f}")
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, part | {window: part[window].tolist() for window in JUDGED})
        return part


def summary(lists: dict[str, Lists], done: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return figures of all methods; the best is the one with the highest MRR on validation."""
    values = {
        window: {
            name: values_of(lists[window].data, scores)
            for name, scores in lists[window].fixed.items()
        }
        | {name: np.mean([part[window] for part in parts], axis=0) for name, parts in done.items()}
        for window in JUDGED
    }
    on_validation = {name: float(own[0].mean()) for name, own in values["validation"].items()}
    best = max(on_validation, key=lambda name: on_validation[name])
    test = values["test"]
    neural = [name for name in done if name not in (BASE, "stack")]
    return {
        "methods": {name: figures(own) for name, own in test.items()},
        "best": best,
        "best_over_lambdamart": figures(test[best] - test[BASE]),
        "best_over_lambdamart_by_session": {
            "mrr": interval((test[best] - test[BASE])[0], lists["test"].sessions)
        },
        "over_lambdamart": {
            name: figures(test[name] - test[BASE]) for name in done if name != BASE
        },
        "stack_over": {name: figures(test["stack"] - test[name]) for name in (BASE, *neural)},
        "validation_mrr": {name: round(value, 5) for name, value in on_validation.items()},
        "validation_over_lambdamart": {
            name: figures(values["validation"][name] - values["validation"][BASE])
            for name in done
            if name != BASE
        },
        "cost": {
            name: {
                "training_processor_seconds": round(
                    float(np.mean([p["seconds"] for p in parts])), 1
                ),
                "processor_milliseconds_500_candidates": float(
                    np.median([p["milliseconds"] for p in parts])
                ),
            }
            for name, parts in done.items()
        },
        "settings": {name: config.model_dump(mode="json") for name, config in SETTINGS.items()},
    }


if __name__ == "__main__":
    main()
