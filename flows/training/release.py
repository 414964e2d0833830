"""Trains a release on the current data of a home (the folder SHORTLIST_HOME).

The steps are train, evaluate, package and promote; nothing is ingested.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.runtime.configuration import RunConfig
from flows.runtime.runs import Run
from shortlist.config import Settings
from shortlist.home.home_lock import home_lock


def train_release(settings: Settings, config: RunConfig) -> tuple[Run, dict[str, Any]]:
    """Train, evaluate, package and promote a release on the current lake and features.

    If the release fails a gate, the previous one keeps serving.

    Returns:
        The run, and the result of `promote`.
    """
    from flows.evaluate import evaluate
    from flows.package import package
    from flows.promote import promote
    from flows.train import train

    run = Run.start(settings, config)
    with home_lock(settings, "train", what="training of a release"):
        train(settings, run)
    evaluate(settings, run.run_id)
    release_id = package(settings, run.run_id, bento=False)["release_id"]
    promoted = promote(settings, release_id, gates=config.gates)
    run.end(settings)
    return run, promoted


@contextmanager
def at_home(home: Path) -> Iterator[Settings]:
    """Set SHORTLIST_HOME to `home` inside the block, for settings, flows and child processes."""
    before = os.environ.get("SHORTLIST_HOME")
    os.environ["SHORTLIST_HOME"] = str(home)
    try:
        yield Settings()
    finally:
        if before is None:
            del os.environ["SHORTLIST_HOME"]
        else:
            os.environ["SHORTLIST_HOME"] = before
