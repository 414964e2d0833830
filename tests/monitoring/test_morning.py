"""The morning page, the sparklines, the metrics of Prometheus, and the page of figures."""

from pathlib import Path

import pytest
import yaml

from monitoring.board.config import load_board
from monitoring.morning import morning_page, runbook_entries
from monitoring.prometheus import metrics_text
from monitoring.sparkline import sparkline
from monitoring.traffic.estimate import Estimate

ROOT = Path(__file__).resolve().parents[2]
ALARM = {
    "guardrail": "satis<faction", "action": "hold", "reason": "it fell", "acknowledged_by": None,
    "note": "", "outcome": "done: promotions are held", "waiting": None,
    "evidence": {"runbook": "satisfaction"},
}  # fmt: skip
RESULT = {
    "name": "latency", "level": "missing", "figure": "latency_p99", "reason": "no value",
    "meaning": "fast", "runbook": "latency", "action": "notify",
}  # fmt: skip


def page(**changes) -> str:
    content = {
        "verdict": "hold",
        "about": {"release": "<r>"},
        "cause": None,
        "alarms": [ALARM],
        "closed": [],
        "audit": [],
        "results": [RESULT],
        "rows": {"satis<faction": "rows/satisfaction.csv"},
        "trends": [
            {"name": "c", "title": "clicks", "unit": "share", "days": [1, 2, 3],
             "values": [0.1, None, 0.2], "limit": 0.15}
        ],
        "releases": {2: "r2"},
        "changes": [],
        "experiment": None,
        "switches": [],
        "runbook": {"satisfaction": ("Satisfaction", "Compare clicks.")},
        "details": "index.html",
    } | changes  # fmt: skip
    return morning_page(content)


def test_an_alarm_links_to_its_requests_and_to_its_runbook_entry():
    html = page()
    assert 'href="rows/satisfaction.csv"' in html
    assert 'href="#satisfaction"' in html
    assert '<details id="satisfaction">' in html
    assert "satis&lt;faction" in html
    assert "&lt;r&gt;" in html
    assert "latency (latency_p99)" in html, "a missing figure needs a person"
    assert "Probable cause" not in html
    cause = {"family": "data", "meaning": "events <twice>", "signs": ["repeated events"]}
    assert "Probable cause: data" in page(cause=cause)
    assert "events &lt;twice&gt;" in page(cause=cause)
    taken = page(alarms=[ALARM | {"acknowledged_by": "me", "note": "known"}], results=[])
    assert "<p>Nothing.</p>" in taken
    assert "Taken over by me. known" in taken


def test_the_page_is_small_and_loads_nothing():
    html = page()
    assert len(html) < 20_000
    assert "<script" not in html
    assert "src=" not in html
    assert 'name="viewport"' in html


def test_a_sparkline_shows_limit_and_releases_and_leaves_gaps():
    svg = sparkline([1, 2, 3], [0.1, float("nan"), 0.2], limit=0.15, releases=[2], label="a<b")
    assert 'points="4.0,40.0 236.0,4.0"' in svg
    assert 'class="limit" x1="0" x2="240" y1="22.0" y2="22.0"' in svg
    assert 'class="release" x1="120.0"' in svg
    assert "a&lt;b" in svg
    assert "limit" not in sparkline([1, 2], [0.1, 0.2], limit=99.0, label="far")
    assert "no data" in sparkline([1], [float("nan")], label="none")


def test_every_guardrail_has_a_runbook_entry():
    entries = runbook_entries((ROOT / "docs/monitoring.md").read_text())
    rows = load_board(ROOT / "configs/guardrails.toml").guardrail
    assert {row.runbook for row in rows} <= set(entries)
    assert all(len(text) > 40 for _, text in entries.values())


def test_prometheus_reads_the_metrics():
    parser = pytest.importorskip("prometheus_client.parser")
    figures = {"click_through": Estimate(0.1, 0.01), "rating": Estimate(float("nan")), "a": 2.0}
    text = metrics_text(figures, [RESULT], at=7)
    found = {
        (s.name, *s.labels.values()): s.value
        for family in parser.text_string_to_metric_families(text)
        for s in family.samples
    }
    assert found == {
        ("shortlist_figure", "click_through"): 0.1,
        ("shortlist_figure", "a"): 2.0,
        ("shortlist_figure_error", "click_through"): 0.01,
        ("shortlist_guardrail_level", "latency", "notify"): 2,
        ("shortlist_checked_timestamp_seconds",): 7,
    }


def test_the_alert_rules_name_metrics_that_exist():
    groups = yaml.safe_load((ROOT / "configs/alerts.yml").read_text())["groups"]
    service = (ROOT / "services/metrics.py").read_text()
    own = metrics_text({"a": 1.0}, [RESULT], at=0)
    for rule in groups[0]["rules"]:
        assert {"alert", "expr", "labels", "annotations"} <= set(rule)
        words = [
            w for w in rule["expr"].replace("(", " ").replace("{", " ").split() if "shortl" in w
        ]
        name = words[0].split("[")[0].removesuffix("_bucket").removesuffix("_total")
        assert name in own or f'"{name}"' in service, name
