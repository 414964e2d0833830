"""The folder of one run: what each step leaves for the next, and where `shortlist` finds it again.

runs/<run_id>/config.json     the RunConfig
runs/<run_id>/windows.json    edges of the five windows, microseconds
runs/<run_id>/release/        the models, staged exactly as they will be published
runs/<run_id>/about.json      what will be the manifest's `about`
runs/<run_id>/trial/          sources fitted on the first window, for rankers and choices
runs/<run_id>/backtest/       sources and baselines fitted on everything before the test window
runs/<run_id>/evaluation.json metrics, intervals and slices
runs/<run_id>/evaluation_users.parquet  nDCG of each user under each method
runs/<run_id>/summary.json    seconds by step, peak memory, quality table
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.configuration import RunConfig
from shortlist.config import Settings
from shortlist.lake import Lake
from shortlist.plain_json import write_json
from shortlist.splits import Windows, split_windows


class RunError(RuntimeError):
    """A run's folder is missing or a step before this one did not finish."""


@dataclass(frozen=True)
class Run:
    """Typed access to one run's folder."""

    path: Path

    @classmethod
    def start(cls, settings: Settings, config: RunConfig) -> "Run":
        """Cut the lake's target events into the five windows and make a run folder that keeps them;
        its id is the time it started.

        Raises:
            LakeError, ValueError: no events yet, or too few for five windows; no folder is made.
        """
        events = Lake(settings.lake).interactions(event_types=config.data.target_events)
        times = events.column("event_timestamp").cast("int64").to_numpy()
        windows = split_windows(times, config.split.fractions)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        path = settings.runs / f"{stamp}-{config.name}"
        path.mkdir(parents=True)
        (path / "config.json").write_text(config.model_dump_json(indent=1))
        run = cls(path)
        run.write("windows.json", {"edges": list(windows.edges)} | windows.to_json())
        return run

    @classmethod
    def open(cls, settings: Settings, run_id: str | None = None) -> "Run":
        """Open a run; None is the newest one. Raises RunError if there is none."""
        if run_id is None:
            found = sorted(settings.runs.glob("*/config.json")) if settings.runs.is_dir() else []
            if not found:
                raise RunError(f"{settings.runs}: no run there yet; start one with `shortlist run`")
            return cls(found[-1].parent)
        path = settings.runs / run_id
        if not (path / "config.json").is_file():
            raise RunError(f"{path}: no such run; `ls {settings.runs}` lists them")
        return cls(path)

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def config(self) -> RunConfig:
        return RunConfig.model_validate_json((self.path / "config.json").read_text())

    @property
    def staging(self) -> Path:
        return self.path / "release"

    @property
    def trial(self) -> Path:
        """Sources fitted on the first window: the ranker learned from what they find."""
        return self.path / "trial"

    @property
    def backtest(self) -> Path:
        """The same sources fitted on everything before the test window, which judges them."""
        return self.path / "backtest" / "sources"

    @property
    def references(self) -> Path:
        """The table's baselines, fitted on everything before the test window."""
        return self.path / "backtest" / "references"

    @property
    def windows(self) -> Windows:
        edges = self.read("windows.json", made_by="featurize")["edges"]
        return Windows(tuple(edges))

    def read(self, name: str, *, made_by: str) -> dict[str, Any]:
        """A JSON file of the run. Raises RunError naming the step that would write it."""
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError:
            raise RunError(
                f"{self.path}: {name} is missing; run `shortlist {made_by}` first"
            ) from None

    def write(self, name: str, content: dict[str, Any]) -> Path:
        """Write a JSON file of the run, whole or not at all."""
        return write_json(self.path / name, content)
