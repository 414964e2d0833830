"""Writes that survive a power cut."""

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Flush a file, or the names of the files in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
