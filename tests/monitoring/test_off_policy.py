"""Off-policy estimates, compared with hand arithmetic and with exact values of a small world."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.off_policy.chances import LoggedLists
from monitoring.off_policy.compare import compare_off_policy
from monitoring.off_policy.estimate import METHODS, OffPolicy
from monitoring.off_policy.served import Served, delays_of, served_lists
from monitoring.off_policy.support import problem_of_policy
from monitoring.traffic.join import DAY, HOUR, join_outcomes
from tests.examples import examples
from tests.monitoring.conftest import event_table
from tests.monitoring.test_traffic import SHARED, START, tables

ATTENTION = np.array([1.0, 0.5])


def lists(items, propensity, *, reward=None, is_random=None, user=None) -> LoggedLists:
    items = np.array(items)
    nothing = np.zeros(items.shape)
    return LoggedLists(
        user=np.arange(len(items)) if user is None else np.array(user),
        item_idx=items,
        reward=nothing if reward is None else np.array(reward, dtype=float),
        propensity=np.array(propensity, dtype=float),
        is_random=nothing > 0 if is_random is None else np.array(is_random, dtype=bool),
    )


@pytest.fixture
def single() -> OffPolicy:
    """Four lists of one item: item 1 was shown with probability 1/2, item 2 with 1/4."""
    logged = lists(
        [[1], [2], [1], [2]],
        [[0.5], [0.25], [0.5], [0.25]],
        reward=[[1], [1], [0], [0]],
        is_random=np.ones((4, 1)),
    )
    return OffPolicy(logged, num_items=2)


def test_lists_of_one_item_by_hand(single):
    """With one position, attention cancels; predictions of the other fold are 1 * attention 1/2."""
    first, second = (single.judge(np.full((4, 1), item)).estimates for item in (1, 2))
    assert first["ips"].value == pytest.approx((1 / 0.5) / 4)
    assert second["ips"].value == pytest.approx((1 / 0.25) / 4)
    assert first["snips"].value == pytest.approx(2 / (2 + 2))
    assert second["snips"].value == pytest.approx(4 / (4 + 4))
    assert second["dr"].value == pytest.approx(0.5 + (4 * (1 - 0.5) + 4 * (0 - 0.5)) / 4)
    # Values of the lists are 2, 0, 0, 0: standard deviation 1, over four users.
    assert first["ips"].error == pytest.approx(1.0 / 2)


def test_the_effective_number_of_lists_and_the_support_by_hand(single):
    value = single.judge(np.array([[1], [1], [2], [2]]))
    # Weights: 2 for list 0, 4 for list 3; lists 1 and 2 showed another item.
    assert value.matched == 2
    assert value.effective == pytest.approx((2 + 4) ** 2 / (4 + 16))
    assert value.support.value == pytest.approx((2 + 4) / 4)


def test_epsilon_greedy_by_hand():
    """Position 2 shows item 9, drawn from 20 allowed items with share 0.1."""
    logged = lists([[1, 9, 3]], [[0.9, 0.1 / 20, 0.9]], is_random=[[False, True, False]])
    assert logged.is_epsilon.all()
    assert logged.is_usable.all()
    (chances,) = next(logged.position_chances(seed=0))
    anywhere = 0.1 / 20
    assert chances == pytest.approx(
        np.array([[0.9, 0, 0], [anywhere, anywhere, anywhere], [0, 0, 0.9]])
    )
    assert logged.randomised().tolist() == [[0, 1, 0]]


def test_the_second_random_item_of_a_list_has_the_same_chance_as_the_first():
    """Its propensity is higher, because the first one can't be drawn again."""
    logged = lists([[8, 9]], [[0.2 / 10, 0.2 / 9]], is_random=[[True, True]])
    others = lists([[1, 2]], [[0.8, 0.8]])
    both = LoggedLists(
        **{name: np.concatenate([v, vars(others)[name]]) for name, v in vars(logged).items()}
    )
    chances = next(both.position_chances(seed=0))[0]
    assert chances == pytest.approx(np.full((2, 2), 0.2 / 10))


def orders(weight: np.ndarray, k: int) -> list[tuple[tuple[int, ...], float, list[float]]]:
    """Return each list of k items under Plackett-Luce, its probability and its propensities."""
    out = []
    for order in itertools.permutations(range(len(weight)), k):
        left, steps = weight.sum(), []
        for item in order:
            steps.append(weight[item] / left)
            left -= weight[item]
        out.append((order, float(np.prod(steps)), steps))
    return out


