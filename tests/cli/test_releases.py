"""The commands `releases`, `promote --force` and `serve --host`, on a home with two releases."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from shortlist.releases.release import ReleaseStore
from tests.flows.conftest import about, publish


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHORTLIST_HOME", str(tmp_path))
    return tmp_path


def call(*arguments: str) -> dict:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_releases_are_listed_compared_pinned_and_removed(home: Path) -> None:
    store = ReleaseStore(home / "releases")
    old, new = publish(store, about()), publish(store, about(mean=0.01), payload="other")
    store.promote(new)
    rows = {row["release_id"]: row for row in call("releases", "list")["releases"]}
    assert (rows[new]["serving"], rows[old]["serving"]) == (True, False)
    found = call("releases", "diff", old, new)
    assert found["chain_ahead.recent_popularity.ndcg@10.mean"] == [0.05, 0.01]
    assert "files.model.bin" in found
    call("releases", "pin", old, "--reason", "contract")
    assert call("releases", "show", old)["pin"]["reason"] == "contract"
    assert call("releases", "gc")["removed"] == []
    call("releases", "pin", old, "--reason", "ended", "--remove")
    lines = call("releases", "audit")["audit"]
    assert [line["command"] for line in lines] == ["pin", "unpin"]
    table = CliRunner().invoke(app, ["releases", "audit"])
    assert "contract" in table.stdout


def test_a_damaged_release_makes_the_list_fail(home: Path) -> None:
    store = ReleaseStore(home / "releases")
    bad = publish(store, about())
    (store.root / bad / "model.bin").write_text("changed")
    done = CliRunner().invoke(app, ["releases", "list"])
    assert done.exit_code == 1
    assert "sha256" in done.stdout


def test_force_needs_a_reason(home: Path) -> None:
    done = CliRunner().invoke(app, ["promote", "--release", "any", "--force"])
    assert done.exit_code == 2
    assert "--reason" in done.output


def test_a_service_for_other_machines_needs_keys(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHORTLIST_API_KEYS", raising=False)
    done = CliRunner().invoke(app, ["serve", "--host", "0.0.0.0"])
    assert done.exit_code == 2
    assert "SHORTLIST_API_KEYS" in done.output
