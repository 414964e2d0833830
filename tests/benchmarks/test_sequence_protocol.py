"""The evaluation protocol (held-out items, masking, ties), and the command from file to result."""

import json
import sys

import numpy as np
import pytest

from benchmarks.sequence import main
from benchmarks.sequence_model.blend import Pool, learn, standardise
from benchmarks.sequence_model.protocol import (
    MISS,
    FormatError,
    Sequences,
    figures,
    ranks,
    ranks_of,
)
from models.sequence.choose import Statistics, choose


@pytest.fixture
def sequences(tmp_path) -> Sequences:
    path = tmp_path / "s.txt"
    path.write_text("u1 a b c d\nu2 b c\n\nu3 c a b\n")
    return Sequences.read(path)


def test_reads_lines_in_their_order(sequences):
    assert sequences.item_ids == ["a", "b", "c", "d"]
    assert sequences.user_ids == ["u1", "u2", "u3"]
    assert sequences.item_idx.tolist() == [1, 2, 3, 4, 2, 3, 3, 1, 2]
    assert sequences.catalogue.vocab.ids == sequences.item_ids  # so `item_idx` is valid in models


def test_holds_out_the_end_of_those_who_are_judged(sequences):
    data = sequences.training(held_out=2)
    # u2 is too short for evaluation, so all of its items are training data.
    assert data.item_idx.tolist() == [1, 2, 2, 3, 3]
    assert data.offsets.tolist() == [0, 2, 4, 5]
    assert sequences.training(held_out=1).item_idx.tolist() == [1, 2, 3, 2, 3, 3, 1]
    ((queries, target),) = sequences.chunks(held_out=2)
    assert queries.user_ids == ["u3", "u1"]
    assert queries.history.tolist() == [[3, 0], [1, 2]]
    assert target.tolist() == [1, 3]
    ((queries, target),) = sequences.chunks(held_out=1)
    assert queries.history.tolist() == [[3, 1, 0], [1, 2, 3]]  # includes validation items
    assert target.tolist() == [2, 4]


def test_ranks_mask_the_history_and_count_ties_against():
    scores = np.array([[9.0, 0.5, 0.7, 0.9, 0.5]] * 3)
    history = np.array([[3, 0], [2, 3], [1, 0]])
    # Column 0 is ignored. Item 1 is relevant in all rows: first it ranks below item 2 and ties with
    # item 4, then it only ties, then it is masked.
    assert ranks_of(scores, history, np.array([1, 1, 1])).tolist() == [3, 2, MISS]


def test_figures_by_hand():
    found = figures(np.array([1, 4, 7, 11, MISS]))
    assert found["recall@5"] == pytest.approx(2 / 5)
    assert found["recall@10"] == pytest.approx(3 / 5)
    assert found["ndcg@5"] == pytest.approx((1 + 1 / np.log2(5)) / 5)
    assert found["ndcg@10"] == pytest.approx((1 + 1 / np.log2(5) + 1 / np.log2(8)) / 5)


def test_a_model_of_the_answers_ranks_first(sequences):
    answers = {"u1": 4, "u3": 2}

    def oracle(queries):
        scores = np.zeros((len(queries), 5))
        scores[np.arange(len(queries)), [answers[u] for u in queries.user_ids]] = 1
        return scores

    assert ranks(oracle, sequences.chunks(held_out=1)).tolist() == [1, 1]
    constant = lambda queries: np.zeros((len(queries), 5))  # noqa: E731
    # The relevant item ties with all items that aren't masked.
    assert ranks(constant, sequences.chunks(held_out=1)).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no user with three items"),
        ("u1 a b c\nu2\n", "line 2 has a user without items"),
        ("u1 a b\n", "no user with three items"),
    ],
)
def test_says_what_is_wrong_with_a_file(tmp_path, text, message):
    (tmp_path / "s.txt").write_text(text)
    with pytest.raises(FormatError, match=message):
        Sequences.read(tmp_path / "s.txt")


def test_the_blend_gives_the_better_source_more_weight():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(300, 20, 3)).astype(np.float32)
    wanted = rng.integers(20, size=300)
    scores[np.arange(300), wanted, 1] += 2.5  # only source 1 is informative
    weights, best = learn(Pool(scores, wanted), np.ones(3, dtype=np.float32))
    alone = Pool(scores, wanted).ndcg(np.array([0, 1, 0], dtype=np.float32))
    assert best >= alone - 0.01
    assert weights[1] > 4 * max(weights[0], weights[2])


def test_standardised_scores():
    scores = standardise(np.array([[7.0, 1.0, 3.0], [7.0, 2.0, 2.0]]))
    assert scores[:, 1:].tolist() == [[-1, 1], [0, 0]]


def test_choose_depends_on_statistics_only():
    sparse = Statistics(
        num_users=9, num_items=90_000, num_events=60, mean_length=7, length_90=14, events_per_item=1
    )
    dense = Statistics(
        num_users=9,
        num_items=900,
        num_events=999,
        mean_length=160,
        length_90=400,
        events_per_item=9,
    )
    assert choose(sparse).loss == "sampled_softmax"
    assert choose(dense).loss == "full_softmax"
    assert choose(sparse).dropout > choose(dense).dropout
    assert choose(dense).max_history > choose(sparse).max_history
    assert choose(dense, kind="gru").model_dump()["kind"] == "gru"
    with pytest.raises(ValueError, match="no sequence model 'mamba', want one of sasrec"):
        choose(dense, kind="mamba")


def test_the_command_runs_resumes_and_refuses(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    lines = [
        f"u{u} " + " ".join(f"i{(rng.integers(40) + step) % 40}" for step in range(6))
        for u in range(60)
    ]
    path, out = tmp_path / "s.txt", tmp_path / "out.json"
    path.write_text("\n".join(lines))

    def bench(*arguments: str) -> str:
        command = ["sequence", "--interactions", str(path), "--work", str(tmp_path / "work")]
        monkeypatch.setattr(sys, "argv", [*command, "--out", str(out), *arguments])
        main()
        return capsys.readouterr().out

    small = ["--model", "sasrec", "--seeds", "2", "--set", "optimiser.num_epochs=2"]
    assert "sasrec: epoch 2/2" in bench(*small)
    result = json.loads(out.read_text())
    for part in ("validation", "test", "test_trained_on_validation_too"):
        assert set(result[part]) == {"recall@5", "ndcg@5", "recall@10", "ndcg@10"}
        assert set(result[part]["ndcg@10"]) == {"mean", "std"}
    assert result["config"]["optimiser"]["num_epochs"] == 2
    assert len(result["seeds"]) == 2
    assert result["tokens_per_s"] > 0
    assert "epoch 1" not in bench(*small)  # both seeds are read from --work
    assert json.loads(out.read_text())["test"] == result["test"]
    with pytest.raises(SystemExit) as stopped:
        bench("--set", "dropuot=0.3")
    assert stopped.value.code == 2
    assert "dropuot=0.3: want KEY=VALUE with a key of" in capsys.readouterr().err
