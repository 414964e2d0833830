"""Final states Refused and Held, artifacts, and the reuse of a training, on a Prefect server."""

import json
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.runtime import flow_run

from flows import train
from flows.operations import artifacts
from flows.operations.cancelled import cancelled_at, end_cancelled_run, link_flow_run
from flows.operations.endings import (
    HELD,
    REFUSED,
    FlowEnded,
    PromotionRefused,
    ended,
    hold,
    refusal,
    result_of,
)
from flows.promote import promote_flow
from flows.run import run_flow
from flows.runtime.runs import Run, RunError
from flows.training.reuse import adopt, trained_before, training_key
from shortlist.config import Settings
from shortlist.home.audit import read_audit
from shortlist.lake.leases import lease_holders
from shortlist.releases.release import ReleaseStore
from tests.flows.conftest import about, publish
from tests.flows.test_refresh import run_config

pytestmark = pytest.mark.usefixtures("prefect_here")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("SHORTLIST_HOME", str(tmp_path / "home"))
    return Settings()


def test_a_refused_promotion_is_a_failed_run_named_refused(settings: Settings) -> None:
    store = ReleaseStore(settings.releases)
    release_id = publish(store, about(coverage=0.0))
    state = promote_flow(release_id, return_state=True)
    assert (state.type, state.name) == (StateType.FAILED, "Refused")
    assert "is not promoted: coverage: coverage@10 0.000" in (state.message or "")
    with get_client(sync_client=True) as client:
        stored = client.read_flow_run(state.state_details.flow_run_id).state
        found = client.read_artifacts()
    assert stored is not None
    assert (stored.type, stored.name) == (StateType.FAILED, "Refused")
    gates = [one for one in found if one.key == artifacts.key_of(settings, "gates")]
    rows = json.loads(str(gates[0].data))
    assert {"gate": "coverage", "verdict": "FAIL"}.items() <= rows[2].items()
    with pytest.raises(PromotionRefused) as error:
        promote_flow(release_id)
    assert error.value.result["promoted"] is False
    assert store.current_id() is None


def test_force_needs_intact_files_and_is_audited_with_the_failed_gates(settings: Settings) -> None:
    store = ReleaseStore(settings.releases)
    release_id = publish(store, about(coverage=0.0))
    result = result_of(promote_flow, release_id, force_reason="campaign")
    assert (result["promoted"], result["forced"]) == (True, True)
    assert store.current_id() == release_id
    (line,) = read_audit(settings)
    assert line["reason"] == "forced: campaign"
    assert [g["name"] for g in line["evidence"]["gates"] if not g["passed"]] == ["coverage"]
    damaged = publish(store, about(coverage=0.0), payload="other")
    (settings.releases / damaged / "model.bin").write_text("changed")
    assert not result_of(promote_flow, damaged, force_reason="campaign")["promoted"]
    assert store.current_id() == release_id


def test_a_held_flow_gives_its_result_and_the_guardrails_that_hold() -> None:
    watched = {
        "guardrails": [
            {"name": "diversity", "verdict": "hold", "reason": "is 0.1"},
            {"name": "novelty", "verdict": "warn", "reason": "is 0.2"},
        ]
    }

    @flow
    def watching() -> dict[str, Any] | State[Any]:
        return ended(HELD, hold(watched, {"verdict": "hold"}))

    state = watching(return_state=True)
    assert (state.type, state.name) == (StateType.FAILED, "Held")
    assert state.message == "guardrails hold: diversity: is 0.1"
    assert result_of(watching) == {"verdict": "hold"}


def test_an_ended_flow_raises_in_its_caller() -> None:
    error = refusal({"release_id": "r1", "gates": []})

    @flow
    def inner() -> State[Any]:
        return ended(REFUSED, error)

    @flow
    def outer() -> str:
        with pytest.raises(FlowEnded, match="release r1 is not promoted"):
            inner()
        return "went on"

    assert outer() == "went on"


def frozen(settings: Settings, run_id: str, *, version: int = 1, seed: int = 0) -> Run:
    """Create a run as it is after its start, with a trained model."""
    run = Run(settings.runs / run_id)
    run.path.mkdir(parents=True)
    config = run_config(source="service").model_copy(update={"seed": seed})
    run.write("config.json", config.model_dump(mode="json"))
    run.write("lake.json", {"version": version, "data_end": 5})
    return run


def trained(settings: Settings, run: Run) -> dict[str, Any]:
    """Take the place of the training: write the model files of a run."""
    for folder in (run.staging / "reference", run.trial, run.path / "backtest"):
        folder.mkdir(parents=True)
        (folder / "model.bin").write_text(run.run_id)
    run.write("about.json", {"made_by": run.run_id})
    return {"figures": run.run_id}


def test_a_training_is_reused_only_for_the_same_lake_and_config(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def train_once(settings: Settings, run: Run) -> dict[str, Any]:
        calls.append(run.run_id)
        return trained(settings, run)

    monkeypatch.setattr(train, "train", train_once)

    @flow
    def training(run_id: str, again: bool = False) -> dict[str, Any]:
        return train.train_step(run_id, again=again)

    first = frozen(settings, "first")
    assert training("first")["figures"] == "first"
    same = frozen(settings, "same")
    assert trained_before(settings, same) == first
    assert training("same")["figures"] == "first"
    assert calls == ["first"]
    assert (same.trial / "model.bin").samefile(first.trial / "model.bin")
    assert not (same.staging / "reference").exists()  # its evaluation writes this file
    assert same.read("about.json", made_by="train") == {"made_by": "first"}
    for number, changed in enumerate(({"version": 2}, {"seed": 1})):
        frozen(settings, f"other{number}", **changed)
        assert training(f"other{number}")["figures"] == f"other{number}"
    frozen(settings, "again")
    assert training("again", again=True)["figures"] == "again"
    for name in ("first", "same", "again"):
        (settings.runs / name / "trial" / "model.bin").unlink()
        (settings.runs / name / "trial").rmdir()
    frozen(settings, "gone")
    assert training("gone")["figures"] == "gone"
    assert calls == ["first", "other0", "other1", "again", "gone"]


def test_the_key_ignores_what_training_does_not_read(settings: Settings) -> None:
    run = frozen(settings, "run")
    key = training_key(run)
    content = run.read("config.json", made_by="train")
    run.write("config.json", content | {"gates": "other.toml"})
    assert training_key(run) == key
    run.write("config.json", content | {"seed": 9})
    assert training_key(run) != key
    adopted = frozen(settings, "adopted")
    trained(settings, run)
    adopt(run, adopted)
    assert (adopted.trial / "model.bin").read_text() == "run"


def test_a_cancelled_run_gives_up_its_lease_and_is_not_resumed(settings: Settings) -> None:
    run = frozen(settings, "run")
    settings.lake.mkdir()
    run.renew_lease(settings)
    (run.path / "states").mkdir()

    @flow
    def work() -> str:
        link_flow_run(run, flow_run.id)
        return flow_run.id

    flow_run_id = work()
    with get_client(sync_client=True) as client:
        stored = client.read_flow_run(flow_run_id)
    cancelled = State(type=StateType.CANCELLED, message="by hand")
    end_cancelled_run(run_flow, stored.model_copy(update={"id": stored.flow_id}), cancelled)
    assert lease_holders(settings.lake) == {"run"}  # another flow run was cancelled
    end_cancelled_run(run_flow, stored, cancelled)
    assert lease_holders(settings.lake) == set()
    assert not (run.path / "states").exists()
    assert cancelled_at(run) is not None
    with pytest.raises(RunError, match=r"was cancelled at .*start a new run"):
        run_flow(run.config, resume="run")
