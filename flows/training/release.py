"""A release from what a home has: train, evaluate, package and promote, without a new ingest."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.runtime.configuration import RunConfig
from flows.runtime.runs import Run
from shortlist.config import Settings


def train_release(settings: Settings, config: RunConfig) -> tuple[Run, dict[str, Any]]:
    """The run, and what `promote` says of its release; the features are as they are.

    A gate that refuses the release leaves the one before serving.
    """
    from flows.evaluate import evaluate_flow
    from flows.package import package_flow
    from flows.promote import promote_flow
    from flows.train import train_flow

    run = Run.start(settings, config)
    train_flow(run.run_id)
    evaluate_flow(run.run_id)
    release_id = package_flow(run.run_id, bento=False)["release_id"]
    promoted = promote_flow(release_id, gates=str(config.gates))
    run.end(settings)
    return run, promoted


@contextmanager
def at_home(home: Path) -> Iterator[Settings]:
    """Settings, flows and child processes live under `home` inside this block."""
    before = os.environ.get("SHORTLIST_HOME")
    os.environ["SHORTLIST_HOME"] = str(home)
    try:
        yield Settings()
    finally:
        if before is None:
            del os.environ["SHORTLIST_HOME"]
        else:
            os.environ["SHORTLIST_HOME"] = before
