"""Figures of the sanity gate, which compare a refit with the backtest."""

import numpy as np
import pytest

from flows.evaluation.sanity import NEWEST_REQUESTS, compare_refit, jaccard, newest
from flows.training.assemble import EvaluationBatch
from models.baselines.ease import Ease, EaseConfig, fit_ease
from models.baselines.popularity import Popularity
from models.recommend.chain import Chain, ChainConfig
from models.training import TrainingOptions
from shortlist.features.profiles import ProfileEncoder
from tests.models.conftest import make_checkerboard

DATA, VALIDATION = make_checkerboard()
QUERIES, ITEMS, RELEVANT = VALIDATION.ticks[0]
TICK = EvaluationBatch(QUERIES, ITEMS, RELEVANT, RELEVANT, [""] * len(RELEVANT))


def chain(*, scale: float = 1, shift: float = 0) -> Chain:
    """Return a chain without ranker whose EASE scores are scaled and shifted."""
    fitted = fit_ease(EaseConfig(), DATA, VALIDATION, TrainingOptions())
    weights = fitted.weights * np.float32(scale)
    ease = Ease(weights, decay=fitted.decay, chosen=fitted.chosen)
    own = ease.scores
    ease.scores = lambda queries: own(queries) + np.float32(shift)
    names = ("ease", "recent_popularity")
    return Chain(
        ChainConfig(candidate_sources=names, score_sources=names, candidates_per_source=12),
        sources={"ease": ease, "recent_popularity": Popularity("recent_popularity", days=7)},
        ranker=None,
        catalogue=DATA.catalogue,
        profiles=ProfileEncoder(("group",), (("a",),)),
    )


def test_the_same_models_differ_in_nothing():
    figures = compare_refit(chain(), chain(), [TICK])
    assert figures["overlap@10"] == 1
    assert figures["coverage@10"] == figures["backtest_coverage@10"] > 0
    for moved in figures["scores"].values():
        assert moved == {"mean_shift": pytest.approx(0), "std_ratio": pytest.approx(1)}


def test_moved_scores_show():
    """Scaled and shifted scores appear in `std_ratio` and `mean_shift` of their source."""
    scores = compare_refit(chain(scale=3), chain(), [TICK])["scores"]
    assert scores["ease"]["std_ratio"] == pytest.approx(3, rel=1e-4)
    assert scores["recent_popularity"]["std_ratio"] == pytest.approx(1)
    assert compare_refit(chain(shift=5), chain(), [TICK])["scores"]["ease"]["mean_shift"] > 1


def test_overlap_is_of_sets():
    """Overlap is the Jaccard index: the order of items has no effect."""
    assert jaccard(np.array([1, 2, 3]), np.array([3, 2, 9])) == 0.5
    assert jaccard(np.array([], dtype=int), np.array([], dtype=int)) == 1


def test_the_newest_ticks_are_taken_until_they_are_enough():
    """The comparison uses the newest ticks with at least NEWEST_REQUESTS requests."""
    many = [TICK] * (2 * NEWEST_REQUESTS // len(QUERIES) + 2)
    taken = newest(many)
    assert NEWEST_REQUESTS <= sum(len(t.queries) for t in taken) < NEWEST_REQUESTS + len(QUERIES)
    assert newest([TICK]) == [TICK]
