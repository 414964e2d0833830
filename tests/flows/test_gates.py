"""Gates: non-inferiority to the champion, the loss budget, and comparison of refit and backtest."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortlist.config import load_toml
from shortlist.releases.gates import GatesConfig, judge_gates
from shortlist.releases.quality_gates import judge_quality
from shortlist.releases.release import Release

CONFIG = GatesConfig(
    margin=0.01, loss_budget=0.012, min_users=20, min_coverage=0.2, min_index_recall=0.95
)
# nDCG@10, challenger minus champion: mean, and half the width of its confidence interval
MEAN, HALF = 0.002, 0.008
REFIT = {
    "overlap@10": 0.4,
    "coverage@10": 0.28,
    "backtest_coverage@10": 0.3,
    "scores": {"ease": {"mean_shift": 0.2, "std_ratio": 1.1}},
}


def difference(mean: float, half: float, users: int) -> dict[str, dict[str, float]]:
    return {"ndcg@10": {"mean": mean, "low": mean - half, "high": mean + half, "users": users}}


def about(
    *,
    mean: float = MEAN,
    half: float = HALF,
    users: int = 200,
    against: str = "champion",
    compared_with: str | None = "champion-id",
    coverage: float = 0.5,
    index_recall: float = 0.99,
    refit: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "metrics": {"chain": {"ndcg@10": {"mean": 0.30}, "coverage@10": {"mean": coverage}}},
        "chain_ahead": {against: difference(mean, half, users)},
        "champion": {
            "release_id": compared_with,
            "status": "compared" if compared_with else "none",
            "reason": "no release serves yet",
        },
        "sources": {"ease": "ease", "two_tower": "two_tower"},
        "source_figures": {
            "ease": {"seconds": 1.0},
            "two_tower": {"index": "exact", "index_recall@100": 0.99},
            "content": {"index": "exact", "index_recall@100": 0.5},
        },
        "refit": REFIT | {"index_recall@100": {"two_tower": index_recall}} | (refit or {}),
    }


def valued(
    content: dict[str, Any],
    *,
    mean: float,
    half: float = 0.002,
    users: int = 200,
    of_opponent: tuple[float, float] = (0.1, 0.02),
) -> dict[str, Any]:
    """Return the content with value@10: that of the opponent is 0.1 ± 0.02, if not given."""
    ((opponent, leads),) = content["chain_ahead"].items()
    lead = {"mean": mean, "low": mean - half, "high": mean + half, "users": users}
    center, around = of_opponent
    value = {"mean": center, "low": center - around, "high": center + around}
    metrics = content["metrics"] | {opponent: {"value@10": value}}
    return content | {
        "metrics": metrics,
        "chain_ahead": {opponent: leads | {"value@10": lead}},
    }


def judged(content: dict[str, Any], *, spent: float = 0.0, config: GatesConfig = CONFIG):
    release = Release("challenger-id", path=None, about=content, files={})  # pyright: ignore
    history = {} if content["champion"]["release_id"] is None else {"champion-id": spent}
    return judge_gates(release, config, history=history)


def failed(content: dict[str, Any], **parameters: Any) -> list[str]:
    return [gate.name for gate in judged(content, **parameters).gates if not gate.passed]


def test_every_gate_passes():
    assert failed(about()) == []
    assert failed(about(against="recent_popularity", compared_with=None)) == []


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"mean": -0.001, "half": 0.0091}, "quality"),  # low end -0.0101, the margin is 0.01
        ({"mean": 0.02, "half": 0.031}, "quality"),  # better, but the low end -0.011 is below -0.01
        ({"users": 19}, "quality"),
        ({"coverage": 0.19}, "coverage"),
        ({"index_recall": 0.94}, "index recall of two_tower"),
    ],
)
def test_one_gate_fails_and_gives_both_figures(change, gate):
    verdicts = [verdict for verdict in judged(about(**change)).gates if not verdict.passed]
    assert [verdict.name for verdict in verdicts] == [gate]
    figure, floor = verdicts[0].figure, verdicts[0].floor
    assert figure is not None
    assert floor is not None
    assert figure < floor


def test_quality_is_the_low_end_of_the_interval_and_not_the_point():
    assert failed(about(mean=-0.004, half=0.005)) == []  # low end -0.009
    assert failed(about(mean=+0.004, half=0.015)) == ["quality"]  # low end -0.011


def test_few_users_can_still_promote_a_clearly_better_challenger():
    assert failed(about(mean=0.06, half=0.05, users=30)) == []
    gate = next(g for g in judged(about(mean=0.01, half=0.05, users=30)).gates if not g.passed)
    assert "too wide to rule out a loss" in gate.reason


@pytest.mark.parametrize(
    ("mode", "advice"),
    [
        ("full", "run `shortlist evaluate` and `shortlist package` again"),
        ("incremental", "start a new incremental run: `shortlist run CONFIG --incremental`"),
    ],
)
def test_a_comparison_with_a_release_that_no_longer_serves_says_nothing(mode, advice):
    content = about(compared_with="the release before") | {"training": {"mode": mode}}
    verdict = judge_gates(
        Release("challenger-id", path=None, about=content, files={}),  # pyright: ignore
        CONFIG,
        history={"the release before": 0.0, "champion-id": 0.0},
    )
    gate = next(gate for gate in verdict.gates if not gate.passed)
    assert gate.name == "quality"
    assert "compared with the release before, but champion-id serves now" in gate.reason
    assert gate.reason.endswith(advice)


def test_a_release_of_an_earlier_version_has_no_comparison():
    content = about()
    del content["champion"]
    gates, _ = judge_quality(content, CONFIG, serving=None, spent=0.0)
    assert not gates[0].passed
    assert "train a new one" in gates[0].reason


def test_a_release_that_served_before_needs_no_new_comparison():
    content = about(mean=-1.0)
    release = Release("old-id", path=None, about=content, files={})  # pyright: ignore
    verdict = judge_gates(release, CONFIG, history={"old-id": 0.003, "champion-id": 0.01})
    assert verdict.passed
    assert verdict.spent == 0.003  # as spent when it was the champion


@pytest.mark.parametrize(("coverage", "passed"), [(0.06, True), (0.04, False)])
def test_few_users_cannot_be_shown_much_of_a_large_catalogue(coverage, passed):
    content = about(coverage=coverage) | {"reachable_coverage": 0.1}  # the gate wants half of it
    gate = next(gate for gate in judged(content).gates if gate.name == "coverage")
    assert (gate.passed, gate.floor) == (passed, 0.05)
    assert "floor 0.05 (0.5 of the 0.100" in gate.reason


def test_thirty_nights_of_small_losses_stop_at_the_budget():
    spent, lost, promoted = 0.0, 0.0, 0
    for _ in range(30):
        verdict = judged(about(mean=-0.004, half=0.001), spent=spent)  # each within the margin
        if verdict.passed:
            spent, lost, promoted = verdict.spent, lost + 0.004, promoted + 1
    assert promoted == 3  # 3 x 0.004 = the budget of 0.012
    assert lost <= CONFIG.loss_budget + 1e-12
    assert failed(about(mean=-0.004, half=0.001), spent=spent) == ["loss budget"]
    assert failed(about(mean=0.0, half=0.001), spent=spent) == []  # no loss is always affordable


def test_a_gain_pays_back_what_was_spent_and_no_more():
    assert judged(about(mean=0.005), spent=0.008).spent == pytest.approx(0.003)
    assert judged(about(mean=0.05), spent=0.008).spent == 0


@given(
    st.lists(
        st.one_of(st.none(), st.tuples(st.floats(-0.03, 0.03), st.floats(0.0, 0.02))), max_size=40
    )
)
def test_no_series_of_promotions_and_rollbacks_loses_more_than_the_budget(nights):
    """The champion is never worse than an earlier one by more than the loss budget.

    A night is None for a rollback, or else the mean and half the width of the interval of a
    challenger's difference to the champion.
    """
    history, quality = {"first": 0.0}, {"first": 0.3}
    for night, challenger in enumerate(nights):
        champion = next(reversed(history))
        if challenger is None:
            if len(history) > 1:
                del history[champion]
        else:
            mean, half = challenger
            content = about(mean=mean, half=half, compared_with=champion)
            release = Release(f"night {night}", None, content, {})  # pyright: ignore
            verdict = judge_gates(release, CONFIG, history=history)
            if verdict.passed:
                history[release.release_id] = verdict.spent
                quality[release.release_id] = quality[champion] + mean
        now = quality[next(reversed(history))]
        assert now >= max(quality[id_] for id_ in history) - CONFIG.loss_budget - 1e-9


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({}, None),
        ({"overlap@10": 0.05}, "sanity: overlap"),
        ({"coverage@10": 0.2}, "sanity: coverage"),  # the floor is 0.7 * 0.3 = 0.21
        ({"scores": {"ease": {"mean_shift": -1.1, "std_ratio": 1}}}, "sanity: scores of ease"),
        ({"scores": {"ease": {"mean_shift": 0, "std_ratio": 2.1}}}, "sanity: scores of ease"),
        ({"scores": {"ease": {"mean_shift": 0, "std_ratio": 0.4}}}, "sanity: scores of ease"),
        (
            {"scores": {"ease": {"mean_shift": 0, "std_ratio": float("nan")}}},
            "sanity: scores of ease",
        ),
        ({"index_recall@100": {"two_tower": 0.5}}, "index recall of two_tower"),
        ({"index_recall@100": {}}, None),  # falls back to the recall of the first fit, 0.99
    ],
)
def test_a_refit_that_differs_too_much_from_the_backtest_is_stopped(change, gate):
    assert failed(about(refit=change)) == ([] if gate is None else [gate])


def test_without_figures_of_a_refit_only_a_release_that_served_before_passes():
    content = about()
    del content["refit"]
    assert failed(content) == ["sanity"]
    release = Release("old-id", path=None, about=content, files={})  # pyright: ignore
    assert judge_gates(release, CONFIG, history={"old-id": 0.0, "champion-id": 0.0}).passed


def test_only_indexes_of_the_release_are_judged():
    names = {gate.name for gate in judged(about()).gates}
    assert "index recall of two_tower" in names
    assert "index recall of content" not in names  # was tried, but isn't in the release


def with_status(content: dict[str, Any], status: str, reason: str = "") -> dict[str, Any]:
    champion = content["champion"] | {"status": status, "reason": reason}
    return content | {"champion": champion}


def test_an_unchanged_recipe_passes_without_comparison_and_spends_nothing():
    content = with_status(about(), "unchanged", "the recipe is that of release champion-id")
    content["chain_ahead"] = {"recent_popularity": difference(-1.0, 0.01, 100)}
    verdict = judged(content, spent=0.004)
    assert verdict.passed
    assert verdict.spent == 0.004
    assert "the recipe is that of" in next(g.reason for g in verdict.gates if g.name == "quality")
    assert failed(with_status(about(coverage=0.0), "unchanged")) == ["coverage"]


@pytest.mark.parametrize(("mean", "passed"), [(0.2, True), (-0.2, False)])
def test_if_the_champion_cannot_be_fitted_recent_popularity_is_the_opponent(mean, passed):
    content = about(against="recent_popularity", mean=mean)
    verdict = judged(with_status(content, "untrainable", "source 'old' is unknown"), spent=0.004)
    gate = next(gate for gate in verdict.gates if gate.name == "quality")
    assert gate.passed == passed
    assert "against recent_popularity" in gate.reason
    assert "source 'old' is unknown" in gate.reason
    assert verdict.spent == 0.012  # all of the budget: the loss against the champion is unknown


def test_the_shipped_gates_are_readable_and_promise_what_the_code_does():
    assert load_toml("configs/gates.toml", GatesConfig) == GatesConfig()


@pytest.mark.parametrize("against", ["champion", "recent_popularity"])
def test_a_challenger_that_loses_value_is_refused(against):
    champion = "champion-id" if against == "champion" else None
    content = about(mean=0.05, against=against, compared_with=champion)  # it gains nDCG
    budget = ["loss budget"] if champion else []
    assert failed(valued(content, mean=-0.02)) == [*budget, "value"]  # low end -.022, margin .01
    assert failed(valued(content, mean=-0.02), config=trade(0.5)) == [*budget, "value"]
    assert failed(valued(content, mean=-0.007)) == []  # low end -.009
    gate = next(g for g in judged(valued(content, mean=0.0, half=0.02)).gates if not g.passed)
    assert gate.name == "value"
    assert "too wide to rule out a loss" in gate.reason
    assert failed(valued(content, mean=0.02, users=19)) == ["value"]


def test_thirty_nights_of_small_losses_of_value_stop_at_the_budget():
    """A loss of .004 is 4% of the value; `value_margin` of 10% counts as `margin`, .01 nDCG."""
    spent, promoted = 0.0, 0
    for _ in range(30):
        content = valued(about(mean=0.01, half=0.001), mean=-0.004)
        verdict = judged(content, spent=spent)
        if verdict.passed:
            spent, promoted = verdict.spent, promoted + 1
    assert promoted == 3  # 3 x .004 = the budget of .012
    assert failed(content, spent=spent) == ["loss budget"]


def test_a_value_that_may_be_zero_has_a_margin_of_its_noise():
    content = about(mean=0.01, half=0.001)
    # The opponent's value is .002 ± .03, so the margin is 10% of .032.
    gate = next(
        gate
        for gate in judged(valued(content, mean=0.0, of_opponent=(0.002, 0.03))).gates
        if gate.name == "value"
    )
    assert gate.floor == pytest.approx(-0.0032)
    assert gate.passed


def test_a_release_with_value_but_without_its_comparison_is_refused():
    content = about()
    content["metrics"] = content["metrics"] | {
        "chain": content["metrics"]["chain"] | {"value@10": {"mean": 0.1}}
    }
    assert failed(content) == ["value"]


def test_an_unknown_loss_does_not_give_back_what_was_traded():
    content = with_status(about(against="recent_popularity", mean=0.2), "untrainable")
    assert judged(content, spent=0.04).spent == 0.04


def trade(ndcg_for_value: float) -> GatesConfig:
    return CONFIG.model_copy(update={"ndcg_for_value": ndcg_for_value})


def test_a_declared_trade_of_ndcg_for_value_passes():
    content = about(mean=-0.03, half=0.01)  # low end -.04
    gains = valued(content, mean=0.02)
    assert failed(gains) == ["quality", "loss budget"]
    assert failed(gains, config=trade(0.03)) == []
    assert "ndcg_for_value = 0.03, because value@10 rises by 0.0200" in next(
        gate.reason for gate in judged(gains, config=trade(0.03)).gates if gate.name == "quality"
    )
    assert failed(gains, config=trade(0.025)) == ["quality"]  # low end -.04, the floor is -.035
    # Without a gain beyond chance, or without [value], nothing may be lost for it.
    chance = valued(content, mean=0.002, half=0.003)
    for content in (chance, about(mean=-0.03, half=0.01)):
        assert failed(content, config=trade(0.03)) == ["quality", "loss budget"]


def test_all_trades_together_lose_at_most_what_is_declared():
    spent, lost, config = 0.0, 0.0, trade(0.03)
    for _ in range(30):
        content = valued(about(mean=-0.01, half=0.001), mean=0.02)
        verdict = judged(content, spent=spent, config=config)
        if verdict.passed:
            spent, lost = verdict.spent, lost + 0.01
    assert lost == pytest.approx(0.04)  # <= loss budget .012 + .03
    # What was lost for value leaves nothing for losses without a gain in value.
    plain = valued(about(mean=-0.001, half=0.001), mean=0.0)
    assert failed(plain, spent=spent, config=config) == ["loss budget"]


def test_a_release_without_value_has_no_gate_for_it():
    assert "value" not in {gate.name for gate in judged(about()).gates}


def off_policy(*, low: float = -0.05, refused: str | None = None, explored: int = 900) -> dict:
    lead = {"dr": {"mean": low + 0.05, "low": low, "high": low + 0.1, "users": 90}}
    found = {"outcome": "taken", "explored": explored, "lists": 1_000, "refused": refused}
    return found if refused else found | {"against": "champion", "base": 0.8, "lead": lead}


def off_policy_gates(found: dict | None, *, status: str = "compared", **config: Any):
    content = about() | {"off_policy": found}
    content["champion"] = dict(content["champion"] or {}) | {"status": status}
    verdict = judged(content, config=CONFIG.model_copy(update=config))
    return [gate for gate in verdict.gates if gate.name == "off-policy"]


def test_the_off_policy_gate_allows_a_tenth_of_the_champions_outcomes():
    (gate,) = off_policy_gates(off_policy(low=-0.079))
    assert gate.passed
    assert "-0.0290 [-0.0790, +0.0210] against the champion (0.8000)" in gate.reason
    (gate,) = off_policy_gates(off_policy(low=-0.081))
    assert not gate.passed


def test_without_exploration_there_is_no_off_policy_gate_unless_it_is_required():
    nothing = off_policy(refused="none of 70 lists has random positions", explored=0)
    assert off_policy_gates(nothing) == off_policy_gates(None) == []
    for found, reason in ((nothing, "none of 70 lists"), (None, "no off-policy estimate")):
        (gate,) = off_policy_gates(found, off_policy="required")
        assert not gate.passed
        assert reason in gate.reason


def test_explored_lists_that_are_too_young_are_not_passed_over_in_silence():
    young = off_policy(refused="all 4,000 lists are younger", explored=0) | {"open": 4_000}
    (gate,) = off_policy_gates(young)
    assert gate.passed
    assert gate.reason == "not judged: all 4,000 lists are younger"
    (gate,) = off_policy_gates(young, off_policy="required")
    assert not gate.passed


def test_an_estimate_without_support_is_never_a_silent_pass():
    refused = off_policy(refused="challenger: only 40% could have been shown")
    (gate,) = off_policy_gates(refused)
    assert gate.passed
    assert gate.reason.startswith("not judged: challenger: only 40%")
    (gate,) = off_policy_gates(refused, off_policy="required")
    assert not gate.passed
    assert off_policy_gates(refused, off_policy="off") == []


def test_an_unchanged_recipe_passes_the_off_policy_gate():
    (gate,) = off_policy_gates(off_policy(low=-0.7), status="unchanged", off_policy="required")
    assert gate.passed
