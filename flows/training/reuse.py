"""Reuses the training of an earlier run: same version of the lake, same configuration, same code.

Prefect's cache decides (`training_key` is the cache key of the task `train`); the model files come
from the earlier run's folder by hard links, which is safe as files of models never change.
"""

import hashlib
import json
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from prefect.context import TaskRunContext

from flows.runtime.runs import Run
from shortlist.config import Settings

KEY = "training_key.json"
"""File in a run's folder that is written when its training has finished."""
NOT_TRAINED = ("gates", "monitor", "evaluate")
"""Sections of a run's config that change nothing in training."""
ROOT = Path(__file__).resolve().parents[2]
CODE = ("shortlist", "models", "simulation", "flows/training", "flows/runtime", "flows/train.py")
"""Files and folders whose content can change what a training gives."""


def training_key(run: Run) -> str:
    """Return the sha256 of all that determines the models of a run.

    These are the home, the version of the lake, the base of an incremental training, the
    configuration and the code.
    """
    frozen = run.read("lake.json", made_by="train")
    content = {
        "home": str(run.path.parent.resolve()),
        "lake": frozen["version"],
        "data_end": frozen["data_end"],
        "base": run.read("base.json", made_by="train") if run.is_incremental else None,
        "config": run.config.model_dump(mode="json", exclude=set(NOT_TRAINED)),
        "code": code_hash(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@cache
def code_hash() -> str:
    """Return the sha256 of the source files that training uses."""
    digest = hashlib.sha256()
    for name in CODE:
        part = ROOT / name
        for path in [part] if part.is_file() else sorted(part.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def cache_key(_context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """Return Prefect's cache key of the task `train`, whose parameter is a run's id."""
    return f"train-{training_key(Run.open(Settings(), parameters['run_id']))}"


def trained_before(settings: Settings, run: Run) -> Run | None:
    """Return an earlier run with the same key whose model files are still there."""
    wanted = training_key(run)
    for path in sorted(settings.runs.glob(f"*/{KEY}"), reverse=True):
        earlier = Run(path.parent)
        there = all(folder.is_dir() for folder in _folders(earlier))
        if earlier.path == run.path or not there:
            continue
        if json.loads(path.read_text())["key"] == wanted and (earlier.path / "about.json").exists():
            return earlier
    return None


def adopt(earlier: Run, run: Run) -> None:
    """Link the models of an earlier run into a run; the reference log is left to its evaluation."""
    for source, target in zip(_folders(earlier), _folders(run), strict=True):
        shutil.rmtree(target, ignore_errors=True)
        ignore = shutil.ignore_patterns("reference")
        shutil.copytree(source, target, copy_function=os.link, ignore=ignore)
    run.write("about.json", earlier.read("about.json", made_by="train"))
    record_key(run)
    print(f"train: nothing changed since run {earlier.run_id}, whose models are used")


def record_key(run: Run) -> None:
    """Record that the training of a run has finished."""
    run.write(KEY, {"key": training_key(run)})


def _folders(run: Run) -> tuple[Path, ...]:
    return (run.staging, run.trial, run.path / "backtest")
