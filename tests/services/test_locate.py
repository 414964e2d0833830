"""Choice of the served release: SHORTLIST_RELEASE, else the Bento's, else the promoted one."""

import json
from pathlib import Path

import pytest

from services.release.locate import check_can_serve, find_release
from shortlist.config import ConfigError, Settings
from shortlist.features.pack import PackError
from shortlist.releases.release import Release, ReleaseError, ReleaseStore

NOTHING = Path("/nonexistent")


def publish(folder: Path, name: str) -> Release:
    store = ReleaseStore(folder)
    with store.publishing({"name": name}) as (partial, about):
        (partial / "weights.txt").write_text(name)
    return store.open(about["release_id"])


@pytest.fixture(autouse=True)
def no_release_named(monkeypatch) -> None:
    monkeypatch.delenv("SHORTLIST_RELEASE", raising=False)


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(home=tmp_path / "home")


def test_named_before_carried_before_promoted(settings, tmp_path, monkeypatch):
    promoted = publish(settings.releases, "promoted")
    ReleaseStore(settings.releases).promote(promoted.release_id)
    carried, named = publish(tmp_path / "a", "carried"), publish(tmp_path / "b", "named")
    assert find_release(settings, carried=NOTHING).about["name"] == "promoted"
    assert find_release(settings, carried=carried.path).about["name"] == "carried"
    monkeypatch.setenv("SHORTLIST_RELEASE", str(named.path))
    assert find_release(settings, carried=carried.path).about["name"] == "named"


def test_nothing_promoted_and_a_wrong_name_say_so(settings, tmp_path, monkeypatch):
    with pytest.raises(ReleaseError, match="no release is promoted"):
        check_can_serve(settings, carried=NOTHING)
    monkeypatch.setenv("SHORTLIST_RELEASE", str(tmp_path / "no-such"))
    with pytest.raises(ReleaseError, match="no-such: no release there"):
        check_can_serve(settings, carried=NOTHING)


def test_a_release_that_was_changed_does_not_serve(settings, tmp_path):
    carried = publish(tmp_path / "a", "carried")
    carried.file("weights.txt").write_text("tampered")
    with pytest.raises(ReleaseError, match=r"weights\.txt has sha256"):
        check_can_serve(settings, carried=carried.path)


def test_without_a_pack_nothing_can_serve(settings, tmp_path):
    carried = publish(tmp_path / "a", "carried")
    with pytest.raises(PackError, match="run `shortlist refresh`"):
        check_can_serve(settings, carried=carried.path)
    settings.packs.mkdir(parents=True)
    (settings.packs / "current.json").write_text(json.dumps({"pack_id": "p"}))
    assert check_can_serve(settings, carried=carried.path).about["name"] == "carried"


def test_a_bento_wants_an_absolute_home(tmp_path):
    """A relative SHORTLIST_HOME is refused for a Bento, which runs in another folder."""
    carried = publish(tmp_path / "a", "carried")
    with pytest.raises(ConfigError, match="SHORTLIST_HOME is 'var', want an absolute path"):
        check_can_serve(Settings(home=Path("var")), carried=carried.path)
