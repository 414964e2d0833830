"""Releases: immutable folders with all models and data that must be used together.

A release is a folder `<releases>/<release_id>/`. Its `manifest.json` lists the sha256 of each file
and one hash over all of them. Publishing is atomic: a finished folder is renamed into place.
Promotion and rollback atomically replace one pointer file, `<releases>/current.json`. Readers
verify all hashes before loading.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shortlist.files.durable import flush

MANIFEST = "manifest.json"
POINTER = "current.json"


class ReleaseError(RuntimeError):
    """A release is missing, incomplete or modified; the message gives the file and both hashes."""


@dataclass(frozen=True)
class Release:
    """A published release. `about` is the manifest without its file table."""

    release_id: str
    path: Path
    about: dict[str, Any]
    files: dict[str, str]

    def file(self, *parts: str) -> Path:
        return self.path.joinpath(*parts)


class ReleaseStore:
    """All releases in one folder, and the pointer to the serving one."""

    def __init__(self, root: Path):
        self.root = root

    @contextmanager
    def publishing(self, about: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Build a release. Yields (folder, about): write files into `folder` and keys into `about`.

        On success the manifest is written and the folder is renamed to the release's id, which is
        stored in `about["release_id"]`. On an error the folder is removed.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        partial = self.root / f".partial-{stamp}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        partial.mkdir()
        try:
            yield partial, about
            files = hash_files(partial)
            digest = _digest_of(files, about)
            about["release_id"] = f"{stamp}-{digest[:8]}"
            manifest = {"digest": _digest_of(files, about), "files": files, "about": about}
            (partial / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
            for path in (*(partial / name for name in files), partial / MANIFEST, partial):
                flush(path)
            self._publish(partial, about["release_id"])
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def _publish(self, partial: Path, release_id: str) -> None:
        try:
            partial.rename(self.root / release_id)
        except OSError as error:
            if not (self.root / release_id).is_dir():
                raise
            raise ReleaseError(
                f"release {release_id} was published by another process in the same second;"
                f" nothing was changed ({error.strerror})"
            ) from None
        flush(self.root)

    def open(self, release_id: str | None = None) -> Release:
        """Verify and open a release; None opens the promoted one.

        Raises:
            ReleaseError: no release is promoted, the release does not exist, or a file was changed,
                added or removed.
        """
        if release_id is None:
            release_id = self.current_id()
            if release_id is None:
                raise ReleaseError(
                    f"{self.root}: no release is promoted; run `shortlist run` first"
                )
        if Path(release_id).name != release_id or release_id[:1] in ("", "."):
            raise ReleaseError(f"'{release_id}' is not a release id; `shortlist releases list`")
        return open_release(self.root / release_id)

    def ids(self) -> list[str]:
        """Return the ids of all published releases, oldest first."""
        if not self.root.is_dir():
            return []
        return sorted(p.parent.name for p in self.root.glob(f"[!.]*/{MANIFEST}"))

    def current_id(self) -> str | None:
        return next(reversed(self.history()), None)

    def promote(self, release_id: str, *, spent: float | None = None) -> None:
        """Verify `release_id` and set the pointer to it. `roll_back` returns to the previous one.

        Args:
            spent: loss budget (shortlist/releases/quality_gates.py) that is used after this
                promotion; None: unchanged.
        """
        self.open(release_id)
        history = self.history()
        if spent is None:
            spent = history.get(self.current_id() or "", 0.0)
        history.pop(release_id, None)
        self._write_history(history | {release_id: spent})

    def roll_back(self) -> str:
        """Set the pointer to the previously promoted release and return its id.

        The used loss budget returns to its value at that time.

        Raises:
            ReleaseError: there is no previous release, or its verification fails.
        """
        history = self.history()
        if len(history) < 2:
            raise ReleaseError(f"{self.root}: no earlier release to roll back to")
        history.popitem()
        previous = next(reversed(history))
        self.open(previous)
        self._write_history(history)
        return previous

    def forget(self, release_id: str) -> None:
        """Drop a release that doesn't serve from the history, before its folder is removed.

        Raises:
            ReleaseError: the release serves.
        """
        history = self.history()
        if next(reversed(history), None) == release_id:
            raise ReleaseError(f"release {release_id} serves; promote another one first")
        if history.pop(release_id, None) is not None:
            self._write_history(history)

    def history(self) -> dict[str, float]:
        """Return {promoted release: loss budget used after its promotion}, oldest first.

        The last release is the serving one.
        """
        path = self.root / POINTER
        try:
            pointer = json.loads(path.read_text())
            spent = pointer.get("spent", {})
            return {id_: float(spent.get(id_, 0)) for id_ in pointer["history"]}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ReleaseError(
                f"{path}: not a pointer to a release ({error!r}); remove it and"
                f" `shortlist promote` one of {', '.join(self.ids()) or 'a new run'}"
            ) from None

    def _write_history(self, history: dict[str, float]) -> None:
        content = {"current": next(reversed(history)), "history": list(history), "spent": history}
        partial = self.root / f".{POINTER}-{os.getpid()}"
        with partial.open("w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.root / POINTER)


def open_release(path: Path) -> Release:
    """Verify and open the release in folder `path`, in a release store or a Bento.

    Raises:
        ReleaseError: see `ReleaseStore.open`.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        files, about, digest = dict(manifest["files"]), manifest["about"], manifest["digest"]
        release_id = about["release_id"]
    except (FileNotFoundError, NotADirectoryError):
        raise ReleaseError(f"{path}: no release there (no {MANIFEST})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReleaseError(f"{path / MANIFEST}: not a manifest: {error!r}") from None
    actual = hash_files(path)
    for name in sorted(files.keys() | actual.keys()):
        if files.get(name) != actual.get(name):
            raise ReleaseError(
                f"release {path.name}: {name} has sha256 {actual.get(name, '(file is missing)')},"
                f" the manifest says {files.get(name, '(no such file)')}; the release was changed"
            )
    if _digest_of(files, about) != digest:
        raise ReleaseError(
            f"release {path.name}: the manifest has digest {digest}, its content gives"
            f" {_digest_of(files, about)}; the manifest was changed"
        )
    return Release(release_id=release_id, path=path, about=about, files=files)


def rewritten_manifest(path: Path, changed: dict[str, str]) -> str:
    """Return the manifest of a release with other hashes of some files.

    Args:
        changed: {relative path: sha256}.
    """
    manifest = json.loads((path / MANIFEST).read_text())
    files = manifest["files"] | changed
    digest = _digest_of(files, manifest["about"])
    content = manifest | {"digest": digest, "files": files}
    return json.dumps(content, indent=1, sort_keys=True)


def hash_files(folder: Path) -> dict[str, str]:
    """Return {relative path: sha256} of every file except the manifest."""
    out = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != MANIFEST:
            with path.open("rb") as file:
                out[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return out


def _digest_of(files: dict[str, str], about: dict[str, Any]) -> str:
    content = json.dumps([files, about], sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()
