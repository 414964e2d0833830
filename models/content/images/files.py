"""Reads image files of items with limits; files that can't be used are reported with a reason.

Only local files are read. A file is opened only if it is a regular file, so that a path in the
catalogue can't make the reader wait on a device or a pipe.

Shapes: V items, S pixels of each side.
"""

import stat
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAX_BYTES = 20_000_000
"""Larger files are not read."""
MAX_PIXELS = 40_000_000
"""Images with more pixels are not decoded, whatever the size of the file (decompression bombs)."""
MIN_SIDE = 2
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


@dataclass(frozen=True)
class ImageFault:
    """An image that can't be used."""

    row: int  # index into the paths
    path: str
    reason: str


class _UnusableImage(Exception):
    """The file can't be used; the message is the reason."""


def read_images(
    paths: Sequence[str | None], *, size: int
) -> tuple[np.ndarray, np.ndarray, list[ImageFault]]:
    """Decode images and resize them to squares.

    Args:
        paths: of V items; None or empty: the item has no image.
        size: S.

    Returns:
        (P, S, S, 3) uint8 pixels, (P,) int64 indices into `paths` of the P usable images, and the
        faults of the other ones.
    """
    pixels, rows, faults = [], [], []
    for row, path in enumerate(paths):
        if not path:
            continue
        try:
            pixels.append(_read(path, size))
            rows.append(row)
        except _UnusableImage as error:
            faults.append(ImageFault(row, path, str(error)))
    stacked = np.stack(pixels) if pixels else np.zeros((0, size, size, 3), dtype=np.uint8)
    return stacked, np.array(rows, dtype=np.int64), faults


def _read(path: str, size: int) -> np.ndarray:
    """Decode one image to (size, size, 3). Raises _Unusable."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    file = _local(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the limit below is lower than Pillow's warning
            with Image.open(file, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise _UnusableImage(
                        f"has {width:,} x {height:,} pixels, want at most {MAX_PIXELS:,}"
                    )
                if min(width, height) < MIN_SIDE:
                    raise _UnusableImage(f"has {width} x {height} pixels, want at least 2 x 2")
                image.draft("RGB", (2 * size, 2 * size))  # JPEG: decode at a lower resolution
                image = ImageOps.exif_transpose(image)
                if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                    image = image.convert("RGBA")
                    ground = Image.new("RGBA", image.size, "white")
                    image = Image.alpha_composite(ground, image)
                image = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
                return np.asarray(image, dtype=np.uint8)
    except UnidentifiedImageError:
        raise _UnusableImage(f"is not an image, want {', '.join(FORMATS)}") from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, IndexError) as error:
        why = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise _UnusableImage(f"is damaged: {why}") from None
    except Image.DecompressionBombError:
        raise _UnusableImage(f"has too many pixels, want at most {MAX_PIXELS:,}") from None


def _local(path: str) -> Path:
    """Return the path of a regular file that is not too large. Raises _Unusable."""
    if path.startswith("file://"):
        path = path.removeprefix("file://")
    if "://" in path or path.startswith("data:"):
        raise _UnusableImage("is not a local file; download it and give its path")
    try:
        about = Path(path).stat()
    except FileNotFoundError:
        raise _UnusableImage("no such file") from None
    except (OSError, ValueError) as error:  # no permission, a path that is too long, a null byte
        raise _UnusableImage(f"can't be read: {error}"[:160]) from None
    if not stat.S_ISREG(about.st_mode):
        raise _UnusableImage("is not a regular file")
    if about.st_size > MAX_BYTES:
        raise _UnusableImage(f"has {about.st_size:,} bytes, want at most {MAX_BYTES:,}")
    if about.st_size == 0:
        raise _UnusableImage("is empty")
    return Path(path)
