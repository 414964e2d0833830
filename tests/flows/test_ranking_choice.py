"""Choice of sources and ranker on the validation window, and the reasons that are reported."""

from dataclasses import replace

import numpy as np
import pytest

from flows.training.choose_chain import MAX_LOSS, best_ranker, choose_sources, costs, source_usage
from flows.training.ranking_data import RankingWindow, RankingWindows
from flows.training.train_ranking import without_ranker
from models.baselines.popularity import Popularity
from models.ranking.protocol import RankingData
from models.ranking.schema import RankingSchema
from models.recommend.chain import Chain, ChainConfig
from shortlist.features.profiles import ProfileEncoder
from tests.models.small_data import catalogue_of

NAMES = ("strong", "useless", "recent_popularity")


def valid_window() -> tuple[RankingWindow, np.ndarray]:
    """Return 20 requests with 4 candidates each, and their scores.

    Only `strong` retrieves the relevant candidate, and it has the highest score.
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
    return RankingWindow(data, found_by, fused=-scores), scores


def config() -> ChainConfig:
    return ChainConfig(candidate_sources=NAMES, score_sources=NAMES)


def test_a_source_whose_candidates_change_nothing_is_left_out():
    valid, scores = valid_window()
    usage = {"strong": 0.9, "useless": 0.001}
    choice = choose_sources(config(), valid, scores, usage, probe_without=lambda _: scores)
    assert choice.candidate_sources == ("strong", "recent_popularity")
    assert choice.score_sources == ("strong", "recent_popularity")
    assert any(line.startswith("useless: out of the chain") for line in choice.verdict)
    # Without `strong`, the relevant item isn't retrieved, so nDCG drops from 1 to 0.
    assert choice.figures["worth"]["strong"] == 1.0


def test_scores_that_the_ranker_needs_stay_although_the_candidates_go():
    valid, scores = valid_window()
    asked = []

    def probe_without(sources):
        asked.append(sources)
        return -scores  # ranks the relevant item last, so nDCG drops from 1 to 1 / log2(5)

    usage = {"strong": 0.5, "useless": 0.3}
    choice = choose_sources(config(), valid, scores, usage, probe_without=probe_without)
    assert "useless" not in choice.candidate_sources
    assert "useless" in choice.score_sources
    assert asked == [("useless",)]


def test_the_most_used_scores_return_first_while_leaving_them_out_costs():
    """Scores of dropped sources are added back by usage, while dropping them lowers nDCG."""
    valid, scores = valid_window()
    names = ("strong", "a", "b", "recent_popularity")
    found_by = np.insert(valid.found_by, 1, False, axis=1)
    asked = []

    def probe_without(sources):
        asked.append(sources)
        return -scores if "b" in sources else scores

    choice = choose_sources(
        ChainConfig(candidate_sources=names, score_sources=names),
        replace(valid, found_by=found_by),
        scores,
        {"strong": 0.5, "a": 0.1, "b": 0.2},
        probe_without=probe_without,
    )
    assert asked == [("a", "b"), ("a",)]
    assert choice.candidate_sources == ("strong", "recent_popularity")
    assert choice.score_sources == ("strong", "b", "recent_popularity")


def test_a_source_that_alone_finds_what_is_relevant_stays_although_short_lists_do_not_show_it():
    valid, scores = valid_window()
    # The third candidate becomes relevant in two of 20 requests. Only `useless` retrieves it, and
    # its score is low. Without it, nDCG hardly changes, but 2 of 22 relevant items would be lost.
    label = valid.data.label.copy()
    label[[2, 6]] = 1
    found_by = valid.found_by.copy()
    found_by[2::4, 2] = False
    data = replace(valid.data, label=label)
    scores[2::4] = -1e9
    kept = choose_sources(
        config(),
        RankingWindow(data, found_by, valid.fused),
        scores,
        {},
        probe_without=lambda _: scores,
    )
    assert "useless" in kept.candidate_sources
    assert kept.figures["recall_kept"] == 1.0


def test_a_difference_within_noise_is_no_cost_and_one_beyond_it_is():
    rng = np.random.default_rng(0)
    users = [f"u{i}" for i in range(400)]
    dearer = rng.random(400)
    noise = rng.normal(0, 0.05, size=400)
    noise -= noise.mean()
    assert not costs(users, dearer - 0.002 + noise, dearer)["costs"]  # interval: +-0.005
    assert costs(users, dearer - 0.002 + noise / 10, dearer)["costs"]  # interval: +-0.0005
    assert not costs(users, dearer + 0.002, dearer)["costs"]


def test_few_users_do_not_make_every_loss_acceptable():
    """With a wide interval, a mean loss above MAX_LOSS still counts as a cost."""
    users = [f"u{i}" for i in range(10)]
    dearer = np.full(10, 0.5)
    swings = np.tile([0.4, -0.4], 5)
    within, beyond = 0.9 * MAX_LOSS, 1.1 * MAX_LOSS
    assert not costs(users, dearer + swings - within, dearer)["costs"]
    assert costs(users, dearer + swings - beyond, dearer)["costs"]


def test_features_of_left_out_sources_are_gone_and_the_others_are_unchanged():
    valid, _ = valid_window()
    schema = RankingSchema(("a", "b"), ())
    x = np.tile(np.arange(len(schema.names), dtype=np.float32), (len(valid.data.label), 1))
    smaller = replace(valid.data, x=x, schema=schema).without_sources(("a",))
    assert smaller.schema.sources == ("b",)
    assert smaller.x[0].tolist() == [schema.names.index(name) for name in smaller.schema.names]


def test_usage_is_the_share_of_gain_of_a_source_by_its_name():
    importance = {"ease:score": 0.5, "ease:place": 0.2, "item_knn:score": 0.1, "user_events": 0.2}
    assert source_usage(importance, ("ease", "item_knn", "ials")) == {
        "ease": 0.5 + 0.2,
        "item_knn": 0.1,
        "ials": 0,
    }


class Constant:
    """A ranker with a fixed score per item."""

    name = "constant"

    def __init__(self, by_item: list[float]):
        self.by_item = np.array(by_item)

    def predict(self, x, item_idx, requests=None):
        return self.by_item[item_idx].astype(np.float32)


def test_a_better_ranker_wins_and_fusion_wins_where_no_ranker_is_better():
    valid, _ = valid_window()
    good, bad = Constant([0, 9, 1, 1, 1]), Constant([0, 0, 1, 2, 3])
    assert best_ranker({"deepfm": good, "lambdamart": bad}, valid)[0] == "deepfm"
    fused = RankingWindow(valid.data, valid.found_by, -valid.fused)
    kind, figures = best_ranker({"lambdamart": bad}, fused)
    assert kind is None
    assert figures["fusion"] > figures["lambdamart"]


def test_of_rankers_that_differ_by_less_than_noise_the_cheaper_one_wins():
    valid, _ = valid_window()
    good, same = Constant([0, 9, 1, 1, 1]), Constant([0, 9, 2, 1, 1])
    assert best_ranker({"blend": same, "lambdamart": good}, valid)[0] == "lambdamart"


@pytest.mark.parametrize("repeats", ["exclude", "allow"])
def test_without_a_ranker_the_release_has_the_schema_of_its_own_chain(repeats: str):
    valid, _ = valid_window()
    names = ("popularity",)
    chain = Chain(
        ChainConfig(candidate_sources=names, score_sources=names, repeats=repeats),
        sources={"popularity": Popularity("popularity", days=None)},
        ranker=None,
        catalogue=catalogue_of([[]] * 4),
        profiles=ProfileEncoder.fit([]),
    )
    about = without_ranker(chain, RankingWindows(train=valid, valid=valid), "nobody chose anything")
    served = Chain(
        ChainConfig.model_validate(about["chain"]),
        sources=chain.sources,
        ranker=None,
        catalogue=chain.catalogue,
        profiles=chain.profiles,
    )
    assert about["ranking_schema"] == served.schema.to_json()
    assert served.config.score_sources == ()
