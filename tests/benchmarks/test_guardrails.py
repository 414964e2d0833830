"""The detection bench: faults hit what they name, limits are tuned without looking at the rest."""

from collections import Counter

import numpy as np
import pytest

from benchmarks.detection.faults import FAULTS, Context
from benchmarks.detection.judge import (
    Tuned,
    Window,
    board_verdict,
    fault_windows,
    fit_causes,
    for_bench,
    tune,
    without_tests,
)
from benchmarks.detection.quiet import KINDS
from benchmarks.detection.windows import FIGURES, QUIET_WEEKS
from flows.runtime.configuration import CONFIGS
from monitoring.board.config import load_board

FILE = for_bench(load_board(CONFIGS / "guardrails.toml"))


def week(rng: np.random.Generator, **figures: float) -> dict:
    """Return a measured week in which all figures are about 1."""
    values = {name: 1 + 0.02 * rng.standard_normal() for name in FIGURES} | figures
    fine = {"exposure_gini": 0.5, "popularity_bias": 0.5, "latency_p99": 100.0}
    fine |= dict.fromkeys(("skipped_stage_rate", "short_list_rate"), 0.0)
    values |= {name: value for name, value in fine.items() if name not in figures}
    return {
        "figures": {name: [value, 0.01, 400] for name, value in values.items()},
        "operation": {"data_age_hours": 1.0, "skew_exact_share": 1.0, "release_age_days": 3.0},
    }


def window(seed: int, **figures: float) -> Window:
    rng = np.random.default_rng(seed)
    return Window(week(rng, **figures), [week(rng) for _ in range(4)])


def test_there_are_enough_faults_and_clean_windows():
    families = Counter(fault.family for fault in FAULTS)
    assert len(FAULTS) >= 24
    assert len(families) == 6
    assert len(KINDS) * len(QUIET_WEEKS) * 10 >= 200


def test_a_share_is_the_same_for_the_lists_and_for_their_log():
    at = Context(None, None, 0.3, 5)  # pyright: ignore
    assert (at.some(500, "users") == at.some(500, "users")).all()
    assert (at.some(500, "users") != at.some(500, "pages")).any()
    assert (at.some(500) != at.some(500)).any()
    assert at.some(5_000, "users").mean() == pytest.approx(0.3, abs=0.03)


def test_the_board_judges_measured_windows():
    assert board_verdict(FILE, window(0)).alarms == frozenset()
    found = board_verdict(FILE, window(0, taken_rate=0.4))
    assert found.alarms == {"chosen items"}
    assert found.actions == {"hold"}
    # A fall by a twentieth is no alarm; fixed thresholds don't see chance, and don't alarm either.
    assert board_verdict(FILE, window(0, taken_rate=0.95)).alarms == frozenset()
    fixed = without_tests(FILE)
    assert board_verdict(fixed, window(0, taken_rate=0.7)).alarms == {"chosen items"}
    assert all(row.compare not in ("champion", "reference") for row in FILE.guardrail)


def test_limits_are_those_of_clean_windows():
    clean = {seed: [window(10 * seed + n) for n in range(20)] for seed in range(4)}
    limits, margin = tune(clean)
    assert margin in (1.25, 1.5, 2.0)
    assert all(low <= -0.05 and limits.high[name] >= 0.05 for name, low in limits.low.items())
    assert limits.alarms(window(99)) == frozenset()
    assert limits.alarms(window(99, rating=0.5)) == {"rating low"}
    assert Tuned.of(clean[0], margin=4).high["rating"] >= limits.high["rating"]


def test_a_cause_is_named_by_the_alarms_of_known_faults():
    known = [(frozenset({"a", "b"}), "data")] * 5 + [(frozenset({"c"}), "traffic")] * 5
    diagnose = fit_causes(known)
    assert diagnose(frozenset({"a"})) == "data"
    assert diagnose(frozenset({"c"})) == "traffic"


def test_the_second_window_is_compared_with_the_first_of_the_fault():
    rng = np.random.default_rng(0)
    seed = {"base": [week(rng) for _ in range(8)]}
    case = {"weeks": [week(rng), week(rng)]}
    first, second = fault_windows(seed, case)
    assert first.past == [seed["base"][n] for n in (4, 3, 2, 1)]
    assert second.past == [case["weeks"][0], *(seed["base"][n] for n in (4, 3, 2))]
