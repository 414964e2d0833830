"""Invalid arguments of `shortlist bench sequence` give a one-sentence error before training."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import sequence
from cli.commands.care import app

LINES = "".join(f"u{u} " + " ".join(f"i{(u + s) % 9}" for s in range(5)) + "\n" for u in range(20))


@pytest.fixture
def refuse(tmp_path, monkeypatch, capsys):
    """A function that runs the command, which must fail without training, and returns its error."""

    def run(*arguments: str, content: bytes = LINES.encode()) -> str:
        path = tmp_path / "s.txt"
        path.write_bytes(content)
        command = ["sequence", "--interactions", str(path), "--work", str(tmp_path / "work")]
        command += ["--out", str(tmp_path / "new" / "out.json"), "--model", "sasrec", *arguments]
        monkeypatch.setattr(sys, "argv", command)
        monkeypatch.setattr(sequence, "run_seed", lambda *a, **k: pytest.fail("it trains"))
        with pytest.raises(SystemExit) as stopped:
            sequence.main()
        assert stopped.value.code == 2
        assert [p.name for p in tmp_path.iterdir()] == ["s.txt"]  # no other file was written
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        return said

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget-minutes", "0"], "--budget-minutes is 0, want more than 0"),
        (["--budget-minutes", "-1"], "--budget-minutes is -1, want more than 0"),
        (["--budget-minutes", "nan"], "--budget-minutes is nan, want more than 0"),
        (["--seeds", "0"], "--seeds is 0, want at least 1"),
        (["--only", "-1"], "--only is -1, want the number of a seed from 0"),
        (["--device", "gpu"], "--device gpu: torch has no such device here, want cpu"),
        (["--device", "meta"], "--device meta: torch has no such device here, want cpu"),
        (["--device", "cuda:99"], "--device cuda:99: torch has no such device here, want cpu"),
        (["--set", "num_heads=3"], "embedding_dim 64 is not a multiple of num_heads 3"),
        (["--set", "loss.soft=1"], "--set loss.soft=1: want KEY=VALUE with a key of"),
        (["--set", "loss=hinge"], "--set loss: Input should be 'full_softmax'"),
        (["--set", "optimiser.learning_rate=NaN"], "optimiser.learning_rate: Input should be"),
        (["--set", "optimiser.learning_rate=-1"], "optimiser.learning_rate: Input should be"),
        (["--set", "temperature=Infinity"], "--set temperature: Input should be a finite number"),
        (["--set", "learning_rate=0.1"], "did you mean optimiser.learning_rate?"),
        (["--set", "dropuot=0.3"], "dropuot=0.3: want KEY=VALUE with a key of"),
    ],
)
def test_options(refuse, arguments, message):
    assert message in refuse(*arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0", "s.txt: byte 0 is not UTF-8, want a text file with lines"),
        (b"u1 a b c d\nu2 a\0 b c d\n", "s.txt: line 2 has a zero byte, want a text file"),
        (b"u1 a b c\nu2 b c d\n", "no user has two items left to train on"),
        (b"u1 a b c d\n\nu2 a b c\nu1 d e f g\n", "line 4 has user 'u1' again, who is on line 1"),
    ],
)
def test_files(refuse, content, message):
    assert message in refuse(content=content)


def test_places_that_cannot_be_written(refuse, tmp_path):
    file = tmp_path / "s.txt"
    assert f"--out: cannot write into {file}" in refuse("--out", str(file / "sub" / "out.json"))
    assert f"--work: cannot write into {file}" in refuse("--work", str(file / "work"))
    assert f"--out {tmp_path}: is a folder" in refuse("--out", str(tmp_path))


def test_paths_are_relative_to_the_callers_folder(tmp_path, monkeypatch):
    (tmp_path / "s.txt").write_text(LINES)
    (tmp_path / "benchmarks.py").write_text("raise SystemExit('another one')")
    monkeypatch.chdir(tmp_path)
    command = ["bench", "sequence", "--interactions", "s.txt", "--out", "out.json"]
    done = CliRunner().invoke(app, [*command, "--model", "popularity", "--work", "work"])
    assert done.exit_code == 0
    assert Path("out.json").is_file()
    assert Path("work").is_dir()
