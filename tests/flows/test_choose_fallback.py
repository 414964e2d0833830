"""The choice, on validation, of the requests that recent popularity answers."""

import pytest

from flows.training.choose_fallback import FEW_USERS, decided

USERS = [f"u{number}" for number in range(40)]
WORSE, BETTER = ([0.1] * 40, [0.2] * 40), ([0.2] * 40, [0.1] * 40)
EVEN = ([0.1, 0.3] * 20, [0.2] * 40)
NOBODY = ([], [], [])


def group(values):
    return (USERS, *values)


@pytest.mark.parametrize(
    ("groups", "min_history"),
    [
        ([group(BETTER), group(WORSE), NOBODY, NOBODY], 0),  # better without a history: no fallback
        ([group(EVEN), group(EVEN), NOBODY, NOBODY], 1),  # no evidence for the ranker
        ([NOBODY, NOBODY, NOBODY, NOBODY], 1),
        ([group(WORSE), group(WORSE), group(BETTER), NOBODY], 2),
        ([group(WORSE), group(WORSE), group(WORSE), group(WORSE)], 5),
    ],
)
def test_popularity_answers_until_the_chain_is_good_enough(groups, min_history):
    assert decided(groups).min_history == min_history


def test_a_group_of_few_users_is_no_evidence_and_is_said_so():
    few = (USERS[: FEW_USERS - 1], [0.9] * (FEW_USERS - 1), [0.1] * (FEW_USERS - 1))
    choice = decided([few, few, few, few])
    assert choice.min_history == 1
    assert choice.figures[0]["chain"] is None
    assert choice.verdict == "recent_popularity answers requests with fewer than 1 events"
