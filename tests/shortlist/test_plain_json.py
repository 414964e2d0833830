"""JSON without NaN, and atomic writing of JSON files."""

import json

import pytest

from shortlist.files.plain_json import dumps, write_json


def test_figures_without_a_value_become_null_at_any_depth():
    content = {"a": float("nan"), "b": [1.5, float("inf")], "c": {"d": (float("-inf"), "x")}}
    assert json.loads(dumps(content)) == {"a": None, "b": [1.5, None], "c": {"d": [None, "x"]}}


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = write_json(tmp_path / "figures.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["figures.json"]
