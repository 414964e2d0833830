"""Promote: a release that fails a gate is not promoted, and the pointer stores the loss budget."""

import json

import pytest

from flows.promote import find_release, promote
from shortlist.config import ConfigError, Settings
from shortlist.releases.promotion import DEFAULT_GATES
from shortlist.releases.release import ReleaseStore
from tests.flows.conftest import about, publish


@pytest.fixture
def store(tmp_path, monkeypatch) -> ReleaseStore:
    monkeypatch.setenv("SHORTLIST_HOME", str(tmp_path))
    return ReleaseStore(tmp_path / "releases")


def test_a_failed_gate_leaves_the_old_release_serving(store, tmp_path):
    first = publish(store, about())
    store.promote(first)
    worse = publish(store, about(compared_with=first, coverage=0.0), payload="other weights")
    gates = tmp_path / "gates.toml"
    gates.write_text("min_coverage = 0.2\n")

    result = promote(Settings(), worse, gates=str(gates))

    assert not result["promoted"]
    assert result["serving"] == store.current_id() == first
    assert "floor 0.2" in next(g["reason"] for g in result["gates"] if not g["passed"])


def test_a_release_is_judged_by_the_gates_of_its_run(store, tmp_path):
    gates = tmp_path / "shop-gates.toml"
    gates.write_text("min_coverage = 0.2\n")
    run = Settings().runs / "r1"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"gates": str(gates)}))
    release_id = publish(store, about() | {"run_id": "r1"})
    named = find_release(Settings(), release_id, run_id=None, of=None)
    newest = find_release(Settings(), None, run_id=None, of=None)
    assert named == newest
    assert named.gates == gates
    gates.unlink()
    assert find_release(Settings(), release_id, run_id=None, of=None).gates == DEFAULT_GATES


def test_the_budget_follows_promotions_and_a_rollback_restores_it(store):
    first = publish(store, about())
    assert promote(Settings(), first)["loss_budget"] == {"of": 0.01, "spent": 0.0}
    second = publish(store, about(mean=-0.006, compared_with=first))
    assert promote(Settings(), second)["loss_budget"]["spent"] == pytest.approx(0.006)

    # 0.011 in total, over the budget of 0.01
    third = publish(store, about(mean=-0.005, compared_with=second))
    result = promote(Settings(), third)
    assert [g["name"] for g in result["gates"] if not g["passed"]] == ["loss budget"]
    assert result["loss_budget"]["spent"] == pytest.approx(0.006)
    assert store.current_id() == second

    assert store.roll_back() == first
    assert store.history() == {first: 0.0}
    against_first = publish(store, about(mean=-0.005, compared_with=first), payload="again")
    assert promote(Settings(), against_first)["promoted"]


def test_a_pointer_of_an_earlier_version_has_spent_nothing(store):
    first = publish(store, about())
    store.promote(first)
    pointer = store.root / "current.json"
    pointer.write_text(f'{{"current": "{first}", "history": ["{first}"]}}')
    assert store.history() == {first: 0.0}


def test_a_tampered_release_fails_integrity(store):
    release_id = publish(store, about())
    (store.root / release_id / "model.bin").write_text("other weights")

    result = promote(Settings(), release_id)

    assert not result["promoted"]
    assert result["gates"][0]["name"] == "integrity"
    assert "model.bin" in result["gates"][0]["reason"]
    assert store.current_id() is None


def test_a_misspelt_gate_is_an_error(store, tmp_path):
    gates = tmp_path / "gates.toml"
    gates.write_text("min_covrage = 0.2\n")
    with pytest.raises(ConfigError, match="min_covrage: unknown key"):
        promote(Settings(), "any", gates=str(gates))
