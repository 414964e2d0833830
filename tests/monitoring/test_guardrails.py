"""Guardrail verdicts: both directions, relative and absolute thresholds, and missing values."""

from pathlib import Path

import pytest

from monitoring.figures import Figure
from monitoring.guardrails import Guardrail, GuardrailError, judge, load_guardrails, overall
from shortlist.config import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def guardrail(**changes) -> Guardrail:
    row = {
        "name": "diversity",
        "figure": "diversity@10",
        "direction": "min",
        "warn": 0.5,
        "hold": 0.3,
        "meaning": "a choice",
    }
    return Guardrail.model_validate(row | changes)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(0.6, "pass"), (0.5, "pass"), (0.49, "warn"), (0.3, "warn"), (0.29, "hold")],
)
def test_a_floor_is_kept_at_its_limit_and_broken_below(value, verdict):
    (found,) = judge({"diversity@10": Figure(value)}, [guardrail()])
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(0.1, "pass"), (0.2, "pass"), (0.21, "warn"), (0.4, "warn"), (0.41, "hold")],
)
def test_a_ceiling_is_kept_at_its_limit_and_broken_above(value, verdict):
    row = guardrail(direction="max", warn=0.2, hold=0.4)
    (found,) = judge({"diversity@10": Figure(value)}, [row])
    assert found.verdict == verdict


def test_a_relative_guardrail_multiplies_the_reference():
    row = guardrail(relative_to="reference", warn=0.9, hold=0.75)
    (found,) = judge({"diversity@10": Figure(0.70, reference=0.80)}, [row])
    # 0.9 * 0.80 = 0.72 and 0.75 * 0.80 = 0.60
    assert (found.verdict, found.warn, found.hold) == ("warn", pytest.approx(0.72), 0.75 * 0.80)
    assert "0.7, below the warn limit 0.72" in found.reason
    assert "the reference's 0.8" in found.reason


@pytest.mark.parametrize(
    ("figure", "says"),
    [
        (Figure(float("nan"), 0.8), "no value in this window"),
        (Figure(0.7, float("nan")), "the reference window has no value"),
    ],
)
def test_what_cannot_be_judged_is_a_warning_and_never_a_pass(figure, says):
    (found,) = judge({"diversity@10": figure}, [guardrail(relative_to="reference")])
    assert found.verdict == "warn"
    assert says in found.reason
    assert None in found.to_json().values()


@pytest.mark.parametrize(
    ("direction", "figure", "verdict"),
    [
        ("min", Figure(0.2, low=0.1, high=0.29), "hold"),
        ("min", Figure(0.2, low=0.1, high=0.31), "warn"),
        ("max", Figure(0.8, low=0.71, high=0.9), "hold"),
        ("max", Figure(0.8, low=0.69, high=0.9), "warn"),
        ("max", Figure(0.8), "hold"),
    ],
)
def test_a_hold_needs_the_whole_interval_beyond_the_limit(direction, figure, verdict):
    limits = {"min": (0.5, 0.3), "max": (0.5, 0.7)}[direction]
    row = guardrail(direction=direction, warn=limits[0], hold=limits[1])
    (found,) = judge({"diversity@10": figure}, [row])
    assert found.verdict == verdict
    assert ("too uncertain" in found.reason) == (verdict == "warn")


def test_an_unknown_figure_is_an_error_that_lists_what_there_is():
    with pytest.raises(GuardrailError, match=r"'diversity@10' is unknown, want one of a, b"):
        judge({"b": Figure(1.0), "a": Figure(1.0)}, [guardrail()])


def test_the_overall_verdict_is_the_worst():
    rows = [guardrail(name=str(limit), warn=limit, hold=limit - 0.2) for limit in (0.4, 0.6, 0.9)]
    verdicts = judge({"diversity@10": Figure(0.5)}, rows)
    assert [v.verdict for v in verdicts] == ["pass", "warn", "hold"]
    assert overall(verdicts) == "hold"
    assert overall(verdicts[:2]) == "warn"
    assert overall([]) == "pass"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('direction = "min"\nwarn = 0.3\nhold = 0.5', "hold 0.5 must not be above warn 0.3"),
        ('direction = "max"\nwarn = 0.5\nhold = 0.3', "hold 0.3 must not be below warn 0.5"),
        ('direction = "up"\nwarn = 0.5\nhold = 0.3', "guardrail.0.direction"),
        ('direction = "min"\nwarn = 0.5', "guardrail.0.hold: is required"),
        ('direction = "min"\nwarn = 0.5\nhold = 0.3\nlimit = 1', "guardrail.0.limit: unknown key"),
    ],
)
def test_a_wrong_row_names_file_and_key(tmp_path, text, says):
    path = tmp_path / "guardrails.toml"
    path.write_text(f'[[guardrail]]\nname = "x"\nfigure = "y"\nmeaning = "z"\n{text}\n')
    with pytest.raises(ConfigError, match=r"guardrails\.toml") as caught:
        load_guardrails(path)
    assert says in str(caught.value)


def test_two_rows_of_one_name_are_refused(tmp_path):
    row = '[[guardrail]]\nname = "x"\nfigure = "y"\nmeaning = "z"\n'
    row += 'direction = "min"\nwarn = 1\nhold = 1\n'
    path = tmp_path / "guardrails.toml"
    path.write_text(row * 2)
    with pytest.raises(ConfigError, match="repeated: x"):
        load_guardrails(path)


def test_the_shipped_guardrails_load_and_guard_against_click_bait():
    rows = load_guardrails(ROOT / "configs" / "guardrails.toml")
    guarded = {row.figure.split("@")[0] for row in rows}
    assert {"diversity", "coverage", "novelty", "popularity_bias", "satisfaction"} <= guarded
