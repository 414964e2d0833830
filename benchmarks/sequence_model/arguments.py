"""Arguments of `shortlist bench sequence`, checked before any training.

Each error message is one sentence: what is wrong, where, and what would be right.
"""

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.sequence_model.protocol import FormatError
from models.sequence.choose import Statistics, choose
from models.sequence.fit import ARCHITECTURES
from models.sequence.model import SequenceConfig
from shortlist.config import Settings, describe

BASELINES = ("popularity", "item_knn", "ease", "ials")


def parse(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="shortlist bench sequence", description=description)
    parser.add_argument("--interactions", type=Path, required=True)
    parser.add_argument("--format", choices=["sequences"], default="sequences")
    models = [*ARCHITECTURES, *BASELINES, "auto", "blend"]
    parser.add_argument("--model", choices=models, default="auto")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--only",
        type=int,
        metavar="SEED",
        help="run only this seed and keep it in --work; a later run without --only uses it",
    )
    parser.add_argument(
        "--budget-minutes", type=float, help="time limit for the training of all seeds together"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a hyperparameter, e.g. loss=bce",
    )
    parser.add_argument(
        "--skip-refit",
        action="store_true",
        help="skip the second training, which includes the validation item",
    )
    parser.add_argument(
        "--work", type=Path, help="folder of the state to resume from; default: in SHORTLIST_HOME"
    )
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def check(arguments: argparse.Namespace) -> None:
    """Raise FormatError if an option has an invalid value or doesn't apply to the model."""
    budget = arguments.budget_minutes
    if arguments.seeds < 1:
        raise FormatError(f"--seeds is {arguments.seeds}, want at least 1")
    if arguments.only is not None and arguments.only < 0:
        raise FormatError(f"--only is {arguments.only}, want the number of a seed from 0")
    if budget is not None and not (0 < budget < math.inf):
        raise FormatError(f"--budget-minutes is {budget:g}, want more than 0, or no such option")
    if arguments.model in (*BASELINES, "blend"):
        for option, given in (("--set", arguments.set), ("--only", arguments.only is not None)):
            if given:
                raise FormatError(
                    f"{option} is for one sequence model, --model is {arguments.model};"
                    f" want --model auto or one of {', '.join(ARCHITECTURES)}, or no {option}"
                )
    check_device(arguments.device)
    if arguments.out.is_dir():
        raise FormatError(f"--out {arguments.out}: is a folder, want the name of a file in it")
    check_writable("--out", arguments.out.parent)
    check_writable("--work", arguments.work or Settings().home)


def check_device(device: str) -> None:
    """Raise FormatError if torch can't compute on `device`."""
    import torch

    try:
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError):  # AssertionError: torch was built without CUDA
        found = ["cpu"]
        if torch.cuda.is_available():
            found += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        message = f"--device {device}: torch has no such device here, want {' or '.join(found)}"
        raise FormatError(message) from None


def check_writable(option: str, folder: Path) -> None:
    """Raise FormatError if files can't be created in `folder`, or in its first existing parent."""
    there = folder.absolute()
    try:
        while not there.exists():
            there = there.parent
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise FormatError(
            f"{option}: cannot write into {there} ({error.strerror}), want a folder that can be"
            " written into"
        ) from None


def configuration(model: str, statistics: Statistics, changes: list[str]) -> SequenceConfig:
    """Return the config that `choose` gives for the model, with the changes of `--set`.

    Args:
        changes: texts KEY=VALUE.

    Raises:
        FormatError: a change is not KEY=VALUE, or the model has no such setting or value.
    """
    from pydantic import ValidationError

    config = choose(statistics, kind=None if model == "auto" else model)
    values = config.model_dump(mode="json")
    for change in changes:
        key, equals, text = change.partition("=")
        *path, name = key.split(".")
        place: Any = values
        for part in path:
            place = place.get(part) if isinstance(place, dict) else None
        if not equals or not isinstance(place, dict) or name not in place:
            raise FormatError(f"--set {change}: {_wanted(name, values)}")
        try:
            place[name] = json.loads(text)
        except json.JSONDecodeError:
            place[name] = text
    try:
        config = type(config).model_validate(values)
    except ValidationError as error:
        raise FormatError(f"--set {describe(error.errors()[0])}") from None
    try:
        ARCHITECTURES[config.model_dump()["kind"]][1](config)
    except ValueError as error:
        raise FormatError(f"--set {' '.join(changes)}: {error}") from None
    return config


def _wanted(name: str, values: dict[str, Any]) -> str:
    inside = [
        f"{section}.{name}"
        for section, part in values.items()
        if isinstance(part, dict) and name in part
    ]
    if inside:
        return f"no such setting, did you mean {inside[0]}?"
    return f"want KEY=VALUE with a key of {', '.join(values)}"


def seconds_each(arguments: argparse.Namespace) -> float:
    """Return the time limit in seconds of one training, or of all trainings of one blend."""
    if arguments.budget_minutes is None:
        return float("inf")
    once = arguments.skip_refit or arguments.model == "blend"  # a blend has no second training
    trainings = arguments.seeds * (1 if once else 2)
    return 60 * arguments.budget_minutes / trainings


def work_folder(
    arguments: argparse.Namespace, config: dict[str, Any], seconds: float | None = None
) -> Path:
    """Return the folder for the stored state of a run.

    Its name is a hash of the file's content, config, time limit and device, so that a run resumes
    only from a run with the same inputs.
    """
    import hashlib

    content = hashlib.sha256(arguments.interactions.read_bytes()).hexdigest()
    seconds = seconds_each(arguments) if seconds is None else seconds
    budget = "none" if arguments.budget_minutes is None else seconds
    about = json.dumps([content, config, budget, arguments.device], sort_keys=True)
    root = arguments.work or Settings().home / "bench" / "sequence"
    return root / f"{config['kind']}-{hashlib.sha256(about.encode()).hexdigest()[:12]}"
