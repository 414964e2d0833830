"""The rows of `shortlist bench serving` can be measured one at a time."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import serving


def test_a_row_is_added_to_the_rows_that_a_file_has(tmp_path: Path) -> None:
    out = tmp_path / "results" / "serving.json"
    serving.keep_row("movielens", {"p50_ms": 5.0}, out)
    serving.keep_row("100k", {"p50_ms": 9.0}, out)
    serving.keep_row("100k", {"p50_ms": 8.0}, out)
    content = json.loads(out.read_text())
    assert content["rows"] == {"movielens": {"p50_ms": 5.0}, "100k": {"p50_ms": 8.0}}
    assert "machine" in content


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["--rows", "10k"], "no row 10k; there are 100k"), (["--build-only"], "needs --work")],
)
def test_wrong_arguments_are_told(
    arguments: list[str], expected: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(sys, "argv", ["serving", *arguments])
    with pytest.raises(SystemExit):
        serving.main()
    assert expected in capsys.readouterr().err
