"""The main job on a small data set by the command line: `shortlist run`, then other commands."""

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from flows.featurize import featurize
from models.recommend.recommender import Recommender
from monitoring.board.config import load_board
from shortlist.config import Settings
from shortlist.feature_store import OfflineReader, OnlineReader, latest_pack
from shortlist.http.api import Context, RecommendRequest
from shortlist.releases.release import ReleaseStore
from tests.conftest import ROOT, shortlist
from tests.flows.conftest import BASELINES, answer

LEARNED = ("two_tower", "content")


def test_the_run_promotes_a_release_and_says_what_each_step_took(run_summary):
    assert run_summary["promoted"]
    assert all(gate["passed"] for gate in run_summary["gates"])
    steps = ["ingest", "validate", "featurize", "train", "evaluate", "package", "promote"]
    assert list(run_summary["seconds"]) == [*steps, "replay", "refresh", "monitor"]
    assert run_summary["peak_memory_gb"] > 0
    folder = Path(run_summary["home"]) / "runs" / run_summary["run_id"]
    assert (
        json.loads((folder / "summary.json").read_text())["release_id"]
        == (run_summary["release_id"])
    )


def test_every_model_and_baseline_is_judged_with_intervals(run_summary):
    metrics = run_summary["metrics"]
    assert {"chain", *BASELINES, *LEARNED} <= set(metrics)
    for values in metrics.values():
        figure = values["ndcg@10"]
        assert 0 <= figure["low"] <= figure["mean"] <= figure["high"] <= 1
    # Each user of this data set prefers one of three categories, so a model that learns this beats
    # popularity.
    assert metrics["chain"]["ndcg@10"]["mean"] > metrics["popularity"]["ndcg@10"]["mean"]


def test_evaluate_prints_the_agreed_json(run_summary, served_home):
    folder = served_home / "runs" / run_summary["run_id"]
    content = json.loads((folder / "evaluation.json").read_text())
    assert content["dataset"] == "tiny"
    assert content["n_requests"] >= content["n_users"] > 0
    assert set(content["metrics"]["ease"]["recall@10"]) >= {"mean", "low", "high"}
    assert {"new_users", "light_users", "tail_items"} <= set(content["slices"])
    assert 0 < content["candidates"]["together"]["recall"] <= 1


def test_recommend_prints_titles_sources_and_reasons_without_a_server(served_home):
    content = answer("recommend", "u1", "-k", "5", home=served_home)
    assert [item["rank"] for item in content["items"]] == [1, 2, 3, 4, 5]
    for item in content["items"]:
        assert item["title"].startswith("A ")
        assert item["source"]
        assert item["reason"]
    assert content["user_known"]


def test_an_unknown_user_gets_an_answer_too(served_home):
    content = answer("recommend", "nobody", home=served_home)
    assert not content["user_known"]
    assert len(content["items"]) == 10


def test_search_finds_items_by_words(served_home):
    content = answer("search", "comedy", "--user", "u1", "-k", "3", home=served_home)
    assert content["user_known"]
    assert all("comedy" in item["title"] for item in content["items"])
    assert len(content["items"]) == 3
    done = shortlist("search", "?!", home=served_home, preloaded=False)
    assert done.returncode == 2
    assert "no letter or digit" in done.stderr


def test_similar_finds_other_items_and_an_unknown_one_is_a_clear_error(served_home):
    content = answer("similar", "i1", "-k", "3", home=served_home)
    assert "i1" not in {item["item_id"] for item in content["items"]}
    done = shortlist("similar", "i999", home=served_home, preloaded=False)
    assert done.returncode == 2
    assert "item_id 'i999' is not in the catalogue" in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_finds_everything_that_serving_needs(served_home):
    checks = {check["name"]: check for check in answer("doctor", home=served_home)["checks"]}
    for name in ("packages", "lake", "features", "feature pack", "online store", "release"):
        assert checks[name]["status"] == "ok", checks[name]
    assert checks["report"]["status"] == "ok"


