"""Actions of guardrails: executed once, audited with evidence, silenced, and held promotions."""

from datetime import UTC, datetime, timedelta

import pytest

from flows.act import act
from flows.acting.alarms import AlarmError, acknowledge, read_alarms, silence
from flows.watch.canary import start_experiment, stop_experiment
from monitoring.board.judge import Board, Decision, Result
from shortlist.config import ConfigError, Settings
from shortlist.experiment import (
    ExperimentConfig,
    assign,
    past_experiments,
    running_experiment,
)
from shortlist.home.audit import read_audit
from shortlist.home.switches import end_switch, in_force, sources_off, switch_file
from shortlist.releases.promotion import hold_gates
from shortlist.releases.release import ReleaseError, ReleaseStore
from tests.flows.conftest import about, publish

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture
def home(tmp_path) -> Settings:
    """A home with two promoted releases; the second serves."""
    settings = Settings(home=tmp_path)
    store = ReleaseStore(settings.releases)
    for payload in ("one", "two"):
        store.promote(publish(store, about(), payload))
    return settings


def result(name: str, level: str) -> Result:
    return Result(
        name, level, "satisfaction", "all", 3.0, 4.0, 3.9, 1e-6, 200, "hold", "fell", "m", "r"
    )  # pyright: ignore[reportArgumentType]


def broken(action: str, name: str = "satisfaction", **more) -> Board:
    found = result(name, "alarm")
    decision = Decision(name, action, "satisfaction fell", found.to_json(), **more)
    return Board([found], [decision])


def run(settings: Settings, board: Board, *, hours: float = 0) -> list[dict]:
    return act(settings, board, cool_down_hours=24, now=NOON + timedelta(hours=hours))


def test_a_hold_keeps_every_release_from_being_promoted_until_it_ends(home):
    (alarm,) = run(home, broken("hold"))
    assert alarm["outcome"].startswith("done: promotions are held until")
    (gate,) = hold_gates(home, "any release")
    assert (gate.name, gate.passed) == ("hold: satisfaction", False)
    assert 'shortlist alarms end-hold "satisfaction"' in gate.reason
    line = read_audit(home)[-1]
    assert (line["command"], line["from"]) == ("act hold", line["to"])
    assert line["evidence"]["p"] == 1e-6
    later = datetime.now(UTC) + timedelta(days=8)
    assert in_force(home, "holds", now=later) == {}
    end_switch(home, "holds", "satisfaction")
    assert hold_gates(home, "any release") == []
    with pytest.raises(ConfigError, match="'satisfaction' is not in force; in force: none"):
        end_switch(home, "holds", "satisfaction")


def test_a_rollback_happens_once_and_an_alarm_closes_when_its_guardrail_passes(home):
    store = ReleaseStore(home.releases)
    first, second = store.history()
    run(home, broken("roll_back"))
    assert store.current_id() == first
    run(home, broken("roll_back"), hours=6)
    assert store.current_id() == first
    (alarm,) = read_alarms(home)
    assert (alarm["checks"], "cools down" in alarm["waiting"]) == (2, True)
    assert [line["command"] for line in read_audit(home)] == ["rollback", "act roll_back"]
    assert run(home, Board([result("satisfaction", "waiting")], []), hours=12)
    assert not run(home, Board([result("satisfaction", "pass")], []), hours=18)
    assert read_alarms(home)[0]["closed_at"] is not None
    # The next one is still within the cool-down of the first; afterwards it acts, and can't.
    run(home, broken("roll_back"), hours=20)
    (alarm,) = run(home, broken("roll_back"), hours=48)
    assert alarm["outcome"].startswith("failed: no rollback")
    assert second in store.ids()


