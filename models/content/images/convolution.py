"""A small convolutional image encoder that is trained on the catalogue's own images.

It needs no downloaded weights. The loss is the sum of two parts: the contrastive loss of SimCLR
(Chen et al. 2020), which pulls two distorted views of an image together, and, if the images have
categories, a classification of these. The distortions keep the hue, which often matters for items.

Shapes: P images, S pixels of each side, K categories, D dim, B batch.
"""

import hashlib
import os
import threading
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.training import OptimiserConfig

SIZE = 32
DIM = 64
WIDTHS = (24, 48, 96)
EPOCHS = 12
BATCH = 128
LEARNING_RATE = 3e-3
TEMPERATURE = 0.2
MAX_IMAGES_PER_EPOCH = 5_000
"""An epoch takes a random part of a larger catalogue."""
VERSION = 1
"""Raise it after a change that makes cached weights wrong."""

_training = threading.Lock()


class ImageEncoder(nn.Module):
    """Convolutions with stride 2, mean and maximum over the image, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in WIDTHS:
            layers += [
                nn.Conv2d(before, width, 3, stride=2, padding=1),
                nn.GroupNorm(8, width),
                nn.GELU(),
            ]
            before = width
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(2 * before, DIM)

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode images (B, 3, S, S) with values from -1 to 1: (B, D), not normalised."""
        x = self.layers(pixels)
        return self.out(torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1))

    @torch.no_grad()
    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Encode (P, S, S, 3) uint8 to unit vectors (P, D) float32."""
        self.eval()
        parts = [
            F.normalize(self(_as_tensor(pixels[i : i + BATCH])), dim=1).numpy()
            for i in range(0, len(pixels), BATCH)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, DIM), dtype=np.float32)


def fit_image_encoder(
    pixels: np.ndarray, labels: np.ndarray, *, seed: int, cache: Path | None
) -> ImageEncoder:
    """Train an encoder on (P, S, S, 3) uint8 images and return it in evaluation mode.

    Args:
        labels: (P, K) float32 multi-hot categories; K = 0: only the contrastive loss is used.
        cache: folder in which weights are looked up by the content of images and labels.
    """
    content = hashlib.sha256(f"{VERSION} {seed} {pixels.shape} {labels.shape}".encode())
    content.update(pixels.tobytes())
    content.update(labels.tobytes())
    path = cache / f"images-{content.hexdigest()[:24]}.safetensors" if cache else None
    with _training:  # sources that train in parallel threads share one encoder
        if path is not None and path.is_file():
            encoder = ImageEncoder()
            encoder.load_state_dict(load_file(path))
            return encoder.eval()
        encoder = _train(pixels, labels, seed=seed)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}.partial")
            save_file(encoder.state_dict(), partial)
            partial.replace(path)
    return encoder


def _train(pixels: np.ndarray, labels: np.ndarray, *, seed: int) -> ImageEncoder:
    generator = torch.Generator().manual_seed(seed)
    encoder, classes = ImageEncoder(), nn.Linear(DIM, max(labels.shape[1], 1))
    _initialise(encoder, generator)
    _initialise(classes, generator)
    parameters = [*encoder.parameters(), *classes.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=1e-4, fused=True)
    count = min(len(pixels), MAX_IMAGES_PER_EPOCH)
    schedule = OptimiserConfig(
        learning_rate=LEARNING_RATE, warmup_steps=10, schedule="cosine", num_epochs=EPOCHS
    )
    step = 0
    wanted = torch.from_numpy(labels)
    encoder.train()
    for epoch in range(EPOCHS if len(pixels) > 1 else 0):
        order = torch.randperm(len(pixels), generator=generator)[:count]
        for rows in order.split(BATCH):
            if len(rows) < 2:
                continue
            step += 1
            for group in optimiser.param_groups:
                group["lr"] = schedule.rate(step=step, epoch=epoch)
            batch = _as_tensor(pixels[rows.numpy()])
            first, second = (encoder(_distorted(batch, generator)) for _ in range(2))
            loss = _contrastive(first, second)
            if labels.shape[1]:
                both = classes(torch.cat([first, second]))
                loss = loss + 10 * F.binary_cross_entropy_with_logits(
                    both, wanted[rows].repeat(2, 1)
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    return encoder.eval()


def _initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw all weight matrices from `generator`, so that parallel trainings don't interact."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            inputs = parameter[0].numel()
            nn.init.normal_(parameter, std=inputs**-0.5, generator=generator)
        elif parameter.ndim == 1 and not bool((parameter == 1).all()):
            nn.init.zeros_(parameter)


def _as_tensor(pixels: np.ndarray) -> Tensor:
    """Convert (B, S, S, 3) uint8 to (B, 3, S, S) float32 from -1 to 1."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def _distorted(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Shift, mirror, scale the contrast and add noise, differently for each image."""
    B, _, S, _ = batch.shape
    pad = S // 8
    padded = F.pad(batch, (pad, pad, pad, pad), mode="reflect")
    shift = torch.randint(0, 2 * pad + 1, (B, 2), generator=generator)
    row = shift[:, :1] + torch.arange(S)
    column = shift[:, 1:] + torch.arange(S)
    mirrored = torch.rand(B, generator=generator) < 0.5
    column = torch.where(mirrored[:, None], column.flip(1), column)
    moved = padded[torch.arange(B)[:, None, None], :, row[:, :, None], column[:, None, :]]
    x = moved.permute(0, 3, 1, 2)
    contrast = 0.8 + 0.4 * torch.rand(B, 1, 1, 1, generator=generator)
    return x * contrast + 0.05 * torch.randn(x.shape, generator=generator)


def _contrastive(first: Tensor, second: Tensor) -> Tensor:
    """Return the NT-Xent loss of two views of the same images, (B, D) each."""
    both = F.normalize(torch.cat([first, second]), dim=1)
    B = len(first)
    similar = (both @ both.T / TEMPERATURE).fill_diagonal_(-torch.inf)
    return F.cross_entropy(similar, torch.arange(2 * B).roll(B))