def test_the_report_and_the_data_docs_are_pages(served_home, run_summary):
    report = Path(answer("report", home=served_home)["report"])
    assert "<html" in report.read_text().lower()
    assert Settings(home=served_home).data_docs.joinpath("index.html").is_file()


def test_the_verdict_of_monitoring_is_its_worst_guardrail(served_home, run_summary):
    monitor = run_summary["monitor"]
    verdicts = {row["name"]: row["verdict"] for row in monitor["guardrails"]}
    board = load_board(ROOT / "configs/guardrails.toml").guardrail
    names = [row.name for row in board if row.compare not in ("champion", "holdout")]
    assert list(verdicts) == names
    assert monitor["verdict"] == max(verdicts.values(), key=("pass", "warn", "hold").index)
    report = answer("report", home=served_home)
    assert report["verdict"] == monitor["verdict"]
    page = Path(report["report"]).read_text()
    assert "this morning" in page
    assert len(page) < 200_000
    assert "shortlist_guardrail_level" in (served_home / "reports/metrics.prom").read_text()
    # The replayed days have the same distribution as the training data.
    assert monitor["verdict"] != "hold"
    for name in ("replayed hit rate", "skipped stages", "short lists"):
        assert verdicts[name] == "pass", name


def test_offline_and_online_rank_alike(served_home, tmp_path):
    """The point-in-time join and the online store give the same list for the same time."""
    settings = Settings(home=tmp_path / "home")
    for part in ("lake", "releases"):
        shutil.copytree(served_home / part, settings.home / part, symlinks=True)
    release = ReleaseStore(settings.releases).open()
    at = release.about["data_end"]
    featurize(settings, tuple(release.about["target_events"]), until=at)
    pack = latest_pack(settings.packs)
    online, offline = (
        Recommender.load(release, reader(settings), pack=pack)
        for reader in (OnlineReader, OfflineReader)
    )
    known = 0
    for user in range(1, 31):
        request = RecommendRequest(user_id=f"u{user}", context=Context(surface="web"), k=10)
        served, judged = (r.recommend(request, at=at) for r in (online, offline))
        known += served.user_known
        assert [item.item_id for item in served.items] == [item.item_id for item in judged.items]
        np.testing.assert_allclose(
            [item.score for item in served.items], [item.score for item in judged.items], rtol=1e-5
        )
        np.testing.assert_allclose(served.features, judged.features, rtol=1e-4, atol=1e-5)
    assert known > 20


def test_what_was_served_is_what_the_lake_says(served_home):
    """Feature vectors in the serving log equal those recomputed from the lake, bit for bit."""
    done = shortlist("skew", "--json", home=served_home)
    assert done.returncode == 0, done.stderr[-3_000:]
    report = json.loads(done.stdout)
    assert (report["passed"], report["reasons"], report["exact_share"]) == (True, [], 1.0)
    assert report["requests"] > 20
    assert report["compared"] > 30


def test_a_served_value_that_the_lake_does_not_say_fails_the_flow_and_the_command(
    served_home, tmp_path
):
    """A changed feature value in the serving log fails `shortlist skew` and its flow."""
    home = tmp_path / "home"
    for part in ("lake", "releases", "features", "events", "serving_log"):
        shutil.copytree(served_home / part, home / part, symlinks=True)
    release = ReleaseStore(home / "releases").open()
    place = release.about["ranking_schema"]["names"].index("user_mean_value")
    files = sorted((home / "serving_log").rglob("*.jsonl"))
    log = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    log[-1][-1]["items"][0]["features"][place] += 1.5
    old = {key: value for key, value in log[-1][0].items() if key not in ("as_of", "clock")}
    log[-1].append(old | {"request_id": "of before"})
    for file, lines in zip(files, log, strict=True):
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    done = shortlist("skew", home=home, own_server=True)
    assert done.returncode == 1, done.stderr[-3_000:]
    assert "feature user_mean_value differs in" in done.stdout
    assert "Traceback" not in done.stderr
    report = json.loads((home / "reports" / "skew.json").read_text())
    assert (report["passed"], report["features"], report["views"]) == (
        False,
        ["user_mean_value"],
        [],
    )
    assert report["left_out"]["no as_of by view"] == 1
    worst = report["worst"]["user_mean_value"]
    assert worst["served"] - worst["recomputed"] == pytest.approx(1.5, rel=1e-4)
    with contextlib.closing(sqlite3.connect(home / "prefect" / "prefect.db")) as prefect:
        query = "SELECT type, message FROM flow_run_state ORDER BY timestamp DESC LIMIT 1"
        ((state, message),) = prefect.execute(query).fetchall()
    assert state == "FAILED"
    assert "features that differ from the lake: user_mean_value; " in message


