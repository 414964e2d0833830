"""Writing a text file that a user asked for by its path."""

from pathlib import Path


class WriteError(OSError):
    """A file that a user asked for cannot be written at that path."""


def write_text(path: Path, text: str) -> None:
    """Raises WriteError if the folder does not exist or the file may not be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise WriteError(
            f"{path}: {problem.strerror}; want a file in a folder that is there"
        ) from None
