"""Evidently reports on synthetic logs: only columns that drifted are flagged."""

import json
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from monitoring.columns import fallen, sort_columns
from monitoring.figures import column_drifts
from monitoring.report import write_reports
from monitoring.tables import Tables
from monitoring.windows import slates_of

DAYS = 15 * 24 * 3_600_000_000


@pytest.fixture(scope="module")
def windows(build):
    """Three windows: the reference, a similar one, and one with drift and low diversity."""
    return {
        "reference": build.window("reference", start=build.start, seed=1, history=True),
        "steady": build.window("steady", start=build.start + DAYS, seed=2),
        "drifted": build.window(
            "drifted", start=build.start + DAYS, seed=3, shift=2.0, narrow=True
        ),
    }


@pytest.fixture(scope="module")
def written(windows, build, tmp_path_factory):
    """The folder and the results of reports for both current windows, in one workspace."""
    folder = tmp_path_factory.mktemp("reports")
    return folder, {
        name: write_reports(
            windows[name],
            windows["reference"],
            shared=build.synthetic_shared(),
            out=folder / name,
            workspace=folder / "workspace",
            about={"release": "<r1>"},
        )
        for name in ("steady", "drifted")
    }


def test_a_window_like_the_reference_is_not_flagged(written):
    steady = written[1]["steady"]
    assert [t for t in steady["tests"] if t["report"] == "features"]
    assert all(t["status"] == "SUCCESS" for t in steady["tests"] if t["report"] == "features")
    assert steady["drifted"]["features"]["moving"] < 0.1
    assert steady["figures"]["feature_drift_share"]["current"] == 0
    assert steady["figures"]["score_drift"]["current"] < 0.1


def test_drift_is_found_where_it_is_and_a_narrow_list_holds(written):
    drifted = written[1]["drifted"]
    assert drifted["drifted"]["features"]["moving"] == pytest.approx(2.0, abs=0.2)
    assert drifted["drifted"]["features"]["steady"] < 0.1
    assert drifted["figures"]["feature_drift_share"]["current"] == pytest.approx(1 / 2)
    assert drifted["columns"]["features"]["constant"] == ["constant"]
    failed = {t["test"] for t in drifted["tests"] if t["status"] == "FAIL"}
    assert any("moving" in name for name in failed)
    assert not any("steady" in name or "constant" in name for name in failed)
    assert drifted["figures"]["coverage@5"]["current"] == 5 / 40


def test_evidently_agrees_with_the_figures(written, windows, build):
    from monitoring.evidently_runs import drift_run, drifted_share, ranking_run, test_results

    shared = build.synthetic_shared()
    current, reference = windows["drifted"].checked(), windows["reference"].checked()
    slates = [slates_of(w, shared) for w in (current, reference)]
    tables = Tables(current, reference, *slates, shared, np.random.default_rng(0))
    snapshot = drift_run(*tables.features)
    values = {m["config"].get("column"): m["value"] for m in snapshot.dict()["metrics"]}
    ours = column_drifts(*tables.features)
    assert ours.pop("constant") == 0, "left out: it can't drift"
    assert {name: float(values[name]) for name in ours} == pytest.approx(ours)
    assert drifted_share(snapshot) == pytest.approx(sum(d >= 0.1 for d in ours.values()) / 2)
    status = {one["test"]: one["status"] for one in test_results("features", snapshot)}
    for name, distance in ours.items():
        (found,) = [value for test, value in status.items() if name in test]
        assert (found == "SUCCESS") == (distance < 0.1), "Evidently's verdict is that of our limit"

    ranking = ranking_run(*tables.ranking, k=5).dict()["metrics"]
    by_name = {metric["metric_name"].split("(")[0]: metric["value"] for metric in ranking}
    hits = slates[0].hit
    wanted = np.array([len(r) for r in slates[0].relevant])
    at_five = {name: value["value"][4] for name, value in by_name.items()}
    assert at_five["RecallTopK"] == pytest.approx((hits.sum(1) / wanted).mean())
    assert at_five["PrecisionTopK"] == pytest.approx((hits.sum(1) / 5).mean())
    assert at_five["HitRate"] == pytest.approx(hits.any(1).mean())


def test_without_any_history_there_is_no_popularity_to_report(windows, build):
    from monitoring.evidently_runs import beyond_accuracy_run

    shared, rng = build.synthetic_shared(), np.random.default_rng(0)
    steady = windows["steady"].checked()
    slates = slates_of(steady, shared)
    tables = Tables(steady, steady, slates, slates, shared, rng)
    names = [m["metric_name"] for m in beyond_accuracy_run(tables, k=5).dict()["metrics"]]
    assert [name.split("(")[0] for name in names] == ["Diversity", "Personalization"]


class Links(HTMLParser):
    """Parser that collects the links and the loaded resources of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.targets += [value for name, value in attrs if name in ("href", "src")]


def test_the_index_links_every_report_and_loads_nothing_from_elsewhere(written):
    folder, results = written
    page = (folder / "drifted" / "index.html").read_text()
    links = Links()
    links.feed(page)
    assert sorted(links.targets) == sorted(
        [report["file"] for report in results["drifted"]["reports"]] + ["report.json"]
    )
    for target in links.targets:
        assert (folder / "drifted" / target).stat().st_size > 1_000
    assert "&lt;r1&gt;" in page  # the release's name is escaped
    assert "moving" in page
    assert "moving" in (folder / "drifted" / "features.html").read_text()


def test_report_json_holds_what_was_returned(written):
    folder, results = written
    content = json.loads((folder / "steady" / "report.json").read_text())
    assert content == results["steady"]


def test_both_runs_are_in_the_workspace_of_evidently_ui(written):
    from evidently.ui.workspace import Workspace

    folder, results = written
    workspace = Workspace(str(folder / "workspace"))
    (project,) = workspace.search_project("shortlist")
    assert len(workspace.list_runs(project.id)) == 2 * len(results["steady"]["reports"])


def test_a_group_without_a_varying_column_has_no_drift(tmp_path):
    from monitoring.evidently_runs import drift_run, drifted_share, test_results

    flat = pd.DataFrame({"a": [1.0, 1.0], "b": [None, None]})
    snapshot = drift_run(flat, flat)
    assert np.isnan(drifted_share(snapshot))
    assert test_results("features", snapshot) == []
    snapshot.save_html(str(tmp_path / "empty.html"))
    assert (tmp_path / "empty.html").stat().st_size > 1_000


def test_columns_are_sorted_by_what_can_be_expected_of_them():
    before = pd.DataFrame(
        {"item_events_log": [1.0, 2.0, 3.0], "trend": [0.0, 1.0, 2.0], "flat": 1.0, "gone": None}
    )
    now = before.assign(item_events_log=[0.0, 0.0, 0.0])
    found = sort_columns(now, before)
    assert (found.growing, found.varying) == (["item_events_log"], ["trend"])
    assert (found.constant, found.empty) == (["flat"], ["gone"])
    assert fallen(before, before, found.growing) == {"item_events_log": 0.0}
    fell = fallen(now, before, found.growing)["item_events_log"]
    assert fell == pytest.approx(2 / np.std([1, 2, 3]))
