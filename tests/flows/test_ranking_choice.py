"""The choice of the chain on validation: what does not pay stays out, and the verdict says so."""

from dataclasses import replace

import numpy as np

from flows.ranking_data import Assembled, best_ranker, choose_sources, source_usage
from models.ranking.protocol import RankingData
from models.ranking.schema import RankingSchema
from models.recommend.chain import ChainConfig

NAMES = ("strong", "useless", "recent_popularity")


def valid_window() -> tuple[Assembled, np.ndarray]:
    """20 requests of 4 candidates: only `strong` finds the relevant one, which the scores put
    first.
    """
    requests = 20
    label = np.tile([1, 0, 0, 0], requests).astype(np.float32)
    found_by = np.tile(
        np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]], dtype=bool), (requests, 1)
    )
    data = RankingData(
        x=np.zeros((4 * requests, 1), dtype=np.float32),
        item_idx=np.tile([1, 2, 3, 4], requests),
        label=label,
        group=np.full(requests, 4),
        users=[f"u{i}" for i in range(requests)],
        num_relevant=np.ones(requests, dtype=np.int64),
        schema=RankingSchema(NAMES, ()),
    )
    scores = np.tile([4.0, 3.0, 2.0, 1.0], requests)
    return Assembled(data, found_by, fused=-scores), scores


def config() -> ChainConfig:
    return ChainConfig(candidate_sources=NAMES, score_sources=NAMES)


def test_a_source_whose_candidates_change_nothing_is_left_out():
    valid, scores = valid_window()
    choice = choose_sources(config(), valid, scores, {"strong": 0.9, "useless": 0.001})
    assert choice.candidate_sources == ("strong", "recent_popularity")
    assert choice.score_sources == ("strong", "recent_popularity")
    assert any(line.startswith("useless: stays out of the chain") for line in choice.verdict)
    # without `strong` the relevant item is not found at all: nDCG 1 -> 0
    assert choice.figures["worth"]["strong"] == 1.0


def test_scores_that_the_ranker_lives_on_stay_although_the_candidates_go():
    valid, scores = valid_window()
    choice = choose_sources(config(), valid, scores, {"strong": 0.5, "useless": 0.3})
    assert "useless" not in choice.candidate_sources
    assert "useless" in choice.score_sources


def test_a_source_that_alone_finds_what_is_relevant_stays_although_short_lists_do_not_show_it():
    valid, scores = valid_window()
    # the third candidate, found by `useless` and the popular list, becomes relevant in two requests
    # of 20, and nobody ranks it high: nDCG hardly knows, 2 of 22 relevant items would be lost
    label = valid.data.label.copy()
    label[[2, 6]] = 1
    found_by = valid.found_by.copy()
    found_by[2::4, 2] = False
    data = replace(valid.data, label=label)
    scores[2::4] = -1e9
    kept = choose_sources(config(), Assembled(data, found_by, valid.fused), scores, {})
    assert "useless" in kept.candidate_sources
    assert kept.figures["recall_kept"] == 1.0


def test_usage_is_the_share_of_gain_of_a_source_by_its_name():
    importance = {"ease:score": 0.5, "ease:place": 0.2, "item_knn:score": 0.1, "user_events": 0.2}
    assert source_usage(importance, ("ease", "item_knn", "ials")) == {
        "ease": 0.5 + 0.2,
        "item_knn": 0.1,
        "ials": 0,
    }


class Constant:
    """A ranker that scores items by a table."""

    name = "constant"

    def __init__(self, by_item: list[float]):
        self.by_item = np.array(by_item)

    def predict(self, x, item_idx):
        return self.by_item[item_idx].astype(np.float32)


def test_the_best_ranker_wins_and_fusion_wins_where_no_ranker_is_better():
    valid, _ = valid_window()
    good, bad = Constant([0, 9, 1, 1, 1]), Constant([0, 0, 1, 2, 3])
    assert best_ranker({"good": good, "bad": bad}, valid)[0] == "good"
    kind, figures = best_ranker({"bad": bad}, Assembled(valid.data, valid.found_by, -valid.fused))
    assert kind is None
    assert figures["fusion"] > figures["bad"]
