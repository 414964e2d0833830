"""Damaged releases, two writers at once and a crash while publishing: refused in one sentence."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shortlist.releases import release as releases
from shortlist.releases.release import MANIFEST, Release, ReleaseError, ReleaseStore


def publish(store: ReleaseStore, text: str = "weights") -> Release:
    with store.publishing({"metrics": {"ndcg": 0.25}}) as (folder, about):
        (folder / "sources").mkdir()
        (folder / "sources" / "model.bin").write_text(text)
        (folder / "items.txt").write_text("items")
    return store.open(about["release_id"])


def refused(store: ReleaseStore, release_id: str) -> str:
    with pytest.raises(ReleaseError) as error:
        store.open(release_id)
    message = str(error.value)
    assert "\n" not in message
    assert release_id in message
    return message


def test_a_flipped_bit_is_refused_wherever_it_is(tmp_path: Path) -> None:
    store = ReleaseStore(tmp_path)
    release = publish(store)
    rng = random.Random(0)
    for name in (MANIFEST, "items.txt", "sources/model.bin"):
        path = release.file(name)
        whole = path.read_bytes()
        for place in range(len(whole)):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << rng.randrange(8)
            path.write_bytes(bytes(damaged))
            refused(store, release.release_id)
        path.write_bytes(whole)
    assert store.open(release.release_id) == release


@pytest.mark.parametrize("missing", [MANIFEST, "items.txt", "sources"])
def test_a_partly_copied_folder_is_refused(tmp_path: Path, missing: str) -> None:
    release = publish(ReleaseStore(tmp_path / "here"))
    other = ReleaseStore(tmp_path / "there")
    target = other.root / release.release_id
    shutil.copytree(release.path, target)
    gone = target / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    message = refused(other, release.release_id)
    assert "(file is missing)" in message or "no release there" in message
    with pytest.raises(ReleaseError):
        other.promote(release.release_id)
    assert other.current_id() is None


@pytest.mark.parametrize("release_id", ["../elsewhere", "/etc", ".partial-1", "a/b", ""])
def test_an_id_cannot_name_a_folder_outside(tmp_path: Path, release_id: str) -> None:
    with pytest.raises(ReleaseError, match="is not a release id"):
        ReleaseStore(tmp_path).open(release_id)


CRASH = """
import sys, time
from pathlib import Path
from shortlist.releases.release import ReleaseStore
with ReleaseStore(Path(sys.argv[1])).publishing({}) as (folder, about):
    (folder / "model.bin").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_a_killed_writer_leaves_no_release(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CRASH, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        os.kill(writer.pid, signal.SIGKILL)
    store = ReleaseStore(tmp_path)
    assert store.ids() == []
    assert [path.name.split("-")[0] for path in tmp_path.iterdir()] == [".partial"]
    assert publish(store).release_id in store.ids()


def test_two_writers_of_the_same_release_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Noon(datetime):
        @classmethod
        def now(cls, tz=None) -> datetime:
            return datetime(2026, 11, 30, 12, tzinfo=UTC)

    monkeypatch.setattr(releases, "datetime", Noon)
    store = ReleaseStore(tmp_path)
    both = threading.Barrier(2)
    errors: list[str] = []

    def write() -> None:
        try:
            with store.publishing({}) as (folder, _):
                (folder / "model.bin").write_text("weights")
                both.wait(10)
        except ReleaseError as error:
            errors.append(str(error))

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(store.ids()) == 1
    assert len(errors) == 1
    assert "was published by another process in the same second" in errors[0]
    assert store.open(store.ids()[0]).file("model.bin").read_text() == "weights"
    assert not list(tmp_path.glob(".partial-*"))
