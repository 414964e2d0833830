"""Image vectors by a pretrained vision model of the library transformers (CLIP, DINO, ViT, ...).

The model is a folder on disk, or a name that transformers finds in its cache or downloads.

Shapes: P images, S pixels of each side, D dim.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.content.vectors import ContentError, unit_rows

BATCH = 32
DEFAULT_SIDE = 224


def pretrained_side(encoder: str) -> int:
    """Return S, the number of pixels of each side that the model reads. Raises ContentError."""
    return _loaded(encoder)[1]


def pretrained_vectors(pixels: np.ndarray, *, encoder: str) -> np.ndarray:
    """Encode (P, S, S, 3) uint8 to unit vectors (P, D) float32. Raises ContentError."""
    model, side, mean, deviation = _loaded(encoder)
    parts = []
    for i in range(0, max(len(pixels), 1), BATCH):  # one empty batch gives the width
        batch = pixels[i : i + BATCH] if len(pixels) else np.zeros((1, side, side, 3), np.uint8)
        x = torch.from_numpy((batch / 255 - mean) / deviation).float().permute(0, 3, 1, 2)
        with torch.inference_mode():
            parts.append(_pooled(model, x).numpy())
    return unit_rows(np.concatenate(parts)[: len(pixels)])


def _pooled(model: Any, x: torch.Tensor) -> torch.Tensor:
    """Return one vector per image: the model's image embedding, its pooled output or the mean."""
    if hasattr(model, "get_image_features"):
        found = model.get_image_features(pixel_values=x)
    else:
        found = model(pixel_values=x)
    if isinstance(found, torch.Tensor):
        return found
    pooled = getattr(found, "pooler_output", None)
    pooled = found.last_hidden_state if pooled is None else pooled
    if pooled.ndim == 4:  # (P, D, H, W) of a convolutional model
        return pooled.mean((2, 3))
    return pooled.mean(1) if pooled.ndim == 3 else pooled


@lru_cache(maxsize=1)
def _loaded(encoder: str) -> tuple[Any, int, np.ndarray, np.ndarray]:
    """Return the model, S, and mean and standard deviation of its colours."""
    from transformers import AutoModel

    local = Path(encoder).is_dir()
    try:
        # Safe: the name comes from the run's TOML, not from a client.
        model = AutoModel.from_pretrained(encoder, local_files_only=local).eval()  # nosec B615
    except (OSError, ValueError, KeyError) as error:
        raise ContentError(
            f"image encoder '{encoder}' can't be loaded ({str(error).splitlines()[0][:200]}); want"
            " `trained`, the folder of a vision model of transformers, or the name of one that is"
            " downloaded or can be"
        ) from error
    vision = getattr(model.config, "vision_config", model.config)
    about: dict[str, Any] = {}
    file = Path(encoder) / "preprocessor_config.json"
    if file.is_file():
        about = json.loads(file.read_text())
    side = getattr(vision, "image_size", DEFAULT_SIDE)
    side = int(side[0] if isinstance(side, list | tuple) else side)
    mean = np.array(about.get("image_mean", [0.5, 0.5, 0.5]))
    deviation = np.array(about.get("image_std", [0.5, 0.5, 0.5]))
    return model, side, mean, deviation
