"""Finds people: recent ones of this worker, and those of the lake whose id contains a text."""

import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from services.console.deployment import Deployment
from shortlist import columns as c

PAGE = 20
_lock = threading.Lock()
_known: dict[Path, tuple[tuple[int, int], pa.ChunkedArray]] = {}


def recent_people(running: Deployment) -> list[str]:
    """Return the last users that this worker answered, newest first, each once."""
    return list(dict.fromkeys(reversed(running.recent_users)))


def search_people(running: Deployment, text: str, *, page: int = 0) -> tuple[list[str], int]:
    """Return one page of the users whose id contains `text`, exact and shorter ids first, and the
    number of all of them.
    """
    ids = user_ids(running.settings.lake / "current" / "users.parquet")
    found = ids.filter(pc.match_substring(ids, text))
    order = pc.sort_indices(
        pa.table({"length": pc.utf8_length(found), "id": found}),
        sort_keys=[("length", "ascending"), ("id", "ascending")],
    )
    chosen = order[page * PAGE : (page + 1) * PAGE]
    return found.take(chosen).to_pylist(), len(found)


def user_ids(path: Path) -> pa.ChunkedArray:
    """Return the ids of all users of the lake, read again if the file was replaced."""
    try:
        stat = path.stat()
    except FileNotFoundError:  # a Bento without a lake
        return pa.chunked_array([[]], pa.string())
    stamp = stat.st_mtime_ns, stat.st_ino
    with _lock:
        if path not in _known or _known[path][0] != stamp:
            ids = pq.read_table(path, columns=[c.USER_ID]).column(0).cast(pa.string())
            _known.clear()
            _known[path] = stamp, ids
        return _known[path][1]
