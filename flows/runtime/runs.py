"""The folder of a run, with the results of its steps.

runs/<run_id>/config.json     the RunConfig; a folder without it is not a run
runs/<run_id>/base.json       the release that an incremental training continues
runs/<run_id>/prefect.json    id of the Prefect flow run that works on it
runs/<run_id>/steps/          the result of each finished step, for `shortlist run --resume`
runs/<run_id>/windows.json    edges of the four windows, microseconds
runs/<run_id>/items.parquet   the catalogue of the lake's snapshot
runs/<run_id>/states/         the feature states, as hard links; removed when the run ends
runs/<run_id>/lake.json       version of the lake that the run reads, and the end of its events;
                              written last when the run is frozen
runs/<run_id>/release/        the models, staged exactly as they will be published
runs/<run_id>/about.json      the future `about` of the release's manifest
runs/<run_id>/trial/          sources fitted on the first window, to train rankers and choose the
                              chain's composition
runs/<run_id>/backtest/       sources and baselines fitted on everything before the test window
runs/<run_id>/tune/           studies of `shortlist tune`, and sources for studies of rankers
runs/<run_id>/evaluation.json metrics, intervals and slices
runs/<run_id>/evaluation_users.parquet  nDCG of each user under each method
runs/<run_id>/evaluation_requests.parquet  the chain's figures of each test request
runs/<run_id>/summary.json    seconds by step, peak memory, quality table

A run freezes its inputs when training starts. Events, items and users that are added to the lake
later don't affect it. A lease protects the run's version of the lake from removal.
"""

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flows.runtime.base import Base, find_base
from flows.runtime.configuration import RunConfig
from flows.runtime.freezing import STATES, freeze_inputs
from shortlist.config import Settings
from shortlist.feature_store.states.frozen import side_home
from shortlist.files.plain_json import write_json
from shortlist.items.catalogue import Catalogue
from shortlist.lake import Lake
from shortlist.lake.leases import end_lease, take_lease
from shortlist.releases.release import ReleaseStore
from shortlist.splits import Windows


class RunError(RuntimeError):
    """A run's folder or the result of an earlier step is missing."""


