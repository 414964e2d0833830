"""One check of the board on a small home: figures, action, page, metrics; the end of a canary."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import httpx
import numpy as np
import pytest

from flows.runtime.configuration import RunConfig
from flows.watch.canary import end_canary, experiment_report, start_experiment
from flows.watch.check import check_and_act, verdict_of
from flows.watch.operations import count_responses, service_figures
from flows.watch.traffic import arms_of
from monitoring.board.config import GuardrailFile
from monitoring.board.judge import Board, judge_board
from monitoring.traffic.join import DAY
from shortlist.clock import HomeClock
from shortlist.config import Settings
from shortlist.datasets.service.traffic_log import load_traffic_log
from shortlist.experiment import ExperimentConfig, past_experiments, running_experiment
from shortlist.home.audit import read_audit
from shortlist.home.switches import end_switch, switch_on
from shortlist.items.catalogue import Catalogue
from shortlist.lake import Lake
from shortlist.releases.promotion import hold_gates
from shortlist.releases.release import ReleaseStore
from tests.flows.conftest import HOUR, LAKE_START, about, publish, write_lake
from tests.monitoring.test_board import board, row, traffic
from tests.monitoring.test_traffic import START

CONFIG = RunConfig.model_validate(
    {
        "name": "tiny",
        "data": {"source": "movielens-100k", "target_events": ["rating"], "clock": "replay"},
        "train": {"sources": [{"kind": "popularity"}], "rankers": [{"kind": "lambdamart"}]},
    }
)
NOW = LAKE_START + 60 * HOUR


def entry(n: int, **changes: Any) -> dict[str, Any]:
    items = [
        {"item_id": f"i{place}", "position": place, "source": "ease", "score": 1.0,
         "propensity": 1.0, "features": []}
        for place in (1, 2)
    ]  # fmt: skip
    return {
        "request_id": f"r{n}", "release_id": "r", "arm": "main", "user_id": f"u{n % 3}",
        "context_id": "home|phone|12", "event_timestamp": LAKE_START + n * HOUR,
        "user_as_of": 1, "skipped_stages": [], "milliseconds": 5.0, "items": items,
    } | changes  # fmt: skip


@pytest.fixture
def home(tmp_path) -> Settings:
    settings = Settings(home=tmp_path, service_url="http://127.0.0.1:9")
    write_lake(settings.lake)
    folder = settings.serving_log / "date=2026-01-01"
    folder.mkdir(parents=True)
    lines = [entry(n) for n in range(20)] + [entry(3, request_id="again")]
    (folder / "1-1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    HomeClock(settings, "replay").advance(NOW)
    return settings


def test_the_log_is_read_without_features_and_a_repeated_request_once(home):
    requests, shown = load_traffic_log(home.serving_log)
    assert (requests.num_rows, shown.num_rows) == (20, 40)
    assert "again" in requests["request_id"].to_pylist()
    assert set(requests["device"].to_pylist()) == {"phone"}
    assert load_traffic_log(home.serving_log, since=LAKE_START + 15 * HOUR)[0].num_rows == 5


def test_a_check_acts_and_writes_page_rows_and_metrics(home):
    store = ReleaseStore(home.releases)
    # An increment of yesterday, after a full training of 40 days ago.
    training = {"mode": "incremental", "full_data_end": NOW - 40 * DAY}
    release_id = publish(store, about() | {"data_end": NOW - DAY, "training": training})
    store.promote(release_id)
    events = Lake(home.lake).interactions()
    shared = SimpleNamespace(catalogue=Catalogue.from_items(Lake(home.lake).items()))
    watched = cast(Any, SimpleNamespace(events=events, shared=shared))
    file = GuardrailFile.model_validate(
        {
            "guardrail": [
                row(name="short", figure="short_list_rate", bad="high", limit=0.2, min_users=2,
                    action="hold", runbook="short-lists"),
                row(name="old", figure="release_age_days", bad="high", limit=30, test="none"),
                row(name="errors", figure="error_rate", bad="high", limit=0.1, test="none"),
                row(name="clicks", figure="click_through", min_users=50),
            ]
        }
    )  # fmt: skip
    out = home.reports / "now"
    out.mkdir(parents=True)
    release = store.open(release_id)
    done = check_and_act(home, CONFIG, release, watched, {"figures": {}}, file=file, out=out)
    levels = {one.name: one.level for one in done["board"].results}
    assert levels == {"short": "alarm", "old": "alarm", "errors": "missing", "clicks": "waiting"}
    assert [verdict_of(one) for one in done["board"].results] == ["hold", "warn", "warn", "pass"]
    assert [gate.name for gate in hold_gates(home, "x")] == ["hold: short"]
    assert {line["command"] for line in read_audit(home)} == {"act hold", "act notify"}
    html = done["index"].read_text()
    assert 'href="rows/short.csv"' in html
    assert "Short lists" in html, "the runbook entry is on the page"
    rows = (out / "rows" / "short.csv").read_text().splitlines()
    assert len(rows) == 21
    text = (home.reports / "metrics.prom").read_text()
    assert 'shortlist_guardrail_level{guardrail="short",action="hold"} 3' in text
    assert 'shortlist_figure{figure="release_age_days"} 40' in text
    assert 'shortlist_figure{figure="short_list_rate"} 1' in text


def canary(release: str, **changes) -> ExperimentConfig:
    arms = [{"name": "old", "share": 0.5}, {"name": "new", "share": 0.5, "release": release}]
    content = {"name": "c", "champion": "old", "challenger": "new", "days": 2, "min_users": 50}
    return ExperimentConfig.model_validate(content | {"arm": arms} | changes)


def test_a_canary_goes_on_only_with_time_users_and_nothing_broken(home, capsys):
    store = ReleaseStore(home.releases)
    store.promote(publish(store, about(), "one"))
    challenger = publish(store, about(), "two")
    started = start_experiment(home, canary(challenger), now=START)
    shown = traffic(old=0.3, new=0.3)
    rules = board(row(compare="champion", limit=-0.5, test="sequential", action="stop_canary"))
    found = judge_board(rules, shown, arms=arms_of(started))
    early = end_canary(home, started, shown, found, now=START + DAY)
    assert early == "canary c: 1.0 days left"
    few = shown.pick(shown.requests["user_code"].to_numpy() < 20)
    waits = end_canary(home, started, few, found, now=START + 3 * DAY)
    assert waits is not None
    assert "goes on, arm old has" in waits
    missing = judge_board(
        board(row(figure="survey", compare="champion", limit=-0.5, test="sequential",
                  action="stop_canary")), shown, arms=arms_of(started))  # fmt: skip
    held = end_canary(home, started, shown, missing, now=START + 3 * DAY)
    assert held is not None
    assert "not promoted: clicks" in held
    assert store.current_id() != challenger
    switch_on(home, "holds", "price bug", reason="prices are wrong")
    held = end_canary(home, started, shown, found, now=START + 3 * DAY)
    assert held is not None
    assert "not promoted: hold: price bug: prices are wrong" in held
    end_switch(home, "holds", "price bug")
    done = end_canary(home, started, shown, found, now=START + 3 * DAY)
    assert done is not None
    assert f"{challenger} is promoted" in done
    assert store.current_id() == challenger
    assert running_experiment(home) is None
    assert past_experiments(home)[0]["outcome"].startswith("promoted: ")
    assert read_audit(home)[-1]["evidence"]["clicks"]["level"] == "pass"


def test_a_report_of_an_experiment_has_intervals_and_the_sample_ratio(home):
    store = ReleaseStore(home.releases)
    store.promote(publish(store, about(), "one"))
    started = start_experiment(home, canary(publish(store, about(), "two")), now=START)
    rules = board(row(compare="champion", limit=-0.05, test="sequential", action="stop_canary"))
    shown = traffic(old=0.5, new=0.2, grades=(4, 3))
    found = judge_board(rules, shown, arms=arms_of(started))
    report = experiment_report(started, shown, found, rules)
    rows = {one["figure"]: one for one in report["figures"]}
    clicks = rows["click_through"]
    assert clicks["low"] < clicks["difference"] < clicks["high"] < 0
    assert rows["satisfaction"]["relative"] == pytest.approx(-0.25, abs=0.1)
    assert report["sample_ratio_ok"]
    assert [one["level"] for one in report["guardrails"]] == ["alarm"]
    assert np.isnan(rows["conversion"]["challenger"]) or rows["conversion"]["challenger"] == 0
    assert isinstance(found, Board)


def test_errors_are_counted_from_the_services_metrics():
    text = "".join(
        f'bentoml_service_request_total{{endpoint="{route}",http_response_code="{code}"}} {n}\n'
        for route, code, n in (
            ("/recommend", 200, 90),
            ("/recommend", 503, 10),
            ("/events", 500, 5),
        )
    )
    text = "# TYPE bentoml_service_request counter\n" + text
    assert count_responses(text) == {"all": 100, "failed": 10, "listed": 90, "dropped": 0}


def test_lists_without_a_log_line_are_counted_since_the_last_check(home, monkeypatch):
    release_id = publish(ReleaseStore(home.releases), about())
    folder = home.serving_log / f"date={datetime.now(UTC):%Y-%m-%d}"
    folder.mkdir(parents=True)

    def check(answers: int, lines: int) -> dict[str, float]:
        text = (
            "# TYPE bentoml_service_request counter\n"
            f'bentoml_service_request_total{{endpoint="/recommend",http_response_code="200"}}'
            f' {answers}\n# TYPE shortlist_x gauge\nshortlist_x{{release_id="{release_id}"}} 1\n'
        )
        (folder / "1.jsonl").write_text("{}\n" * lines)
        answer = httpx.Response(200, text=text, request=httpx.Request("GET", "http://x"))
        monkeypatch.setattr(httpx, "get", lambda *_, **__: answer)
        return {name: one.current for name, one in service_figures(home).items()}

    assert "unlogged_rate" not in check(1_000, 100)  # nothing to count from
    assert check(2_000, 1_100)["unlogged_rate"] == 0
    assert check(3_000, 1_600)["unlogged_rate"] == 0.5
    assert "unlogged_rate" not in check(3_100, 1_600)  # too few lists
    assert "unlogged_rate" not in check(50, 1_650)  # the service began again
