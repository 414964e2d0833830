"""The folder of one run: what each step leaves for the next, and where `shortlist` finds it again.

runs/<run_id>/config.json     the RunConfig; a folder without it is no run
runs/<run_id>/steps/          the result of each finished step, for `shortlist run --resume`
runs/<run_id>/windows.json    edges of the four windows, microseconds
runs/<run_id>/items.parquet   the catalogue of the lake's snapshot
runs/<run_id>/states/         the feature states, by hard link; gone when the run has ended
runs/<run_id>/lake.json       the snapshot of the lake that the run reads, and where its events end;
                              written last of what is frozen
runs/<run_id>/release/        the models, staged exactly as they will be published
runs/<run_id>/about.json      what will be the manifest's `about`
runs/<run_id>/trial/          sources fitted on the first window, for rankers and choices
runs/<run_id>/backtest/       sources and baselines fitted on everything before the test window
runs/<run_id>/evaluation.json metrics, intervals and slices
runs/<run_id>/evaluation_users.parquet  nDCG of each user under each method
runs/<run_id>/summary.json    seconds by step, peak memory, quality table

Events, items and users that reach the lake after a run was frozen change nothing in it.
"""

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flows.featurize import quietly
from flows.runtime.configuration import RunConfig
from shortlist import columns as c
from shortlist.config import Settings
from shortlist.contracts import microseconds
from shortlist.feature_store.states.frozen import freeze_states, side_home
from shortlist.home_lock import REFRESH_WAIT, home_lock
from shortlist.lake import Lake
from shortlist.lake.leases import end_lease, lease_holders, take_lease
from shortlist.plain_json import write_json
from shortlist.splits import Windows, split_windows

STATES = "states"


class RunError(RuntimeError):
    """A run's folder is missing or a step before this one did not finish."""


@dataclass(frozen=True)
class Run:
    """Typed access to one run's folder."""

    path: Path

    @classmethod
    def create(cls, settings: Settings, config: RunConfig) -> "Run":
        """Make the folder of a run that has read nothing yet. The id is the time, or the next free
        second.
        """
        run = cls(_new_folder(settings.runs, config.name))
        run.write("config.json", config.model_dump(mode="json"))
        return run

    @classmethod
    def start(cls, settings: Settings, config: RunConfig) -> "Run":
        """Create a run on the lake and features that are there, and freeze it.

        Raises:
            LakeError, ValueError: see `freeze`; no folder is left.
        """
        run = cls.create(settings, config)
        try:
            run.freeze(settings)
        except Exception:
            shutil.rmtree(run.path)
            raise
        return run

    @classmethod
    def open(cls, settings: Settings, run_id: str | None = None, *, of: str | None = None) -> "Run":
        """Open a run.

        Args:
            run_id: None: the newest run that was frozen.
            of: the name of a configuration; only its runs count.

        Raises:
            RunError: there is no such run.
        """
        if run_id is None:
            found = sorted(path.parent for path in settings.runs.glob("*/lake.json"))
            found = [path for path in found if (path / "config.json").is_file()]
            runs = [run for run in map(cls, found) if of in (None, run.config.name)]
            if not runs:
                of_config = "" if of is None else f" of configuration '{of}'"
                raise RunError(
                    f"{settings.runs}: no run{of_config} there yet; start one with `shortlist run`"
                    " or `shortlist train`"
                )
            return runs[-1]
        path = settings.runs / run_id
        if not (path / "config.json").is_file():
            raise RunError(f"{path}: no such run; `ls {settings.runs}` lists them")
        run = cls(path)
        if of not in (None, run.config.name):
            raise RunError(f"{path}: is of configuration '{run.config.name}', not '{of}'")
        return run

    @property
    def is_frozen(self) -> bool:
        """Whether what the run reads is fixed."""
        return (self.path / "lake.json").is_file()

    def freeze(self, settings: Settings) -> None:
        """Fix what the run reads: the lake's snapshot, its windows, its catalogue and the states. A
        run that is frozen already only renews its lease.

        Raises:
            LakeError, ValueError: no events yet, or too few for four windows.
        """
        if self.is_frozen:
            self.renew_lease(settings)
            return
        config = self.config
        with home_lock(settings, "refresh", what="start of a run", wait_seconds=REFRESH_WAIT):
            lake = Lake(settings.lake)
            manifest = lake.manifest
            events = lake.interactions(event_types=config.data.target_events)
            times = microseconds(events.column(c.EVENT_TIMESTAMP)).to_numpy()
            windows = split_windows(times, config.split.fractions)
            assert manifest.latest is not None, "there are events"
            self.write("windows.json", {"edges": list(windows.edges)} | windows.to_json())
            pq.write_table(lake.items(), self.path / "items.parquet")
            take_lease(settings.lake, self.run_id, version=manifest.version)
            shutil.rmtree(self.path / STATES, ignore_errors=True)  # of a start that was killed
            quietly(freeze_states, settings, self.path / STATES)
            for path in _without_lease(settings):
                shutil.rmtree(path / STATES)
            content = {"version": manifest.version, "data_end": manifest.latest + 1}
            self.write("lake.json", content)

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
    def steps(self) -> Path:
        return self.path / "steps"

    @property
    def windows(self) -> Windows:
        edges = self.read("windows.json", made_by="train")["edges"]
        return Windows(tuple(edges))

    @property
    def data_end(self) -> int:
        """Just after the newest event of the run's snapshot, microseconds."""
        return self.read("lake.json", made_by="train")["data_end"]

    @property
    def items(self) -> pa.Table:
        """The frozen catalogue, ITEMS contract."""
        return pq.read_table(self.path / "items.parquet")

    def lake(self, settings: Settings) -> Lake:
        """The lake as it was when the run started."""
        version = self.read("lake.json", made_by="train")["version"]
        return Lake(settings.lake, version=version)

    def states(self, settings: Settings) -> Settings:
        """The home whose feature states the run reads: frozen at its start, the deployment's once
        it has ended.
        """
        frozen = self.path / STATES
        return side_home(settings, frozen) if frozen.is_dir() else settings

    def renew_lease(self, settings: Settings) -> None:
        """Keep the run's snapshot of the lake until `end`."""
        version = self.read("lake.json", made_by="train")["version"]
        take_lease(settings.lake, self.run_id, version=version)

    def end(self, settings: Settings) -> None:
        """Give the snapshot of the lake and the states back; the run's folder stays."""
        end_lease(settings.lake, self.run_id)
        shutil.rmtree(self.path / STATES, ignore_errors=True)

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


def _without_lease(settings: Settings) -> list[Path]:
    """Runs that were killed and never resumed, whose frozen states are still there."""
    leases = lease_holders(settings.lake)
    frozen = [path.parent for path in settings.runs.glob(f"*/{STATES}")]
    return [path for path in frozen if path.name not in leases]


def _new_folder(runs: Path, name: str) -> Path:
    """Make the run's folder. Two runs of one second get two ids, in their order."""
    started = datetime.now(UTC)
    while True:
        path = runs / f"{started:%Y%m%dT%H%M%S}-{name}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            started += timedelta(seconds=1)
        else:
            return path
