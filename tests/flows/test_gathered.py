"""Selecting some sources of gathered candidates equals gathering with these sources only."""

import numpy as np

from flows.runtime.configuration import RunConfig
from flows.training.assemble import EvaluationBatch
from flows.training.ranking_data import assemble_ranking, gather, ranker_options
from models.baselines.ease import EaseConfig, fit_ease
from models.baselines.item_knn import ItemKnnConfig, fit_item_knn
from models.baselines.popularity import Popularity
from models.recommend.chain import Chain, ChainConfig
from models.training import TrainingOptions
from shortlist.features.profiles import ProfileEncoder
from tests.models.conftest import make_checkerboard


def test_a_selection_of_the_gathered_is_what_the_smaller_chain_finds_itself():
    data, validation = make_checkerboard()
    queries, items, relevant = validation.ticks[0]
    options = TrainingOptions()
    sources = {
        "item_knn": fit_item_knn(ItemKnnConfig(), data, validation, options),
        "ease": fit_ease(EaseConfig(), data, validation, options),
        "recent_popularity": Popularity("recent_popularity", days=7),
    }
    ticks = [EvaluationBatch(queries, items, relevant, relevant, [""] * len(relevant))]

    def chain(candidates: tuple[str, ...], scores: tuple[str, ...]) -> Chain:
        return Chain(
            ChainConfig(
                candidate_sources=candidates, score_sources=scores, candidates_per_source=4
            ),
            sources=sources,
            ranker=None,
            catalogue=data.catalogue,
            profiles=ProfileEncoder(("group",), (("a",),)),
        )

    everything = gather(chain(tuple(sources), tuple(sources)), ticks)
    smaller = chain(("ease", "recent_popularity"), ("item_knn", "ease"))
    selected = assemble_ranking(smaller, ticks, everything)

    shortlist = smaller.shortlist(queries, items)
    real = shortlist.item_idx > 0
    assert np.array_equal(selected.data.item_idx, shortlist.item_idx[real])
    assert np.array_equal(selected.found_by, shortlist.found_by()[real])
    asked = smaller.features(queries, items, shortlist)[real]
    np.testing.assert_allclose(selected.data.x, asked, rtol=1e-5, atol=1e-6)


def test_rankers_are_trained_where_the_run_says():
    """Rankers get the device, the seed and the threads of all parallel trainings."""
    train = {"sources": [], "rankers": [], "parallel": 3, "threads": 2, "device": "cuda"}
    config = {"name": "x", "seed": 5, "data": {"source": "movielens-100k"}, "train": train}
    options = ranker_options(RunConfig.model_validate(config))
    assert options == TrainingOptions(device="cuda", seed=5, num_threads=6)
