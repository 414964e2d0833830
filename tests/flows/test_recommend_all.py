"""`shortlist recommend --all` writes the same lists as `shortlist recommend USER`."""

import json
import shutil
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli.main import app
from flows import recommend_all
from flows.recommend_all import LISTS, cut, join, lake_users, listed_users, without_forgotten
from shortlist.config import ConfigError, Settings
from shortlist.forgetting.register import Register
from shortlist.lake import Lake
from shortlist.releases.release import ReleaseStore

pytestmark = pytest.mark.usefixtures("prefect_here")


@pytest.fixture
def home(served_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHORTLIST_HOME", str(served_home))
    return served_home


def run(*arguments: object) -> dict:
    result = CliRunner().invoke(app, ["recommend", *map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["recommend", *map(str, arguments)])
    assert result.exit_code != 0
    return " ".join((result.output + str(result.exception or "")).replace("│", " ").split())


def test_the_lists_are_those_of_single_users_whatever_the_shards(home, tmp_path, monkeypatch):
    monkeypatch.setattr(recommend_all, "SHARD_USERS", 30)
    out = tmp_path / "lists.parquet"
    figures = run("--all", "--out", out, "-k", 7, "--workers", 2)
    table = pq.read_table(out)
    assert table.schema.equals(LISTS)
    everybody = set(Lake(Settings().lake).users().column("user_id").to_pylist())
    assert set(table.column("user_id").to_pylist()) == everybody
    assert figures["users"] == len(everybody)
    assert figures["rows"] == table.num_rows == 7 * len(everybody)
    assert figures["skipped_stages"] == figures["forgotten"] == 0
    assert figures["release_id"] == ReleaseStore(Settings().releases).open().release_id
    rows = table.to_pylist()
    for user_id in ("u1", "u17", "u80"):
        alone = run(user_id, "-k", 7)["items"]
        batch = [row for row in rows if row["user_id"] == user_id]
        assert [row["item_id"] for row in batch] == [item["item_id"] for item in alone]
        assert [row["rank"] for row in batch] == list(range(1, 8))
        assert [row["reason"] for row in batch] == [item["reason"] for item in alone]
        scores = [item["score"] for item in alone]
        assert [row["score"] for row in batch] == pytest.approx(scores, rel=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_users_of_a_file_as_csv(home, tmp_path):
    listed = tmp_path / "users.txt"
    listed.write_text("u3\n\n u9 \nu3\nnobody-yet\n")
    out = tmp_path / "lists.csv"
    out.write_text("an older file")
    figures = run("--all", "--out", out, "--users", listed, "-k", 3)
    table = pyarrow.csv.read_csv(out)
    assert table.column_names == LISTS.names
    assert set(table.column("user_id").to_pylist()) == {"u3", "u9", "nobody-yet"}
    assert figures["rows"] == table.num_rows == 9


def test_users_without_a_recent_event_are_left_out(served_home):
    settings = Settings(home=served_home)
    lake = Lake(settings.lake)
    after = lake.manifest.latest - 3 * 86_400_000_000
    active = set(lake.interactions(since=after).column("user_id").to_pylist())
    assert lake_users(settings, active_days=3) == sorted(active)
    assert 0 < len(active) < len(lake_users(settings, active_days=None)) == 80


def test_forgotten_people_get_no_list_until_they_return(served_home, tmp_path):
    shutil.copytree(served_home / "lake", tmp_path / "lake", symlinks=True)
    settings = Settings(home=tmp_path)
    settings.forgotten.mkdir(parents=True, exist_ok=True)
    newest = Lake(settings.lake).interactions().to_pylist()[-1]
    register = Register(settings.forgotten)
    at = int(newest["event_timestamp"].timestamp() * 1e6)
    gone = "u1" if newest["user_id"] != "u1" else "u2"
    register.add(gone, at + 1)
    register.add(newest["user_id"], at - 1)
    assert without_forgotten(settings, [gone, newest["user_id"], "other"]) == [
        newest["user_id"],
        "other",
    ]


def test_a_failed_batch_leaves_the_former_file(home, tmp_path, monkeypatch):
    out = tmp_path / "lists.csv"
    out.write_text("yesterday's lists")

    def fail(shards, folder, **_):
        (folder / "00000.parquet").write_text("half a file")
        raise OSError("No space left on device")

    monkeypatch.setattr(recommend_all.recommend_shards, "with_options", lambda **_: fail)
    listed = tmp_path / "users.txt"
    listed.write_text("u3\n")
    result = CliRunner().invoke(app, ["recommend", "--all", "--out", str(out), "--users", listed])
    assert result.exit_code != 0
    assert out.read_text() == "yesterday's lists"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lists.csv", "users.txt"]


def test_shards_have_each_user_once_and_are_stable():
    users = [f"user {i}" for i in range(1_000)]
    shards = cut(users, number=7)
    assert sorted(user for shard in shards for user in shard) == sorted(users)
    assert all(100 < len(shard) < 190 for shard in shards)
    assert cut(users[::2], number=7)[3] == [user for user in shards[3] if user in set(users[::2])]


def test_an_empty_shard_joins_to_no_rows(tmp_path):
    pq.write_table(LISTS.empty_table(), tmp_path / "00000.parquet")
    out = tmp_path / "out.parquet"
    assert join(tmp_path, out) == 0
    assert pq.read_table(out).schema.equals(LISTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "want either USER, or --all --out FILE"),
        (("u1", "--all", "--out", "x.csv"), "want either USER, or --all --out FILE"),
        (("--all",), "want --out FILE"),
        (("--all", "--out", "x.xlsx"), "want a file that ends with .parquet or .csv"),
        (("--all", "--out", "nowhere/x.csv"), "there is no folder nowhere"),
        (("--all", "--out", "x.csv", "--users", "a", "--active-days", "2"), "either --users or"),
        (("--all", "--out", "x.csv", "--users", "absent.txt"), "absent.txt: can't be read"),
    ],
)
def test_wrong_options_say_what_is_right(home, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(*arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b" \n\n", b"\xff\xfe\x00"])
def test_a_file_without_user_ids_is_refused(tmp_path, content):
    path = tmp_path / "users.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"one per line|isn't UTF-8"):
        listed_users(path)
