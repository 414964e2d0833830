"""Writes text files to a path given by the user."""

from pathlib import Path


class WriteError(OSError):
    """The file cannot be written at the given path."""


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8. Raises WriteError if the folder is missing or not writable."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise WriteError(
            f"{path}: {problem.strerror}; want a file path in an existing folder"
        ) from None
