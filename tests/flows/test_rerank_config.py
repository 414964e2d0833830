"""Re-ranking in a run's TOML: what it needs, and the sources that a recipe keeps for it."""

import pytest

from flows.runtime.configuration import RunConfig, load_run_config
from flows.training.refit import Recipe
from models.recommend.rerank.config import CalibrationConfig, MmrConfig
from shortlist.config import ConfigError

TOML = """
name = "small"
[data]
source = "movielens-100k"
target_events = ["rating"]
[train]
sources = [{ kind = "ease" }, { kind = "content" }]
rankers = []
"""


def loaded(tmp_path, line: str) -> RunConfig:
    path = tmp_path / "run.toml"
    path.write_text(TOML + line)
    return load_run_config(path)


def test_the_settings_of_a_run(tmp_path):
    assert loaded(tmp_path, "").train.rerank is None
    line = 'rerank = { kind = "mmr", strength = 0.2, vectors = "content" }'
    assert loaded(tmp_path, line).train.rerank == MmrConfig(strength=0.2, vectors="content")
    line = 'rerank = { kind = "calibration", strength = 0.3 }'
    assert loaded(tmp_path, line).train.rerank == CalibrationConfig(strength=0.3)
    assert loaded(tmp_path, "mmr_strength = 0.1").train.rerank == MmrConfig(strength=0.1)
    saved = loaded(tmp_path, line).model_dump(mode="json")
    assert RunConfig.model_validate(saved).train.rerank == CalibrationConfig(strength=0.3)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            'rerank = { kind = "mmr", strength = 0.2, vectors = "collaborative" }',
            r"train: rerank.vectors needs the source two_tower; `sources` has ease, content: add"
            r' \{ kind = "two_tower" \}, or set rerank.vectors = "categories"',
        ),
        ('rerank = { kind = "mmr", strength = 0 }', "strength: Input should be greater than 0"),
        ('rerank = { kind = "calibration", strength = 2 }', "less than or equal to 1"),
        ('rerank = { kind = "shuffle", strength = 0.2 }', "'mmr', 'calibration'"),
        (
            'rerank = { kind = "calibration", strength = 0.1, vectors = "content" }',
            "vectors: unknown key",
        ),
        ('mmr_strength = 0.1\nrerank = { kind = "mmr", strength = 0.2 }', "both set"),
    ],
)
def test_wrong_settings_are_explained(tmp_path, line, problem):
    with pytest.raises(ConfigError, match=problem):
        loaded(tmp_path, line)


def test_a_recipe_refits_the_source_whose_vectors_re_ranking_compares(tmp_path):
    chain = {"candidate_sources": ["ease"], "score_sources": ["ease"]}
    frozen = {"ease": {}, "content": {"epochs": 1}}

    def in_chain(**more) -> list[str]:
        recipe = Recipe.of(loaded(tmp_path, ""), chain=chain | more, ranker=None, frozen=frozen)
        return [source.kind for source in recipe.in_chain]

    assert in_chain() == ["ease"]
    by_content = {"kind": "mmr", "strength": 0.1, "vectors": "content"}
    assert in_chain(rerank=by_content) == ["ease", "content"]
    assert in_chain(rerank={"kind": "calibration", "strength": 0.1}) == ["ease"]
