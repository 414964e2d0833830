"""Verdicts of the board: comparisons, missing figures, sample ratio, and control of errors."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from monitoring.board.config import Guardrail, GuardrailFile, load_board
from monitoring.board.judge import Arms, judge_board
from monitoring.board.sequential import always_valid, holm, interval, one_look, sample_ratio
from monitoring.figures import Figure
from monitoring.traffic.estimate import Estimate
from monitoring.traffic.join import DAY, HOUR
from shortlist.config import ConfigError
from tests.monitoring.test_traffic import START, joined

ROOT = Path(__file__).resolve().parents[2]
ARMS = Arms("c", START, "old", "new", {"old": 0.5, "new": 0.5})


def row(**changes) -> dict:
    return {
        "name": "clicks",
        "figure": "click_through",
        "bad": "low",
        "limit": 0.1,
        "min_users": 10,
        "meaning": "m",
        "runbook": "r",
    } | changes


def board(*rows: dict, **settings) -> GuardrailFile:
    return GuardrailFile.model_validate({"board": settings, "guardrail": rows})


def traffic(*, old: float, new: float, grades=(4, 4), users=300, hours=0, seed=0, split=0.5):
    """Return lists of one item to two arms, with click rates and grades of clicked items by arm."""
    rng = np.random.default_rng(seed)
    lists, events = [], []
    for n in range(users):
        arm, rate, grade = (
            ("new", new, grades[1]) if rng.random() < split else ("old", old, grades[0])
        )
        for visit in range(4):
            at = START + hours * HOUR + (n + visit * users) * 1_000_000
            lists.append((f"r{n}-{visit}", f"u{n}", at, ["i1"], {"arm": arm}))
            if rng.random() < rate:
                events.append((f"u{n}", "i1", at + 1, None, f"r{n}-{visit}", "click"))
                value = float(np.clip(np.round(rng.normal(grade)), 1, 5))
                events.append((f"u{n}", "i1", at + 2, value, f"r{n}-{visit}", "rating"))
    return joined(lists, events, until=START + 5 * DAY)


def levels(found) -> dict[str, str]:
    return {one.name: one.level for one in found.results}


def test_a_figure_beyond_an_absolute_limit_is_an_alarm_with_its_action():
    shown = traffic(old=0.3, new=0.3)
    found = judge_board(board(row(limit=0.5, action="hold")), shown)
    (decision,) = found.decisions
    assert (decision.guardrail, decision.action, found.verdict) == ("clicks", "hold", "hold")
    assert decision.evidence["users"] == 300
    assert "below the limit 0.5" in decision.reason
    assert not judge_board(board(row(limit=0.2)), shown).decisions


def test_a_missing_figure_is_no_pass():
    shown = traffic(old=0.3, new=0.3)
    found = judge_board(board(row(figure="return_rate", bad="high")), shown)
    assert (levels(found), found.verdict) == ({"clicks": "missing"}, "warn")
    relaxed = judge_board(board(row(figure="return_rate", bad="high", required=False)), shown)
    assert (levels(relaxed), relaxed.verdict) == ({"clicks": "waiting"}, "pass")
    few = judge_board(board(row(limit=0.5, min_users=1_000)), shown)
    assert levels(few) == {"clicks": "waiting"}
    plain = row(figure="data_age_hours", bad="high", limit=24, test="none")
    assert levels(judge_board(board(plain), shown)) == {"clicks": "missing"}
    old = judge_board(board(plain), shown, figures={"data_age_hours": Figure(30.0)})
    assert levels(old) == {"clicks": "alarm"}


def test_a_reference_is_multiplied_and_its_interval_counts():
    rule = row(figure="coverage@10", compare="reference", limit=-0.5)
    shown = traffic(old=0.3, new=0.3, users=50)
    low = {"coverage@10": Figure(0.3, 0.8, 0.28, 0.32)}
    assert levels(judge_board(board(rule), shown, figures=low)) == {"clicks": "alarm"}
    wide = {"coverage@10": Figure(0.3, 0.8, 0.10, 0.50)}
    assert levels(judge_board(board(rule), shown, figures=wide)) == {"clicks": "pass"}


def test_clicks_that_rise_while_grades_fall_stop_the_canary():
    rules = (
        row(name="rise", bad="high", limit=0.001, compare="champion", test="sequential",
            alarm=False),
        row(name="bait", figure="satisfaction", limit=0.0, compare="champion", test="sequential",
            together_with="rise", action="stop_canary"),
    )  # fmt: skip
    bait = judge_board(board(*rules), traffic(old=0.2, new=0.6, grades=(4, 2)), arms=ARMS)
    assert [d.action for d in bait.decisions] == ["stop_canary"]
    assert bait.decisions[0].experiment == "c"
    good = judge_board(board(*rules), traffic(old=0.2, new=0.6, grades=(3, 4)), arms=ARMS)
    assert not good.decisions
    fewer = judge_board(board(*rules), traffic(old=0.5, new=0.3, grades=(4, 2)), arms=ARMS)
    assert not fewer.decisions, "clicks fall: another rule"
    assert not judge_board(board(*rules), traffic(old=0.2, new=0.6)).results, "no experiment"


def test_the_sample_ratio_is_checked_first():
    rule = row(compare="champion", limit=-0.05, test="sequential", action="stop_canary")
    skewed = traffic(old=0.5, new=0.2, split=0.35)
    found = judge_board(board(rule), skewed, arms=ARMS)
    assert found.sample_ratio_p < 0.001
    assert [d.guardrail for d in found.decisions] == ["sample ratio"]
    fair = judge_board(board(rule), traffic(old=0.5, new=0.2), arms=ARMS)
    assert [d.guardrail for d in fair.decisions] == ["clicks"]
    assert sample_ratio({"a": 50, "b": 50}, {"a": 0.9, "b": 0.1}) < 1e-9


def test_forced_requests_are_left_out():
    shown = traffic(old=0.5, new=0.1)
    shown.requests.loc[:, "forced"] = shown.requests["arm"] == "new"
    rule = row(compare="champion", limit=-0.05, test="sequential", action="stop_canary")
    found = judge_board(board(rule, sample_ratio_alpha=1e-300), shown, arms=ARMS)
    assert levels(found)["clicks"] in ("waiting", "missing")


def test_a_fall_from_the_windows_before_is_found_and_their_own_changes_are_not():
    rule = row(compare="previous", limit=-0.2, window_hours=24)
    weeks = [0.30, 0.32, 0.29, 0.31, 0.08]

    def days(rates):
        lists, events = [], []
        for day, rate in enumerate(rates):
            for n in range(400):
                at = START + day * DAY + n * 60_000_000
                lists.append((f"r{day}-{n}", f"u{n}", at, ["i1"]))
                if n % 100 < 100 * rate:
                    events.append((f"u{n}", "i1", at + 1, None, f"r{day}-{n}", "click"))
        return joined(lists, events, until=START + 5 * DAY + HOUR)

    assert levels(judge_board(board(rule), days(weeks))) == {"clicks": "alarm"}
    by_day = [0.08, 0.31, 0.29, 0.32, 0.30]  # the same windows, measured before
    before = judge_board(
        board(rule), days([0.3] * 5), measured=lambda _, n: Estimate(by_day[n], 0.03, 400)
    )
    assert levels(before) == {"clicks": "alarm"}
    season = [0.2, 0.5, 0.3, 0.45, 0.2]
    assert levels(judge_board(board(rule), days(season))) == {"clicks": "pass"}


def test_holm_and_the_budget():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.02}, alpha=0.05) == {"a", "b", "c"}
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}, alpha=0.05) == {"a"}
    config = board(row(), weeks_per_false_alarm=10, checks_per_week=20, canary_days=7).board
    assert config.alpha_per_week == 1 / 10
    assert config.looks_per_week(168) == 16  # hourly checks of the same week are nearly one look
    assert config.looks_per_week(24) == 20  # no more looks than checks
    assert config.alpha_per_canary == 0.05  # a tenth of the budget, but at most 5%


def test_p_values_by_hand():
    assert one_look(1.0, 1.0, limit=2.96, bad="low") == pytest.approx(0.025, abs=1e-3)
    assert one_look(1.0, 1.0, limit=1.0, bad="high") == 0.5
    assert one_look(1.0, 0.0, limit=2.0, bad="low") == 0
    assert always_valid(3.0, 1.0, limit=2.0, bad="low", spread=1.0) == 1
    # sqrt(1 / 2) exp(9 / 4) is the likelihood ratio at three standard errors with equal spread
    ratio = np.sqrt(0.5) * np.exp(9 / 4)
    assert always_valid(-1, 1, limit=2, bad="low", spread=1) == pytest.approx(0.5 / ratio)
    low, high = interval(0.0, 1.0, alpha=0.05, spread=1.0)
    assert -low == high == pytest.approx(np.sqrt(4 * np.log(np.sqrt(2) / 0.05)))


def test_looking_every_day_keeps_the_error_of_a_sequential_test():
    """Over 400 A/A tests with a look on each of 28 days, few ever cross the level of 5%."""
    rng = np.random.default_rng(0)
    n, days = 400, 28
    taste = rng.normal(scale=0.5, size=(400, 2, n))
    sums, wrong, naive = np.zeros((400, 2, n)), np.zeros(400, bool), np.zeros(400, bool)
    for day in range(1, days + 1):
        sums += taste + rng.normal(size=sums.shape)
        mean = sums / day
        gap = mean[:, 0].mean(1) - mean[:, 1].mean(1)
        error = np.sqrt(mean.var(2, ddof=1).sum(1) / n)
        for t in range(400):
            p = always_valid(gap[t], error[t], limit=0.0, bad="low", spread=0.1)
            wrong[t] |= 2 * min(p, 1) < 0.05  # 2: one of two directions
            naive[t] |= one_look(gap[t], error[t], limit=0.0, bad="low") < 0.025
    assert wrong.mean() <= 0.05
    assert naive.mean() > wrong.mean()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": "sequential"}, "test sequential compares arms"),
        ({"compare": "previous", "limit": 0.2}, "want at most 0 for bad low"),
        ({"action": "source_off"}, "needs a source"),
        ({"action": "stop_canary"}, "needs compare champion"),
        ({"figure": "ctr"}, "figure 'ctr' is not in docs/reference/figures.md"),
    ],
)
def test_guardrails_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Guardrail.model_validate(row(**changes))


def test_the_shipped_file_is_valid_and_names_what_is_wrong(tmp_path):
    file = load_board(ROOT / "configs/guardrails.toml")
    assert {"stop_canary", "roll_back", "hold", "retrain", "notify"} <= {
        one.action for one in file.guardrail
    }
    path = tmp_path / "g.toml"
    path.write_text("[board]\nweeks = 1\n")
    with pytest.raises(ConfigError, match=r"g\.toml: board\.weeks: unknown key"):
        load_board(path)
    found = judge_board(file, traffic(old=0.3, new=0.3, users=50), figures=_plain())
    assert {one.name for one in found.results} >= {"chosen items", "skew", "latency"}


def _plain() -> dict[str, Figure]:
    names = ("replayed_hit_rate_same_mix", "diversity", "coverage", "novelty")
    return {f"{name}@10": Figure(0.5, 0.5) for name in names}


def test_sliding_windows_keep_the_budget():
    """Weeks in which an hourly check of a weekly mean exceeds the level of one look are few."""
    rng = np.random.default_rng(0)
    config = board(row(), weeks_per_false_alarm=20).board
    level = config.alpha_per_week / config.looks_per_week(168)
    week, weeks = 168, 4_000
    noise = rng.standard_normal((weeks + 5) * week)
    means = np.convolve(noise, np.ones(week) / week, "valid")
    before = sum(means[n * week : n * week + weeks * week] for n in range(4)) / 4
    z = (means[4 * week : (4 + weeks) * week] - before) / np.sqrt(1.25 / week)
    above = (z > norm.isf(level)).reshape(weeks, week).any(1)
    assert 0.3 * config.alpha_per_week < above.mean() < config.alpha_per_week


def windows(**by_figure: list[float]):
    """Return measured figures, the newest window first, with a small standard error."""
    return lambda guardrail, n: Estimate(by_figure[guardrail.figure][n], 0.01, 400)


def test_a_figure_near_zero_needs_an_absolute_change():
    rule = row(compare="previous", bad="high", limit=0.5, least_change=0.3)
    quiet = traffic(old=0.3, new=0.3)
    for now, level in ((0.2, "pass"), (0.5, "alarm")):
        found = judge_board(
            board(rule), quiet, measured=windows(click_through=[now, 0.0, 0.0, 0.0, 0.0])
        )
        assert levels(found) == {"clicks": level}
    with pytest.raises(ValueError, match="least_change needs compare previous"):
        board(row(least_change=0.1))


def test_a_star_stands_for_every_value_and_the_worst_is_reported():
    rule = row(figure="exposure/source=*", compare="previous", limit=-0.25, test="none")
    shares = {"a": [0.5, 0.6, 0.6, 0.6, 0.6], "b": [0.1, 0.4, 0.4, 0.4, 0.4], "c": [0.4] + [0] * 4}
    found = judge_board(
        board(rule),
        traffic(old=0.3, new=0.3),
        measured=windows(**{f"exposure/source={name}": of for name, of in shares.items()}),
        values={"exposure/source=*": list(shares)},
    )
    (decision,) = found.decisions
    assert decision.evidence["figure"] == "exposure/source=b"
    assert decision.evidence["limit"] == pytest.approx(0.3)
    none = judge_board(board(rule | {"required": False}), traffic(old=0.3, new=0.3))
    assert levels(none) == {"clicks": "waiting"}  # no earlier windows
    with pytest.raises(ValueError, match="want compare previous and test none"):
        board(rule | {"test": "window"})


def test_the_first_cause_with_all_its_signs_is_named():
    rules = [
        row(name=name, figure=figure, compare="previous", limit=-0.1, alarm=name != "sign")
        for name, figure in (("a", "conversion"), ("b", "rating"), ("sign", "survey"))
    ]
    causes = [
        {"family": "data", "signs": ["a", "sign"], "meaning": "both"},
        {"family": "models", "signs": ["a"], "meaning": "one"},
    ]
    file = GuardrailFile.model_validate({"guardrail": rules, "cause": causes})

    def cause(**now: float):
        figures = {"conversion": 0.5, "rating": 0.5, "survey": 0.5} | now
        found = judge_board(
            file,
            traffic(old=0.3, new=0.3),
            measured=windows(**{name: [of, 0.5, 0.5, 0.5, 0.5] for name, of in figures.items()}),
        )
        return found.cause and found.cause.meaning

    assert cause(conversion=0.3) == "one"
    assert cause(conversion=0.3, survey=0.40) == "both"  # a sign, no alarm
    assert cause(rating=0.3) is None
    assert cause(survey=0.3) is None  # no alarm
    with pytest.raises(ValueError, match="sign 'x' is no guardrail"):
        GuardrailFile.model_validate({"guardrail": rules, "cause": [causes[0] | {"signs": ["x"]}]})


def test_the_shipped_causes_cover_the_six_families():
    file = load_board(ROOT / "configs" / "guardrails.toml")
    assert len({cause.family for cause in file.cause}) == 6
    ways = [cause.signs for cause in file.cause]
    for place, signs in enumerate(ways):
        assert not any(set(earlier) <= set(signs) for earlier in ways[:place]), signs