@dataclass(frozen=True)
class Run:
    """Typed access to the folder of one run."""

    path: Path

    @classmethod
    def create(cls, settings: Settings, config: RunConfig, *, incremental: bool = False) -> "Run":
        """Create the folder of a new run, without freezing the run's inputs.

        The run's id consists of the time, to the second, and the configuration's name.

        Args:
            incremental: continue the serving release instead of training everything.

        Raises:
            IncrementalError: the serving release can't be continued.
        """
        base = find_base(settings, config) if incremental else None
        run = cls(_new_folder(settings.runs, config.name))
        if base is not None:
            run.write("base.json", {"release_id": base.release.release_id})
        run.write("config.json", config.model_dump(mode="json"))
        return run

    @classmethod
    def start(cls, settings: Settings, config: RunConfig, *, incremental: bool = False) -> "Run":
        """Create a run and freeze the current lake and features for it.

        Args:
            incremental: as for `create`.

        Raises:
            LakeError, ValueError: as for `create` and `freeze`; the folder is removed.
        """
        run = cls.create(settings, config, incremental=incremental)
        try:
            run.freeze(settings)
        except Exception:
            run.discard(settings)
            raise
        return run

    @classmethod
    def open(cls, settings: Settings, run_id: str | None = None, *, of: str | None = None) -> "Run":
        """Open a run.

        Args:
            run_id: None: the newest frozen run.
            of: name of the configuration that the run must have. None: any.

        Raises:
            RunError: there is no such run, or it belongs to another configuration.
        """
        if run_id is None:
            found = sorted(path.parent for path in settings.runs.glob("*/lake.json"))
            found = [path for path in found if (path / "config.json").is_file()]
            runs = [run for run in map(cls, found) if of in (None, run.config.name)]
            runs = [run for run in runs if not run.only_tunes]
            if not runs:
                of_config = "" if of is None else f" of configuration '{of}'"
                raise RunError(
                    f"{settings.runs}: no run{of_config} there yet; start one with `shortlist run`"
                    " or `shortlist train`"
                )
            return runs[-1]
        path = settings.runs / Path(run_id).name  # an id can't name a folder outside
        if path.name != run_id or not (path / "config.json").is_file():
            raise RunError(f"{path}: no such run; `ls {settings.runs}` lists them")
        run = cls(path)
        if of not in (None, run.config.name):
            raise RunError(f"{path}: is of configuration '{run.config.name}', not '{of}'")
        return run

    @property
    def is_frozen(self) -> bool:
        """Whether the run's inputs are frozen."""
        return (self.path / "lake.json").is_file()

    def freeze(self, settings: Settings) -> None:
        """Freeze the run's inputs: the lake's snapshot, windows, catalogue and feature states.

        If they are frozen already, only the lease of the snapshot is renewed.

        Raises:
            LakeError, ValueError: there are no events, or too few for the windows.
        """
        if self.is_frozen:
            self.renew_lease(settings)
            return
        freeze_inputs(self, settings)

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def config(self) -> RunConfig:
        return RunConfig.model_validate_json((self.path / "config.json").read_text())

    @property
    def is_incremental(self) -> bool:
        return (self.path / "base.json").is_file()

    def base(self, settings: Settings) -> Base | None:
        """Return the release that an incremental run continues; None for a full training.

        Raises:
            ReleaseError: the release was removed or is damaged.
        """
        if not self.is_incremental:
            return None
        content = self.read("base.json", made_by="train --incremental")
        return Base(ReleaseStore(settings.releases).open(content["release_id"]))

    @property
    def staging(self) -> Path:
        return self.path / "release"

    @property
    def trial(self) -> Path:
        """Folder of the sources fitted on the first window, whose candidates train the ranker."""
        return self.path / "trial"

    @property
    def backtest(self) -> Path:
        """Folder of the sources fitted on everything before the test window, for the evaluation."""
        return self.path / "backtest" / "sources"

    @property
    def tuning(self) -> Path:
        """Folder of the studies of `shortlist tune`, and of the sources for studies of rankers."""
        return self.path / "tune"

    @property
    def evaluated_requests(self) -> Path:
        """The chain's figures of each test request, which `evaluate` writes."""
        return self.path / "evaluation_requests.parquet"

    @property
    def only_tunes(self) -> bool:
        """Whether `shortlist tune` started the run, and no models were trained in it since."""
        return self.tuning.is_dir() and not (self.path / "about.json").is_file()

    @property
    def references(self) -> Path:
        """Folder of the evaluation's baselines, fitted on everything before the test window."""
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
        """Time of the newest event of the run's snapshot plus one, in microseconds."""
        return self.read("lake.json", made_by="train")["data_end"]

    @property
    def items(self) -> pa.Table:
        """The frozen catalogue, ITEMS contract."""
        return pq.read_table(self.path / "items.parquet")

    @property
    def catalogue(self) -> Catalogue:
        """The frozen catalogue; that of an incremental run begins with the items of its base."""
        if self.is_incremental:
            return Catalogue.load(self.path / "items.parquet")
        return Catalogue.from_items(self.items)

    def lake(self, settings: Settings) -> Lake:
        """Return the lake at the snapshot that the run froze."""
        version = self.read("lake.json", made_by="train")["version"]
        return Lake(settings.lake, version=version)

    def states(self, settings: Settings) -> Settings:
        """Return settings whose `features` folder has the states that the run reads.

        These are the run's frozen states. After the run has ended they are removed, and the current
        states of the home are used.
        """
        frozen = self.path / STATES
        return side_home(settings, frozen) if frozen.is_dir() else settings

    def renew_lease(self, settings: Settings) -> None:
        """Protect the run's snapshot of the lake from removal until `end`."""
        version = self.read("lake.json", made_by="train")["version"]
        take_lease(settings.lake, self.run_id, version=version)

    def end(self, settings: Settings) -> None:
        """End the lease of the snapshot and remove the frozen states; the run's folder remains."""
        end_lease(settings.lake, self.run_id)
        shutil.rmtree(self.path / STATES, ignore_errors=True)

    def discard(self, settings: Settings) -> None:
        """End a run that has no result, and remove its folder."""
        self.end(settings)
        shutil.rmtree(self.path)

    def read(self, name: str, *, made_by: str) -> dict[str, Any]:
        """Read a JSON file of the run.

        Args:
            made_by: name of the step that writes it, for the error message.

        Raises:
            RunError: the file is missing.
        """
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError:
            raise RunError(
                f"{self.path}: {name} is missing; run `shortlist {made_by}` first"
            ) from None

    def write(self, name: str, content: dict[str, Any]) -> Path:
        """Write a JSON file of the run atomically; return its path."""
        return write_json(self.path / name, content)


def _new_folder(runs: Path, name: str) -> Path:
    """Create the folder of a new run, named by the time in seconds.

    If a run with this name exists, the next free second is used.
    """
    started = datetime.now(UTC)
    while True:
        path = runs / f"{started:%Y%m%dT%H%M%S}-{name}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            started += timedelta(seconds=1)
        else:
            return path
