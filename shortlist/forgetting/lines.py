"""Erases lines of files that other processes append to: events, serving log, answer log.

A line is overwritten by blanks of the same length. So the file keeps its length, positions that
readers stored stay valid, and a process that has the file open continues to append to it. A line
that begins with a blank counts as erased, so also one whose overwriting was interrupted.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

BLANK = b" "


def is_erased(line: bytes) -> bool:
    """Return whether a line of a log was erased. JSON lines never begin with a blank."""
    return line.startswith(BLANK)


def finished_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (position, line without its end) of all lines that end with a newline."""
    position = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield position, line[:-1]
            position += len(line)


def overwrite_lines(path: Path, change: Callable[[bytes], bytes | None]) -> int:
    """Overwrite lines in place; return the number of lines that were changed.

    Args:
        change: returns the new content of a line, with the same length; None to erase the line.
    """
    changed = 0
    file = os.open(path, os.O_RDWR)
    try:
        for position, line in finished_lines(path):
            if is_erased(line):
                if line.strip(BLANK):  # its overwriting was interrupted
                    os.pwrite(file, BLANK * len(line), position)
                continue
            new = change(line)
            new = BLANK * len(line) if new is None else new
            assert len(new) == len(line), "positions in the file stay valid"
            if new != line:
                os.pwrite(file, new, position)
                changed += 1
        os.fsync(file)
    finally:
        os.close(file)
    return changed
