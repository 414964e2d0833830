"""`shortlist bench sequence --model blend` from file to metrics, for small and large catalogues."""

import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.sequence import main
from benchmarks.sequence_model import blend
from benchmarks.sequence_model.arguments import seconds_each
from benchmarks.sequence_model.blend import DEPTH, gather
from benchmarks.sequence_model.protocol import Sequences
from models.baselines import ease
from models.sequence.choose import choose


def walks(path: Path, *, num_items: int, num_users: int = 40) -> Path:
    """Write a sequences file in which each user consumes five consecutive items."""
    rng = np.random.default_rng(0)
    starts = rng.integers(num_items, size=num_users)
    lines = [
        f"u{u} " + " ".join(f"i{(start + step) % num_items}" for step in range(5))
        for u, start in enumerate(starts)
    ]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A function that runs the command on a file, with sequence models of one epoch."""

    def one_epoch(statistics, *, kind):
        config = choose(statistics, kind=kind)
        optimiser = config.optimiser.model_copy(update={"num_epochs": 1})
        return config.model_copy(update={"embedding_dim": 8, "optimiser": optimiser})

    monkeypatch.setattr(blend, "choose", one_epoch)

    def run(path: Path, *arguments: str) -> dict:
        out = tmp_path / "out.json"
        command = ["sequence", "--interactions", str(path), "--work", str(tmp_path / "work")]
        monkeypatch.setattr(sys, "argv", [*command, "--out", str(out), *arguments])
        main()
        return json.loads(out.read_text())

    return run


def test_blends_small_catalogues_and_leaves_out_ease_where_it_is_too_large(
    bench, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(ease, "MAX_ITEMS", 11)
    result = bench(walks(tmp_path / "s.txt", num_items=12), "--model", "blend", "--seeds", "1")
    assert result["config"]["sources"] == ["bsarec", "sasrec", "gru", "item_knn", "popularity"]
    assert set(result["test"]["ndcg@10"]) == {"mean", "std"}
    assert set(result["seeds"][0]["weights"]) == set(result["config"]["sources"])
    assert "blend: ease is left out, 12 items are more than the 11" in capsys.readouterr().out


@pytest.mark.parametrize("num_items", [12, DEPTH + 40])
def test_gathers_the_best_items_of_each_source_in_small_and_large_catalogues(tmp_path, num_items):
    sequences = Sequences.read(walks(tmp_path / "s.txt", num_items=num_items, num_users=300))
    N = sequences.num_items
    rising = np.arange(N + 1, dtype=np.float32)
    scorers = [
        lambda queries: np.tile(rising, (len(queries), 1)),
        lambda queries: np.tile(-rising, (len(queries), 1)),
    ]
    pool = gather(sequences, scorers)
    assert pool.scores.shape == (300, 2 * min(DEPTH, N), 2)
    assert (pool.wanted >= 0).all()  # the two scorers' best items are together the whole catalogue


def test_says_that_a_catalogue_is_too_large_for_ease(bench, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ease, "MAX_ITEMS", 11)
    with pytest.raises(SystemExit) as stopped:
        bench(walks(tmp_path / "s.txt", num_items=12), "--model", "ease")
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "12 items, --model ease takes at most 11 (its inverse is dense)" in message
    assert "[train]" not in message


@pytest.mark.parametrize("model", ["blend", "item_knn"])
@pytest.mark.parametrize("option", [["--set", "dropout=0.3"], ["--only", "1"]])
def test_refuses_options_without_effect(bench, tmp_path, capsys, model, option):
    with pytest.raises(SystemExit) as stopped:
        bench(walks(tmp_path / "s.txt", num_items=12), "--model", model, *option)
    assert stopped.value.code == 2
    wanted = f"{option[0]} is for one sequence model, --model is {model}; want --model auto"
    assert wanted in capsys.readouterr().err


def test_models_that_train_twice_halve_the_budget():
    given = {"budget_minutes": 6, "seeds": 3, "skip_refit": False}
    assert seconds_each(Namespace(model="sasrec", **given)) == 60
    assert seconds_each(Namespace(model="blend", **given)) == 120
