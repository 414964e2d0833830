"""A file of vectors that are found by the hash of the content from which they were computed."""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

KEY_BYTES = 16
MAX_VECTORS = 200_000
"""Maximum number of vectors in a file. Those that were not used last are dropped."""

_writing = threading.Lock()


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
    found = _read(path)
    missing = [row for key, row in sorted(distinct.items(), key=lambda one: one[1])]
    missing = [row for row in missing if keys[row] not in found]
    if not missing:
        return found
    made = dict(zip((keys[row] for row in missing), encode(missing), strict=True))
    if path is not None:
        with _writing:
            merged = _read(path)  # other threads may have added vectors since
            for key in distinct:
                vector = made.get(key, found.get(key))
                merged.pop(key, None)
                if vector is not None:
                    merged[key] = vector  # the newest come last
            _write(path, dict(list(merged.items())[-MAX_VECTORS:]))
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
