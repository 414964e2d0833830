"""Comparison of methods over seeds in `shortlist bench main_job`."""

import tomllib

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.main_job import compare, with_seed


def users(**methods: list[float]) -> pa.Table:
    rows = [
        {"user_id": f"u{i}", "method": name, "ndcg": value}
        for name, values in methods.items()
        for i, value in enumerate(values)
    ]
    return pa.Table.from_pylist(rows)


def test_seeds_are_averaged_per_user_before_users_are_resampled():
    first = users(chain=[0.2, 0.6], without_refit=[0.1, 0.3], ease=[0.1, 0.3], ials=[0.5, 0.0])
    second = users(chain=[0.6, 0.2], without_refit=[0.3, 0.1], ease=[0.5, 0.3], ials=[0.0, 0.3])
    result = compare([first, second])
    assert result["best_baseline"] == "ease"  # mean of ease: 0.3; of ials: 0.2
    chain = result["chain_ndcg@10"]
    # Both users have a mean of 0.4 over seeds, so resampling users has no effect.
    assert (chain["mean"], chain["low"], chain["high"]) == pytest.approx((0.4, 0.4, 0.4))
    assert chain["per_seed"] == pytest.approx([0.4, 0.4])
    lead = result["lead_ndcg@10"]
    assert lead["per_seed"] == pytest.approx([0.2, 0.0])
    assert lead["mean"] == pytest.approx(0.1)
    assert result["without_refit"]["chain_ndcg@10"]["mean"] == pytest.approx(0.2)


def test_the_lead_has_an_interval_over_users():
    values = np.random.default_rng(0).random(200)
    table = users(chain=list(values), without_refit=list(values), ease=[0.4] * 200)
    lead = compare([table])["lead_ndcg@10"]
    error = values.std() / np.sqrt(200)
    assert lead["high"] - lead["low"] == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert lead["mean"] == pytest.approx(values.mean() - 0.4)
    assert lead["low"] < lead["mean"] < lead["high"]


@pytest.mark.parametrize("head", ['name = "x"\nseed = 7 # own\n', 'name = "x"\n'])
def test_only_the_runs_own_seed_is_changed(head):
    text = with_seed(head + "[data]\nsource = 'simulated'\nseed = 5\n", 2)
    assert tomllib.loads(text) == {
        "name": "x",
        "seed": 2,
        "data": {"source": "simulated", "seed": 5},
    }
