"""The steps of a run as single commands, and resumed runs, on a temporary Prefect server."""

import json
from pathlib import Path
from typing import Any

import lightgbm
import pytest
from typer.testing import CliRunner

import flows.train
from cli.main import app
from flows.runtime.runs import Run
from flows.runtime.steps import Steps
from flows.training.sources import fit_sources
from shortlist.config import Settings
from shortlist.datasets import DatasetError
from shortlist.feature_store.packs import current_pack_id
from shortlist.lake.leases import lease_holders
from shortlist.releases.release import ReleaseStore
from shortlist.splits import SplitError
from tests.conftest import ANY_GATES, world_toml, write_world

pytestmark = pytest.mark.usefixtures("prefect_here")
TRAIN = """sources = [{ kind = "item_knn" }, { kind = "recent_popularity" }]
rankers = []
parallel = 2
threads = 3
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_world(tmp_path_factory.mktemp("world"))
    (folder / "gates.toml").write_text(ANY_GATES)
    text = world_toml(folder, train=TRAIN, hold_back=False)
    path = folder / "tiny.toml"
    path.write_text(text.replace("seed = 0\n", 'seed = 0\ngates = "gates.toml"\n'))
    return path


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("deployment") / "home")


def call(settings: Settings, *arguments: str) -> dict:
    environment = {"SHORTLIST_HOME": str(settings.home)}
    done = CliRunner().invoke(app, [*arguments, "--json"], env=environment)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_steps_one_by_one_make_one_run_and_end_it(
    settings: Settings, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in ("ingest", "validate", "featurize"):
        call(settings, step, str(config))
    assert not settings.runs.exists()
    with monkeypatch.context() as patch:
        threads: list[int] = []
        train = lightgbm.train

        def recorded(params: dict[str, Any], *arguments: Any, **more: Any) -> Any:
            threads.append(params["num_threads"])
            return train(params, *arguments, **more)

        patch.setattr(lightgbm, "train", recorded)
        run_id = call(settings, "train", str(config))["run_id"]
    assert set(threads) == {6}
    assert [path.name for path in settings.runs.iterdir()] == [run_id]
    for arguments in (("evaluate", str(config)), ("package", "--run", run_id, "--no-bento")):
        call(settings, *arguments)
    assert lease_holders(settings.lake) == {run_id}
    promoted = call(settings, "promote", str(config))
    release_id = ReleaseStore(settings.releases).current_id()
    assert (promoted["promoted"], promoted["release_id"]) == (True, release_id)
    assert lease_holders(settings.lake) == set()
    run = Run.open(settings, run_id)
    assert run.states(settings) == settings

    # Ingest, validate and featurize ran before the run started, so it has no results of them.
    summary = call(settings, "run", "--resume", run_id, "--no-monitor")
    assert (summary["run_id"], summary["promoted"], summary["data"]) == (run_id, True, None)
    assert list(summary["seconds"]) == ["train", "evaluate", "package", "promote"]


def test_a_training_that_failed_in_the_middle_starts_again_when_the_run_is_resumed(
    settings: Settings, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full while the chosen sources are fitted again."""
    fits: list[int] = []

    def full_disk(jobs: list[Any], *arguments: Any) -> list[dict[str, Any]]:
        fits.append(len(jobs))
        if len(fits) == 2:
            raise OSError(28, "No space left on device")
        return fit_sources(jobs, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(flows.train, "fit_sources", full_disk)
        with pytest.raises(OSError, match="No space left"):
            call(settings, "train", str(config))
    run = Run.open(settings, max(path.name for path in settings.runs.iterdir()))
    assert any(run.trial.iterdir())  # the first half of the training left its models
    assert "train" not in Steps(run).finished
    left = run.trial / "left by the failed training"
    left.write_text("")
    pack = current_pack_id(settings.packs)
    summary = call(settings, "run", "--resume", run.run_id)
    assert current_pack_id(settings.packs) == pack  # item features aren't set back
    # No events were held back, so nothing is replayed and there is nothing to monitor.
    assert not {"replay", "monitor"} & summary.keys()
    assert (summary["promoted"], ReleaseStore(settings.releases).current_id()) == (
        True,
        summary["release_id"],
    )
    assert not left.exists()
    assert all(part["until"] for part in summary["fitted"].values())


def test_a_run_that_was_cut_off_before_it_was_frozen_is_resumed(
    config: Path, tmp_path: Path
) -> None:
    """A run is resumed after its source was missing, and then had too few events for a split."""
    settings = Settings(home=tmp_path / "home")
    log = config.with_name("interactions.csv")
    there = log.read_text().splitlines(keepends=True)
    log.unlink()
    with pytest.raises(DatasetError, match=r"interactions\.csv: no such file"):
        call(settings, "run", str(config), "--no-monitor")
    (run_id,) = (path.name for path in settings.runs.iterdir())
    assert Steps(Run.open(settings, run_id)).finished == {}
    log.write_text("".join(there[:5]))
    for _ in range(2):
        with pytest.raises(SplitError, match="is empty: 4 events"):
            call(settings, "run", "--resume", run_id, "--no-monitor")
        steps = Steps(Run.open(settings, run_id))
        assert list(steps.finished) == ["ingest", "validate", "featurize"]

    # As if killed right after validate published the batch, which is no longer staged then.
    (steps.run.steps / "validate.json").unlink()
    with pytest.raises(SplitError, match="is empty: 4 events"):
        call(settings, "run", "--resume", run_id, "--no-monitor")
    assert Steps(steps.run).result("validate")["unchanged"] == 3