def test_an_acknowledged_or_silenced_alarm_does_nothing(home):
    with pytest.raises(AlarmError, match="alarm 'satisfaction' is not open; open alarms: none"):
        acknowledge(home, "satisfaction", who="me", note="")
    run(home, broken("notify"))
    acknowledge(home, "satisfaction", who="me", note="a known fault")
    run(home, broken("notify"), hours=48)
    (alarm,) = read_alarms(home)
    assert (alarm["waiting"], alarm["note"]) == ("me has acknowledged it", "a known fault")
    run(home, broken("source_off", "slow source", source="ease"))
    silence(home, "slow source", hours=72, who="me")
    before = len(read_audit(home))
    run(home, broken("source_off", "slow source", source="ease"), hours=48)
    assert len(read_audit(home)) == before
    notices = (home.home / "notifications.jsonl").read_text().splitlines()
    assert len(notices) == 2


def test_a_source_is_switched_off_and_a_damaged_file_switches_nothing_off(home):
    run(home, broken("source_off", source="ease"))
    assert sources_off(home) == {"ease"}
    switch_file(home).write_text("{")
    assert sources_off(home) == frozenset()
    with pytest.raises(ConfigError, match=r"switches\.json: not valid"):
        in_force(home, "holds")


def test_retraining_without_a_server_asks_a_person(home, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    (alarm,) = run(home, broken("retrain"))
    assert alarm["outcome"].startswith("failed: no Prefect server")
    (alarm,) = run(home, broken("retrain"), hours=6)
    assert alarm["acted_at"] is None, "a failed action is tried at every check"


def experiment(release: str | None, **changes) -> ExperimentConfig:
    arms = [{"name": "old", "share": 0.8}, {"name": "new", "share": 0.2, "release": release}]
    content = {"name": "canary-1", "champion": "old", "challenger": "new", "arm": arms}
    return ExperimentConfig.model_validate(content | changes)


def test_a_stopped_canary_gets_no_users_and_its_release_is_held(home):
    challenger = publish(ReleaseStore(home.releases), about(), "three")
    start_experiment(home, experiment(challenger), now=5)
    with pytest.raises(ConfigError, match="experiment 'canary-1' runs since"):
        start_experiment(home, experiment(challenger, name="canary-2"), now=5)
    (alarm,) = run(home, broken("stop_canary", experiment="canary-1"))
    assert alarm["outcome"] == "done: experiment canary-1 ended; arm new gets no more users"
    assert running_experiment(home) is None
    assert "stopped by 'satisfaction'" in past_experiments(home)[0]["outcome"]
    assert [gate.name for gate in hold_gates(home, challenger)] == [f"hold: release {challenger}"]
    assert hold_gates(home, "another") == []
    with pytest.raises(ConfigError, match="want a new name"):
        start_experiment(home, experiment(challenger), now=9)
    with pytest.raises(ConfigError, match="no experiment runs"):
        stop_experiment(home, now=9, reason="")
    with pytest.raises(ReleaseError):
        start_experiment(home, experiment("gone", name="canary-3"), now=9)


def test_users_are_split_by_share_and_stay_in_their_arm():
    arms = experiment("r").arm
    names = [assign(f"u{n}", arms, salt="s") for n in range(20_000)]
    assert names.count("new") / 20_000 == pytest.approx(0.2, abs=0.01)
    assert names == [assign(f"u{n}", arms, salt="s") for n in range(20_000)]
    other = [assign(f"u{n}", arms, salt="t") for n in range(20_000)]
    both = sum(a == b == "new" for a, b in zip(names, other, strict=True)) / 20_000
    assert both == pytest.approx(0.04, abs=0.01), "another salt is another split"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"champion": "x"}, "champion 'x' is no arm, want one of old, new"),
        ({"challenger": "old"}, "champion and challenger are the same arm"),
        ({"arm": [{"name": "old", "share": 0.5}, {"name": "new", "share": 0.4}]}, "sum to 0.9"),
        ({"arm": [{"name": "old", "share": 0.5}, {"name": "new", "share": 0.5}]}, "needs the rel"),
    ],
)
def test_wrong_experiments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        experiment("r", **changes)
