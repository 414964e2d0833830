"""Draws small item images: the topic determines shape and hue, the brand an accent colour.

Quality and appeal don't affect an image. The images are for display and for image encoders; the
column `vector_image` is not computed from their pixels. Item rows are indices into the world's
arrays of items.

Shapes: SIZE x SIZE pixels.
"""

import colorsys
import struct
import zlib
from pathlib import Path

import numpy as np

from simulation.world import World

SIZE = 32


def draw(world: World, item: int) -> np.ndarray:
    """Draw the image of an item as (SIZE, SIZE, 3) uint8; the same world gives the same image.

    Args:
        item: item row.
    """
    rng = world.rng("image", item)
    topic, topics = int(world.items.topic[item]), world.config.catalogue.topics
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE - 0.5
    x = x - rng.uniform(-0.1, 0.1)
    y = y - rng.uniform(-0.1, 0.1)
    radius = rng.uniform(0.22, 0.36)
    shapes = (
        np.hypot(x, y) < radius,
        np.maximum(abs(x), abs(y)) < radius * 0.85,
        abs(x) + abs(y) < radius,
        (y > -radius) & (y < radius) & (abs(x) < (y + radius) / 2),
        np.sin((x + y) * 30) > 0.2,
        np.abs(np.hypot(x, y) - radius) < 0.07,
    )
    hue = topic / topics + rng.normal(0, 0.012)
    image = np.empty((SIZE, SIZE, 3))
    image[:] = colorsys.hsv_to_rgb(hue % 1, 0.25, 0.95)
    image[shapes[topic % len(shapes)]] = colorsys.hsv_to_rgb(hue % 1, 0.8, 0.75)
    accent = world.items.brand[item] / max(world.config.catalogue.brands, 1)
    image[-4:, -10:] = colorsys.hsv_to_rgb(accent, 0.9, 0.4)
    image += rng.normal(0, 0.03, size=image.shape)
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint8 pixels as a PNG file (RFC 2083), without an image library."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows, 6))
        + chunk(b"IEND", b"")
    )


def draw_all(world: World, folder: Path, *, until: int) -> list[str]:
    """Write the images of item rows 0 .. until - 1; return their paths. Existing files are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for item in range(until):
        path = folder / f"{item:07d}.png"
        if not path.is_file():
            partial = path.with_suffix(".partial")
            partial.write_bytes(png(draw(world, item)))
            partial.replace(path)
        paths.append(str(path))
    return paths
