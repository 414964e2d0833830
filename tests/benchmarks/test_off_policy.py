"""The bench of off-policy estimates: intervals hold what the oracle knows; the public data set."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.off_policy import SETTINGS, Shop, judge_policies, open_bandit, summary


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop.open(seed=0)


def test_logs_have_the_propensities_of_the_service(shop):
    for setting, _ in SETTINGS:
        users, logged = shop.log(setting, lists=1, rng=np.random.default_rng(0))
        assert len(users) == len(logged)
        assert logged.is_usable.all()
        assert (logged.is_epsilon == (setting.kind == "epsilon")).all()
        assert logged.is_random.any() == (setting.kind == "epsilon")


def test_intervals_hold_the_oracles_clicks(shop):
    rows, _ = judge_policies(shop, policies=12, seed=3)
    found = summary(rows)
    assert found["dr"]["coverage_95"] > 0.6
    assert abs(found["dr"]["relative_bias"]) < 0.1


def test_the_random_policy_is_estimated_from_another_log(tmp_path: Path):
    """Item 0 gets a click in half of its lists, item 1 never; the log prefers item 0."""
    rng = np.random.default_rng(0)
    share = {"bts": 0.8, "random": 0.5}
    for policy, of_first in share.items():
        for campaign in ("men", "women"):
            item = (rng.random(4_000) > of_first).astype(int)
            click = (item == 0) & (rng.random(4_000) < 0.5)
            chance = np.where(item == 0, of_first, 1 - of_first)
            folder = tmp_path / policy / campaign
            folder.mkdir(parents=True)
            lines = [f"{i},{int(c)},{p}" for i, c, p in zip(item, click, chance, strict=True)]
            content = "\n".join(["item_id,click,propensity_score", *lines])
            (folder / f"{campaign}.csv").write_text(content)
    for campaign in open_bandit(tmp_path).values():
        for method in ("ips", "snips", "dr", "own log"):
            assert campaign[method]["value"] == pytest.approx(0.25, abs=0.03)
            assert campaign[method]["low"] < campaign[method]["value"] < campaign[method]["high"]