@settings(deadline=None, max_examples=examples(25))
@given(st.lists(st.floats(0.2, 2.0), min_size=4, max_size=5), st.integers(0, 10_000))
def test_softmax_weights_are_unbiased(weights, seed):
    """Over all lists, weighted by their probability, estimates equal the exact value."""
    rng = np.random.default_rng(seed)
    weight, value = np.array(weights), rng.uniform(0.1, 1, size=len(weights))
    every = orders(weight / weight.sum(), 2)
    copies = 100  # the arrival times are random, so each list is repeated
    items = np.repeat(np.array([order for order, *_ in every]), copies, axis=0)
    reward = ATTENTION * value[items]
    logged = lists(
        items + 1, np.repeat([steps for *_, steps in every], copies, axis=0), reward=reward
    )
    if logged.is_epsilon.any():  # equal propensities, as in a list by epsilon-greedy
        return
    share = np.repeat([chance for _, chance, _ in every], copies) / copies
    placed = share @ (reward * logged.randomised())
    assert placed[1] / placed[0] == pytest.approx(0.5)
    inverse = np.mean([1 / (c @ ATTENTION) for c in logged.position_chances(seed=1)], axis=0)
    wanted = np.array([2, 0])  # item 2 first, then item 0
    expected = ATTENTION @ value[wanted]
    found = [(items == item) * inverse * reward for item in wanted]
    estimate = share @ (ATTENTION @ np.stack(found, axis=1)).sum(axis=1)
    assert estimate == pytest.approx(expected, rel=0.03)


def simulated(rng: np.random.Generator, *, users: int) -> tuple[LoggedLists, np.ndarray]:
    """Log lists of two of five items by softmax; return them and the items' true values."""
    weight = np.array([0.4, 0.25, 0.2, 0.1, 0.05])
    value = np.array([0.2, 0.5, 0.3, 0.6, 0.4])
    clock = rng.exponential(size=(users, 5)) / weight
    order = np.argsort(clock, axis=1)[:, :2]
    drawn = weight[order]
    left = np.stack([np.ones(users), 1 - drawn[:, 0]], axis=1)
    reward = rng.random(order.shape) < ATTENTION * value[order]
    return lists(order + 1, drawn / left, reward=reward), value


def test_intervals_hold_the_truth():
    rng, held = np.random.default_rng(0), []
    for _ in range(60):
        logged, value = simulated(rng, users=800)
        judge = OffPolicy(logged, num_items=5, seed=1)
        for wanted in ([4, 2], [2, 5]):
            truth = ATTENTION @ value[np.array(wanted) - 1]
            found = judge.judge(np.tile(wanted, (800, 1)))
            held += [[e.low <= truth <= e.high for e in found.estimates.values()]]
    coverage = np.mean(held, axis=0)
    assert ((coverage > 0.88) & (coverage <= 1)).all(), dict(zip(METHODS, coverage, strict=True))


def test_a_policy_equal_to_another_has_no_lead():
    logged, _ = simulated(np.random.default_rng(1), users=300)
    judge = OffPolicy(logged, num_items=5)
    value = judge.judge(np.tile([1, 2], (300, 1)))
    for method in METHODS:
        lead = judge.difference(value, value, method=method)
        assert (lead.value, lead.error) == (0, 0)


def test_items_that_can_not_be_shown_are_noticed():
    """The support falls below 1; item 6 is not in the pool."""
    logged, _ = simulated(np.random.default_rng(1), users=2_000)
    judge = OffPolicy(logged, num_items=6)
    assert problem_of_policy(judge.judge(np.tile([1, 2], (2_000, 1)))) is None
    reason = problem_of_policy(judge.judge(np.tile([6, 1], (2_000, 1))))
    assert reason is not None
    assert "% of what the lists would show could have been shown" in reason
    assert "[explore]" in reason


def compared(logged: LoggedLists, *, lists: int, **more: float) -> dict:
    served = Served(requests=None, logged=logged, lists=lists, **more)  # pyright: ignore
    wanted = {"challenger": np.tile([2, 3], (len(logged), 1))}
    return compare_off_policy(served, wanted, num_items=5, seed=0)


def test_without_support_the_answer_is_a_refusal_that_says_what_to_do():
    logged, _ = simulated(np.random.default_rng(1), users=2_000)
    nothing = logged.take(np.arange(0))
    assert "no list was served" in compared(nothing, lists=0)["refused"]
    reason = compared(nothing, lists=70)["refused"]
    assert "none of 70 lists has random positions" in reason
    assert "switch exploration on" in reason
    few = compared(logged.take(np.arange(50)), lists=70)
    assert "only 50 of 70 lists have random positions, want 200" in few["refused"]
    young = compared(nothing, lists=70, open=4_000, hours=6.0)
    assert "all 4,000 lists with random positions are younger than 6 hours" in young["refused"]
    assert (young["open"], young["hours"]) == (4_000, 6.0)
    few = compared(logged.take(np.arange(50)), lists=70, open=4_000)
    assert "random positions (4,000 younger ones are open), want 200" in few["refused"]
    without = replace(logged, reward=np.zeros(logged.reward.shape))
    assert "position 1 has 0 outcomes" in compared(without, lists=2_000)["refused"]


