"""Promote: a release that fails a gate never serves, and the pointer keeps the loss budget."""

from typing import Any

import pytest

from flows.promote import promote_flow
from shortlist.config import ConfigError
from shortlist.release import ReleaseStore


def about(*, mean: float = 0.05, compared_with: str | None = None, coverage: float = 0.5) -> dict:
    figure = {"mean": mean, "low": mean - 0.002, "high": mean + 0.002, "users": 100}
    opponent = "champion" if compared_with else "recent_popularity"
    return {
        "metrics": {"chain": {"ndcg@10": {"mean": 0.3}, "coverage@10": {"mean": coverage}}},
        "chain_ahead": {opponent: {"ndcg@10": figure}},
        "champion": {
            "release_id": compared_with,
            "status": "compared" if compared_with else "none",
            "reason": "",
        },
        "sources": {"two_tower": "two_tower"},
        "source_figures": {"two_tower": {"index": "exact", "index_recall@100": 0.99}},
        "refit": {
            "overlap@10": 0.5,
            "coverage@10": 0.5,
            "backtest_coverage@10": 0.5,
            "scores": {"two_tower": {"mean_shift": 0.0, "std_ratio": 1.0}},
            "index_recall@100": {"two_tower": 0.99},
        },
    }


@pytest.fixture
def store(tmp_path, monkeypatch) -> ReleaseStore:
    monkeypatch.setenv("SHORTLIST_HOME", str(tmp_path))
    return ReleaseStore(tmp_path / "releases")


def publish(store: ReleaseStore, content: dict[str, Any], payload: str = "weights") -> str:
    with store.publishing(content) as (folder, content):
        (folder / "model.bin").write_text(payload)
    return content["release_id"]


def test_a_failed_gate_leaves_the_old_release_serving(store, tmp_path):
    first = publish(store, about())
    store.promote(first)
    worse = publish(store, about(compared_with=first, coverage=0.0), payload="other weights")
    gates = tmp_path / "gates.toml"
    gates.write_text("min_coverage = 0.2\n")

    result = promote_flow.fn(worse, gates=str(gates))

    assert not result["promoted"]
    assert result["serving"] == store.current_id() == first
    assert "floor 0.2" in next(g["reason"] for g in result["gates"] if not g["passed"])


def test_the_budget_follows_promotions_and_a_rollback_restores_it(store):
    first = publish(store, about())
    assert promote_flow.fn(first)["loss_budget"] == {"of": 0.01, "spent": 0.0}
    second = publish(store, about(mean=-0.006, compared_with=first))
    assert promote_flow.fn(second)["loss_budget"]["spent"] == pytest.approx(0.006)

    third = publish(store, about(mean=-0.005, compared_with=second))  # 0.011 together
    result = promote_flow.fn(third)
    assert [g["name"] for g in result["gates"] if not g["passed"]] == ["loss budget"]
    assert result["loss_budget"]["spent"] == pytest.approx(0.006)
    assert store.current_id() == second

    assert store.roll_back() == first
    assert store.history() == {first: 0.0}
    against_first = publish(store, about(mean=-0.005, compared_with=first), payload="again")
    assert promote_flow.fn(against_first)["promoted"]


def test_a_pointer_of_an_earlier_version_has_spent_nothing(store):
    first = publish(store, about())
    store.promote(first)
    pointer = store.root / "current.json"
    pointer.write_text(f'{{"current": "{first}", "history": ["{first}"]}}')
    assert store.history() == {first: 0.0}


def test_a_tampered_release_fails_integrity(store):
    release_id = publish(store, about())
    (store.root / release_id / "model.bin").write_text("other weights")

    result = promote_flow.fn(release_id)

    assert not result["promoted"]
    assert result["gates"][0]["name"] == "integrity"
    assert "model.bin" in result["gates"][0]["reason"]
    assert store.current_id() is None


def test_a_misspelt_gate_is_an_error(store, tmp_path):
    gates = tmp_path / "gates.toml"
    gates.write_text("min_covrage = 0.2\n")
    with pytest.raises(ConfigError, match="min_covrage: unknown key"):
        promote_flow.fn("any", gates=str(gates))
