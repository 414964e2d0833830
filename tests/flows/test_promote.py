"""Gates: both figures are said, and a release that fails one never serves."""

import json

import pytest

from flows.promote import GatesConfig, judge_gates, promote_flow
from shortlist.config import ConfigError
from shortlist.release import ReleaseStore

CONFIG = GatesConfig(tolerance=0.01, min_coverage=0.2, min_index_recall=0.95)


def about(*, chain=0.30, rival=0.25, coverage=0.5, index_recall=0.99, champion=None) -> dict:
    metrics = {
        "chain": {"ndcg@10": {"mean": chain}, "coverage@10": {"mean": coverage}},
        "recent_popularity": {"ndcg@10": {"mean": rival}},
    }
    if champion is not None:
        metrics["champion"] = {"ndcg@10": {"mean": champion}}
    return {
        "metrics": metrics,
        "source_figures": {
            "ease": {"seconds": 1.0},
            "two_tower": {"index": "exact", "index_recall@100": index_recall},
        },
    }


def publish(store: ReleaseStore, content: dict, payload: str = "weights") -> str:
    with store.publishing(content) as (folder, content):
        (folder / "model.bin").write_text(payload)
    return content["release_id"]


def verdicts(store: ReleaseStore, content: dict) -> dict[str, bool]:
    release = store.open(publish(store, content))
    return {gate.name: gate.passed for gate in judge_gates(release, CONFIG)}


def test_every_gate_holds(tmp_path):
    assert all(verdicts(ReleaseStore(tmp_path), about()).values())


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"chain": 0.239}, "quality"),  # 0.25 - 0.01 is the floor
        ({"chain": 0.30, "champion": 0.32}, "quality"),  # the champion counts, not popularity
        ({"coverage": 0.19}, "coverage"),
        ({"index_recall": 0.94}, "index recall of two_tower"),
    ],
)
def test_one_gate_fails_and_says_both_figures(tmp_path, change, gate):
    store = ReleaseStore(tmp_path)
    release = store.open(publish(store, about(**change)))
    failed = [verdict for verdict in judge_gates(release, CONFIG) if not verdict.passed]
    assert [verdict.name for verdict in failed] == [gate]
    assert failed[0].figure is not None
    assert failed[0].floor is not None
    assert failed[0].figure < failed[0].floor


@pytest.mark.parametrize(("coverage", "passed"), [(0.06, True), (0.04, False)])
def test_few_people_cannot_be_shown_much_of_a_large_catalogue(tmp_path, coverage, passed):
    content = about(coverage=coverage) | {"reachable_coverage": 0.1}  # half of it is wanted
    gates = judge_gates(
        ReleaseStore(tmp_path).open(publish(ReleaseStore(tmp_path), content)), CONFIG
    )
    gate = next(gate for gate in gates if gate.name == "coverage")
    assert (gate.passed, gate.floor) == (passed, 0.05)
    assert "floor 0.05 (0.5 of the 0.100" in gate.reason


def test_within_the_tolerance_of_the_champion_is_good_enough(tmp_path):
    assert verdicts(ReleaseStore(tmp_path), about(chain=0.311, champion=0.32))["quality"]


def test_a_failed_gate_leaves_the_old_release_serving(tmp_path, monkeypatch):
    monkeypatch.setenv("SHORTLIST_HOME", str(tmp_path))
    store = ReleaseStore(tmp_path / "releases")
    first = publish(store, about())
    store.promote(first)
    worse = publish(store, about(coverage=0.0), payload="other weights")
    gates = tmp_path / "gates.toml"
    gates.write_text("min_coverage = 0.2\n")

    result = promote_flow.fn(worse, gates=str(gates))

    assert not result["promoted"]
    assert store.current_id() == first
    assert "floor 0.2" in next(g["reason"] for g in result["gates"] if not g["passed"])


def test_a_tampered_release_fails_integrity(tmp_path, monkeypatch):
    monkeypatch.setenv("SHORTLIST_HOME", str(tmp_path))
    store = ReleaseStore(tmp_path / "releases")
    release_id = publish(store, about())
    (store.root / release_id / "model.bin").write_text("other weights")

    result = promote_flow.fn(release_id)

    assert not result["promoted"]
    assert result["gates"][0]["name"] == "integrity"
    assert "model.bin" in result["gates"][0]["reason"]
    assert store.current_id() is None


def test_a_misspelt_gate_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("SHORTLIST_HOME", str(tmp_path))
    gates = tmp_path / "gates.toml"
    gates.write_text("min_covrage = 0.2\n")
    with pytest.raises(ConfigError, match="min_covrage: unknown key"):
        promote_flow.fn("any", gates=str(gates))


def test_the_shipped_gates_are_readable():
    from shortlist.config import load_toml

    assert json.loads(load_toml("configs/gates.toml", GatesConfig).model_dump_json())
