"""A file of vectors that are found by the hash of the content from which they were computed."""

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

KEY_BYTES = 16
MAX_VECTORS = 200_000
"""Maximum number of vectors in a file. Those that were not used last are dropped."""

_computing = threading.Lock()


def cached_vectors(
    keys: Sequence[bytes], encode: Callable[[list[int]], np.ndarray], *, path: Path | None
) -> dict[bytes, np.ndarray]:
    """Return {key: vector (D,) float32}, from the file `path` where it has the key.

    Args:
        keys: hashes of KEY_BYTES bytes; may repeat.
        encode: computes (M, D) vectors of the content at M indices into `keys`; called at most
            once, with one index of each missing key.
        path: safetensors file, which is created or extended; None: nothing is stored.
    """
    distinct = {key: row for row, key in reversed(list(enumerate(keys)))}
    # Sources that train in parallel threads read the same content; the second one waits.
    with _computing if path is not None else nullcontext():
        found = _read(path)
        missing = sorted(row for key, row in distinct.items() if key not in found)
        if not missing:
            return found
        made = dict(zip((keys[row] for row in missing), encode(missing), strict=True))
        if path is not None:
            used = {key: made.get(key, found.get(key)) for key in distinct}
            others = {key: vector for key, vector in found.items() if key not in used}
            merged = others | {key: vector for key, vector in used.items() if vector is not None}
            _write(path, dict(list(merged.items())[-MAX_VECTORS:]))  # the newest come last
    return found | made


def _read(path: Path | None) -> dict[bytes, np.ndarray]:
    if path is None or not path.is_file():
        return {}
    try:
        stored = load_file(path)
        keys, vectors = stored["keys"], stored["vectors"]
    except (SafetensorError, OSError, KeyError):  # damaged: compute the vectors again
        return {}
    return {key.tobytes(): row for key, row in zip(keys, vectors, strict=True)}


def _write(path: Path, vectors: dict[bytes, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = np.frombuffer(b"".join(vectors), dtype=np.uint8).reshape(-1, KEY_BYTES)
    # Concurrent processes each write a temporary file; the last rename wins.
    partial = path.with_suffix(f".{os.getpid()}.partial")
    save_file({"keys": keys, "vectors": np.stack(list(vectors.values()))}, partial)
    partial.replace(path)
