"""Releases: atomic publishing, verification on opening, promotion and rollback by one pointer."""

import json

import pytest

from shortlist.releases.release import MANIFEST, ReleaseError, ReleaseStore


def publish(store: ReleaseStore, text: str = "weights", **about) -> str:
    with store.publishing({"name": "x", **about}) as (folder, content):
        (folder / "sources").mkdir()
        (folder / "sources" / "model.bin").write_text(text)
        (folder / "items.txt").write_text("items")
    return content["release_id"]


def test_published_files_and_manifest_are_read_back(tmp_path):
    store = ReleaseStore(tmp_path)
    release = store.open(publish(store, metrics={"ndcg@10": 0.3}))
    assert release.about["metrics"] == {"ndcg@10": 0.3}
    assert sorted(release.files) == ["items.txt", "sources/model.bin"]
    assert release.file("sources", "model.bin").read_text() == "weights"


def test_a_failure_while_publishing_leaves_nothing(tmp_path):
    store = ReleaseStore(tmp_path)

    def break_off() -> None:
        with store.publishing({}) as (folder, _):
            (folder / "model.bin").write_text("half")
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        break_off()
    assert list(tmp_path.iterdir()) == []
    assert store.ids() == []


@pytest.mark.parametrize("content", ["{", "[]", '{"current": "a"}'])
def test_a_broken_pointer_is_named_with_what_to_do(tmp_path, content):
    store = ReleaseStore(tmp_path)
    release_id = publish(store)
    (tmp_path / "current.json").write_text(content)
    with pytest.raises(ReleaseError, match=rf"current\.json: not a pointer .*{release_id}"):
        store.open()


def test_a_changed_file_is_refused_with_both_hashes(tmp_path):
    store = ReleaseStore(tmp_path)
    id_ = publish(store)
    (tmp_path / id_ / "items.txt").write_text("other items")
    with pytest.raises(
        ReleaseError, match=r"items.txt has sha256 \w{64}, the manifest says \w{64}"
    ):
        store.open(id_)


def test_a_missing_file_is_refused(tmp_path):
    store = ReleaseStore(tmp_path)
    id_ = publish(store)
    (tmp_path / id_ / "sources" / "model.bin").unlink()
    with pytest.raises(ReleaseError, match=r"sources/model.bin has sha256 \(file is missing\)"):
        store.open(id_)


def test_an_added_file_is_refused(tmp_path):
    store = ReleaseStore(tmp_path)
    id_ = publish(store)
    (tmp_path / id_ / "extra.bin").write_text("extra")
    with pytest.raises(ReleaseError, match=r"extra.bin .*the manifest says \(no such file\)"):
        store.open(id_)


def test_an_edited_manifest_is_refused(tmp_path):
    store = ReleaseStore(tmp_path)
    id_ = publish(store, metrics={"ndcg@10": 0.1})
    path = tmp_path / id_ / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["about"]["metrics"]["ndcg@10"] = 0.9
    path.write_text(json.dumps(manifest))
    with pytest.raises(ReleaseError, match="the manifest was changed"):
        store.open(id_)


def test_a_broken_manifest_is_refused(tmp_path):
    store = ReleaseStore(tmp_path)
    id_ = publish(store)
    (tmp_path / id_ / MANIFEST).write_text("{")
    with pytest.raises(ReleaseError, match="not a manifest"):
        store.open(id_)


def test_promote_and_roll_back_move_one_pointer(tmp_path):
    store = ReleaseStore(tmp_path)
    first, second = publish(store), publish(store, "better weights")
    assert store.current_id() is None
    store.promote(first)
    store.promote(second)
    assert store.open().release_id == second
    assert store.roll_back() == first
    assert store.open().release_id == first
    with pytest.raises(ReleaseError, match="no earlier release"):
        store.roll_back()


def test_a_release_that_does_not_verify_is_never_promoted(tmp_path):
    store = ReleaseStore(tmp_path)
    good, bad = publish(store), publish(store, "other weights")
    store.promote(good)
    (tmp_path / bad / "items.txt").write_text("changed")
    with pytest.raises(ReleaseError):
        store.promote(bad)
    assert store.current_id() == good


def test_nothing_promoted_and_no_such_release_say_what_to_do(tmp_path):
    store = ReleaseStore(tmp_path)
    with pytest.raises(ReleaseError, match="run `shortlist run` first"):
        store.open()
    with pytest.raises(ReleaseError, match="no release there"):
        store.open("20200101T000000-abcdefgh")
