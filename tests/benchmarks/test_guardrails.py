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
from benchmarks.detection.rivals import RIVALS
from benchmarks.detection.windows import DAILY, FIGURES, FIRST, QUIET_WEEKS, Bench
from benchmarks.guardrails import REPORTED_SEEDS, detectors, is_right, judged, judged_rivals
from flows.runtime.configuration import CONFIGS
from monitoring.board.config import load_board

FILE = for_bench(load_board(CONFIGS / "guardrails.toml"))


def week(rng: np.random.Generator, **figures: float) -> dict:
    """Return a measured week in which all figures are about 1."""
    values = {name: 1 + 0.02 * rng.standard_normal() for name in FIGURES} | figures
    fine = {"exposure_gini": 0.5, "popularity_bias": 0.5, "latency_p99": 100.0}
    fine |= dict.fromkeys(("skipped_stage_rate", "short_list_rate"), 0.0)
    values |= {name: value for name, value in fine.items() if name not in figures}
    of_users = {name: [value, 0.01, 400] for name, value in values.items()}
    operation = {"data_age_hours": 1.0, "skew_different_share": 0.0, "release_age_days": 3.0}
    return {
        "figures": of_users,
        "daily": {name: of_users[name] for name in DAILY},
        "operation": operation | {"error_rate": 0.002},
        "rivals": {},
    }


def window(seed: int, **figures: float) -> Window:
    rng = np.random.default_rng(seed)
    return Window(week(rng, **figures), [week(rng) for _ in range(4)])


def test_there_are_enough_faults_and_clean_windows():
    families = Counter(fault.family for fault in FAULTS)
    assert len(FAULTS) >= 24
    assert len(families) == 6
    assert len(KINDS) * len(QUIET_WEEKS) * len(REPORTED_SEEDS) >= 200


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
    assert margin in (1.25, 1.5, 2.0, 2.5)
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


def test_the_board_names_the_cause_of_its_alarms():
    found = board_verdict(FILE, window(0, repeated_event_rate=2.0))
    assert (found.alarms, found.cause) == ({"repeated events"}, "data")
    assert board_verdict(FILE, window(0)).cause is None


def measured_seed(*, now: dict) -> dict:
    """Return a seed with one clean window and one fault, whose windows are all `now`."""
    rng = np.random.default_rng(0)
    about = {"fault": "failing requests", "strength": 0.9, "lost": [0.1, 0.1]}
    return {
        "seed": 5,
        "base": [week(rng) for _ in range(8)],
        "quiet": [now | {"kind": "plain", "week": 6}],
        "faults": [about | {"weeks": [now, now]}],
    }


def test_a_rollback_of_a_clean_window_is_counted():
    now = week(np.random.default_rng(1))
    board = lambda window: board_verdict(FILE, window)  # noqa: E731
    assert judged([measured_seed(now=now)], board)["wrong_rollbacks"] == 0
    now["operation"]["error_rate"] = 0.02
    found = judged([measured_seed(now=now)], board)
    assert found["wrong_rollbacks"] == 1
    assert found["action_right_share"] == 1  # of the fault, which looks the same


def test_a_row_is_judged_over_its_window():
    """Rows of 24 hours read the newest day, not the week that it ends."""
    now, past = week(np.random.default_rng(1)), [week(np.random.default_rng(2))] * 4
    assert {row.figure for row in FILE.guardrail if row.window_hours == 24} == set(DAILY)
    now["daily"]["skipped_stage_rate"] = [0.3, 0.01, 400]
    assert board_verdict(FILE, Window(now, past)).alarms == {"skipped stages"}
    now["daily"]["skipped_stage_rate"] = [0.0, 0.01, 400]
    now["figures"]["skipped_stage_rate"] = [0.3, 0.01, 400]
    assert board_verdict(FILE, Window(now, past)).alarms == frozenset()
    rows = tuple(row.model_copy(update={"window_hours": 48.0}) for row in FILE.guardrail[:1])
    with pytest.raises(ValueError, match="doesn't measure taken_rate over 48 hours; want 168"):
        for_bench(FILE.model_copy(update={"guardrail": rows}))


def test_an_action_is_right_if_none_is_wrong():
    assert is_right(frozenset({"hold"}), "wrong index")
    assert is_right(frozenset({"hold", "notify"}), "wrong index")
    assert not is_right(frozenset({"notify"}), "wrong index")
    assert not is_right(frozenset({"hold", "retrain"}), "wrong index")
    assert not is_right(frozenset({"hold", "notify"}), "latency")
    assert is_right(frozenset({"notify"}), "latency")


def test_a_rival_without_verdicts_is_left_out():
    now = week(np.random.default_rng(1))
    now["rivals"] = dict.fromkeys(RIVALS[:-1], True)  # as without the package river
    seed = measured_seed(now=now)
    rivals = judged_rivals([seed])
    assert rivals == list(RIVALS[:-1])
    found = detectors(Tuned({}, {}), lambda alarms: "data", rivals=rivals)
    assert set(RIVALS) - set(found) == {"page-hinkley (river)"}
    assert judged([seed], found["psi > 0.2"])["detected_within_2_windows"] == 1


def test_requests_fail_in_clean_windows_and_more_of_them_in_a_fault(monkeypatch):
    monkeypatch.setattr("benchmarks.detection.record.USERS", 40)
    monkeypatch.setattr("benchmarks.detection.record.ITEMS", 60)
    monkeypatch.setattr("benchmarks.detection.log.USUAL_ERRORS", 0.01)
    for module in ("record", "windows"):
        monkeypatch.setattr(f"benchmarks.detection.{module}.WEEKS", 7)
    bench = Bench(0)
    usual = [log.operation["error_rate"] for log in bench.clean]
    assert 0 < max(usual) < 0.05
    assert len(set(usual)) > 1
    (fault,) = [each for each in FAULTS if each.name == "failing requests"]
    found = bench.faulty(fault, 0.9)
    first = found["weeks"][0]
    clean = bench.base()[FIRST]
    assert first["figures"]["requests"][0] < clean["figures"]["requests"][0]
    assert clean["figures"]["seen_item_rate"][0] == 0, "lists leave out what users chose"
    (again,) = [each for each in FAULTS if each.name == "seen items return"]
    returned = bench.faulty(again, 1.0)["weeks"][0]["figures"]["seen_item_rate"][0]
    assert returned > 0.1
    assert first["operation"]["error_rate"] > max(usual)
    assert set(first["daily"]) == set(DAILY)
    assert first["daily"]["latency_p99"] != first["figures"]["latency_p99"]
    assert 0 < first["daily"]["latency_p99"][2] < first["figures"]["latency_p99"][2]