def test_a_tampered_release_does_not_serve(served_home, tmp_path):
    home = tmp_path / "home"
    for part in ("releases", "packs", "features", "feast"):
        if (served_home / part).exists():
            shutil.copytree(served_home / part, home / part)
    store = ReleaseStore(home / "releases")
    catalogue = store.root / str(store.current_id()) / "profiles.json"
    catalogue.write_text(catalogue.read_text() + " ")
    done = shortlist("recommend", "u1", home=home)
    assert done.returncode == 2
    assert "profiles.json has sha256" in done.stderr


@pytest.mark.parametrize("command", ["recommend u1", "serve", "promote", "rollback", "evaluate"])
def test_in_an_empty_home_every_command_says_what_to_do(tmp_path, command):
    done = shortlist(*command.split(), home=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error ")
    assert "shortlist run" in done.stderr or "no earlier release" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_source_file_is_one_sentence_without_a_traceback(tmp_path):
    """The user sees an error once, although Prefect logs it in each flow that it passes."""
    path = tmp_path / "run.toml"
    path.write_text(
        'name = "x"\n[data]\nsource = "files"\ntarget_events = ["click"]\n'
        f'[data.files.interactions]\npath = "{tmp_path}/gone.csv"\nevent_type = "click"\n'
        'columns = { user_id = "u", item_id = "i", event_timestamp = "t" }\n'
        '[train]\nsources = [{ kind = "popularity" }]\nrankers = []\n'
    )
    done = shortlist("refresh", str(path), home=tmp_path / "home")
    assert done.returncode == 2
    assert "\nerror " in done.stderr
    assert done.stderr.count("gone.csv") == 1
    (log,) = (tmp_path / "home" / "logs").iterdir()
    assert done.stderr.endswith(f"\ndetails: {log}\n")
    assert "Traceback" in log.read_text()
    assert "Traceback" not in done.stderr


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id,timestamp\nu1,i1,1260759144\nu2,i1,1260759145\n")
    gone = tmp_path / "nosuch" / "x"
    for command, wanted in (
        (
            ["features", "--html", str(gone)],
            f"{gone}: No such file or directory; want a file path in",
        ),
        (["features", "--html", str(tmp_path)], f"{tmp_path}: Is a directory; want a file path in"),
        (["init", str(log), "--out", str(gone), "-y", "--json"], f"{gone}: there is no folder"),
    ):
        done = shortlist(*command, home=tmp_path / "home")
        assert done.returncode == 2
        assert done.stderr.startswith(f"error {wanted}")
        assert len(done.stderr.splitlines()) == 1


def test_a_batch_that_was_never_ingested_is_one_sentence_at_once(tmp_path):
    done = shortlist("validate", "--batch", "nosuch", home=tmp_path, timeout=30)
    assert done.returncode == 2
    assert done.stderr.startswith("error ")
    assert "batch 'nosuch' was not ingested (run `shortlist ingest`)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_and_a_misspelt_configuration_are_named(tmp_path):
    done = shortlist("run", "configs/none.toml", home=tmp_path)
    assert done.returncode == 2
    assert "configs/none.toml: no such configuration file" in done.stderr
    path = tmp_path / "run.toml"
    path.write_text('name = "x"\nseeed = 1\n[data]\nsource = "movielens-100k"\n[train]\n')
    done = shortlist("run", str(path), home=tmp_path)
    assert done.returncode == 2
    assert "seeed: unknown key" in done.stderr
