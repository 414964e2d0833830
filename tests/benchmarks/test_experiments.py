"""A/A tests with daily looks: few false positives, and an effect is found."""

import numpy as np

from benchmarks.experiments import one_test


def test_daily_looks_rarely_call_a_difference_that_is_not_there():
    rng = np.random.default_rng(0)
    same = [one_test(rng) for _ in range(40)]
    assert np.mean([one["sequential"] for one in same]) <= 0.1
    assert np.mean([one["one look"] for one in same]) > 0.1
    assert all(one_test(rng, effect=0.5)["sequential"] for _ in range(5))