def test_a_comparison_with_what_was_shown():
    logged, _ = simulated(np.random.default_rng(1), users=3_000)
    result = compared(logged, lists=3_500)
    assert result["refused"] is None
    assert (result["explored"], result["lists"]) == (3_000, 3_500)
    assert result["against"] == "shown"
    assert result["base"] == pytest.approx(logged.reward.sum(axis=1).mean())
    lead, policy = result["lead"]["dr"], result["policies"]["challenger"]
    assert lead["mean"] == pytest.approx(policy["dr"]["mean"] - result["base"])
    assert policy["refused"] is None
    assert result["attention"][0] == 1
    assert result["attention"][1] == pytest.approx(0.5, abs=0.1)


def test_explored_lists_of_the_traffic():
    """Only whole first pages with known outcomes and random positions are used."""
    explored = {"explored": True}
    requests, shown = tables(
        [
            ("ra", "a", START, ["i1", "i2"], explored),
            ("rb", "b", START + HOUR, ["i3", "i1"], explored),
            ("rc", "a", START + 2 * HOUR, ["i2", "i3"]),
            ("rd", "a", START + 3 * HOUR, ["i2"], explored),
            ("re", "b", START + 4 * HOUR, ["i2", "i3"], explored | {"first_position": 11}),
            ("rf", "b", START + 5 * HOUR, ["i2", "i3"], explored | {"forced": True}),
            ("rg", "b", START + 9 * DAY, ["i2", "i3"], explored),
        ]
    )
    chance = np.full(shown.num_rows, 0.9)
    chance[2:4] = 1.0, 0.7  # rb: its first position was not random
    source = ["ease", "explore", *["ease"] * (shown.num_rows - 2)]
    for name, values in (("propensity", chance), ("source", source)):
        number = shown.schema.get_field_index(name)
        shown = shown.set_column(number, name, [values])
    traffic = join_outcomes(
        requests,
        shown,
        event_table([("a", "i2", START + HOUR, None, "ra", "click")]),
        catalogue=SHARED.catalogue,
        item_counts=SHARED.item_counts,
        target_events=("click",),
        until=START + 10 * DAY,
        list_size=2,
    )
    served = served_lists(traffic, start=START, end=START + 10 * DAY, k=2)
    assert (served.lists, served.open) == (3, 1)  # ra, rb, rc; the outcomes of rg are open
    assert served.requests["request_id"].tolist() == ["ra"]
    assert served.logged.reward[0].tolist() == [0, 1]
    assert served.logged.is_random[0].tolist() == [False, True]


def test_outcomes_of_a_short_window_count_within_half_of_it():
    """The test window of an increment is shorter than 24 hours; its first lists are judged."""
    window = START, START + 12 * HOUR
    assert delays_of(*window).outcome == 6
    assert delays_of(START, START + 30 * DAY).outcome == 24
    assert delays_of(START, START + HOUR).outcome == 1
    explored = {"explored": True}
    requests, shown = tables(
        [
            ("ra", "a", START, ["i1", "i2"], explored),
            ("rb", "b", START + 5 * HOUR, ["i2", "i1"], explored),
            ("rc", "a", START + 7 * HOUR, ["i2", "i3"], explored),
        ]
    )
    number = shown.schema.get_field_index("propensity")
    shown = shown.set_column(number, "propensity", [np.full(shown.num_rows, 0.9)])
    traffic = join_outcomes(
        requests,
        shown,
        event_table(
            [
                ("a", "i1", START + 2 * HOUR, None, "ra", "click"),
                ("b", "i1", START + 11 * HOUR + 1, None, "rb", "click"),  # after the delay
            ]
        ),
        catalogue=SHARED.catalogue,
        item_counts=SHARED.item_counts,
        target_events=("click",),
        until=window[1],
        delays=delays_of(*window),
        list_size=2,
    )
    served = served_lists(traffic, start=window[0], end=window[1], k=2)
    assert (served.lists, served.open, served.hours) == (2, 1, 6)
    assert served.logged.reward.tolist() == [[1, 0], [0, 0]]
