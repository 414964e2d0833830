"""Stages of a request: failed ones are skipped and named, repeatedly bad ones are switched off."""

import numpy as np
import pytest

from models.recommend.recommender import Recommender
from models.recommend.stages import IN_A_ROW, OFF_SECONDS, StageHealth, Stages, strictly
from shortlist.http.api import Filters, RecommendRequest
from tests.models.recommenders import AT, fitted, recommender_of


class Clock:
    """A clock whose time the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def broken() -> str:
    raise OSError("the disk is gone")


def test_a_stage_that_fails_is_replaced_named_and_timed() -> None:
    clock = Clock()
    run = Stages(StageHealth(), clock=clock)

    def work() -> str:
        clock.now += 0.25
        return "done"

    assert run("a", work, "otherwise") == "done"
    assert run("b", broken, "otherwise") == "otherwise"
    assert run("b", broken, "otherwise") == "otherwise"
    assert run.skipped == ["b"]
    assert run.seconds == {"a": 0.25, "b": 0.0}


def test_without_protection_an_error_is_an_error() -> None:
    assert strictly("a", lambda: 3, 0) == 3
    with pytest.raises(OSError, match="the disk is gone"):
        strictly("a", broken, "otherwise")


def test_no_stage_starts_when_the_budget_is_used_up() -> None:
    clock = Clock()
    run = Stages(StageHealth(), budget=0.1, clock=clock)
    assert run("a", lambda: 1, 0) == 1
    clock.now = 0.1
    assert run("b", lambda: 1, 0) == 0
    assert run.skipped == ["b"]


def test_a_stage_that_fails_again_and_again_is_off_and_tried_again_by_one_request() -> None:
    clock = Clock()
    health = StageHealth(clock=clock)

    def ask(work) -> Stages:
        run = Stages(health)
        run("a", work, None)
        run.finish()
        return run

    for _ in range(IN_A_ROW - 1):
        ask(broken)
    assert ask(lambda: 1).skipped == []  # a good run resets the count
    for _ in range(IN_A_ROW):
        assert health.off == []
        ask(broken)
    assert health.off == ["a"]
    assert ask(pytest.fail).skipped == ["a"]  # the stage isn't called
    clock.now += OFF_SECONDS
    assert ask(broken).seconds == {"a": pytest.approx(0, abs=1)}  # one request tries it
    assert ask(pytest.fail).skipped == ["a"]
    clock.now += OFF_SECONDS
    assert ask(lambda: 1).skipped == []
    assert health.off == []
    assert ask(lambda: 1).skipped == []


def test_a_slow_stage_keeps_its_result_and_is_off_after_a_few_times() -> None:
    clock = Clock()
    health = StageHealth(clock=Clock())

    def slow() -> int:
        clock.now += 0.6
        return 1

    for _ in range(IN_A_ROW):
        run = Stages(health, budget=1.0, clock=clock)
        assert run("a", slow, 0) == 1
        run.finish()
    assert health.off == ["a"]


def test_a_stage_that_runs_twice_a_request_is_bad_if_it_failed_once() -> None:
    """A good run must not hide a failed one of the same request, in either order."""
    for runs in ((broken, lambda: "good"), (lambda: "good", broken)):
        health = StageHealth(clock=Clock())
        for _ in range(IN_A_ROW):
            assert health.off == []
            request = Stages(health)
            for work in runs:
                request("a", work, "otherwise")
            request.finish()
        assert health.off == ["a"]


@pytest.fixture(scope="module")
def models(checkerboard):
    data, validation = checkerboard
    names = ("popularity", "item_knn", "ease")
    return data.catalogue, fitted(names, data, validation)


class Broken:
    """A source whose methods raise."""

    name = "ease"

    def retrieve(self, queries, items, *, k):
        raise RuntimeError("no memory")

    def score(self, queries, items, candidates):
        raise RuntimeError("no memory")


def ask(recommender: Recommender, **request):
    asked = {"recent_items": ["i002", "i004", "i006"], "k": 10} | request
    return recommender.recommend(RecommendRequest(**asked), at=AT)


def test_a_source_that_raises_is_left_out_and_the_others_answer(models) -> None:
    catalogue, fitted = models
    recommender = recommender_of((catalogue, fitted | {"ease": Broken()}), "item_knn", "ease")
    slate = ask(recommender)
    assert slate.skipped_stages == ["ease", "ease_scores"]
    assert len(slate.items) == 10
    without = recommender_of(models, "item_knn")
    assert [item.item_id for item in slate.items] == [i.item_id for i in ask(without).items]


def test_if_all_sources_raise_the_list_is_what_is_popular(models) -> None:
    catalogue, _ = models
    recommender = recommender_of((catalogue, {"ease": Broken()}), "ease")
    slate = ask(recommender)
    assert {item.source for item in slate.items} == {"fill"}
    assert len(slate.items) == 10
    assert not {"i002", "i004", "i006"} & {item.item_id for item in slate.items}


def test_a_ranker_that_raises_leaves_the_order_to_the_sources(models, monkeypatch) -> None:
    recommender = recommender_of(models, "item_knn", "ease")
    expected = [item.item_id for item in ask(recommender).items]  # this recommender has no ranker
    for stage, method in (("ranker", "scores"), ("ranking_features", "features")):
        with monkeypatch.context() as patch:
            patch.setattr(recommender.chain, method, broken_method)
            slate = ask(recommender)
        assert [item.item_id for item in slate.items] == expected
        assert slate.skipped_stages == [stage]


def broken_method(*_, **__):
    raise RuntimeError("no memory")


def test_a_request_without_time_gets_what_is_popular(models) -> None:
    recommender = recommender_of(models, "item_knn", "ease")
    recommender.budget = 0.0
    slate = ask(recommender)
    assert len(slate.items) == 10
    assert slate.skipped_stages == [
        *("features", "item_knn", "ease", "item_knn_scores", "ease_scores"),
        *("ranking_features", "explain"),
    ]


@pytest.mark.parametrize("names", [("item_knn",), ("ease", "popularity")])
def test_lists_have_k_items_whenever_k_may_be_shown(models, names) -> None:
    """If the sources find too few of the allowed items, popular items fill the list."""
    catalogue, _ = models
    recommender = recommender_of(models, *names)
    rng = np.random.default_rng(0)
    for num_allowed in (0, 1, 3, 10, 25):
        kept = set(rng.choice(catalogue.vocab.ids, size=num_allowed, replace=False).tolist())
        excluded = [name for name in catalogue.vocab.ids if name not in kept]
        slate = ask(recommender, exclude=excluded, recent_items=[], k=10)
        shown = [item.item_id for item in slate.items]
        assert len(shown) == len(set(shown)) == min(10, num_allowed)
        assert set(shown) <= kept


def test_fill_is_named_as_the_source_only_where_no_other_found_the_item(models) -> None:
    slate = ask(recommender_of(models, "item_knn"), filters=Filters(), k=20)
    sources = [item.sources for item in slate.items]
    assert ["item_knn"] in sources
    assert all(found in (["item_knn"], ["fill"]) for found in sources)
    first = sources.index(["fill"]) if ["fill"] in sources else len(sources)
    assert ["item_knn"] not in sources[first:]


def test_a_stage_that_was_switched_off_is_never_tried():
    health = StageHealth()
    health.switched_off = frozenset({"ease"})
    stages = Stages(health)
    assert stages("ease", lambda: 1, 0) == 0
    assert stages("content", lambda: 1, 0) == 1
    assert (stages.skipped, health.off) == (["ease"], ["ease"])
