"""Output of long commands: one line per step; details go to a log file.

The log file is in the home, the folder of the deployment.
"""

import contextlib
import ctypes
import os
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from cli import show
from cli.step_displays import LiveSteps, StepDisplay, StepLines

KEPT_LOGS = 100
"""Number of log files that are kept for each command."""


class StepOutput:
    """Controls how the steps of one command are displayed.

    Args:
        display: shows the steps; None: steps aren't displayed (`--verbose`).
    """

    def __init__(self, display: StepDisplay | None):
        self.display = display

    def expect(self, config_name: str) -> None:
        """Estimate the seconds of each step from earlier runs of this configuration."""
        from flows.runtime.progress import previous_seconds
        from shortlist.config import Settings

        if self.display is not None:
            self.display.expected = previous_seconds(Settings().runs, config_name)


@contextlib.contextmanager
def shown_steps(command: str, *, as_json: bool, verbose: bool) -> Iterator[StepOutput]:
    """Show the steps of the block on stderr; everything else that is printed goes to a log file.

    An error is logged with its traceback and gets a note with the path of the log file. If it is
    raised before the first step, for example by a wrong argument, the log file is removed instead.

    Args:
        command: name of the command, part of the log file's name.
        as_json: if also `verbose`, whatever is printed goes to stderr, see `show.only_json`.
        verbose: show everything on the terminal and write no log file.
    """
    if verbose:
        with show.only_json(as_json):
            yield StepOutput(None)
        return
    from flows.runtime.progress import shown_on
    from shortlist.config import Settings

    log = _new_log(Settings().logs, command)
    display = None
    try:
        with printing_to(log) as terminal:
            display = _display(terminal, f"{command}: details in {log}")
            with display, shown_on(display):
                try:
                    yield StepOutput(display)
                except BaseException:
                    traceback.print_exc()
                    raise
    except Exception as error:
        if display is not None and display.is_begun:
            error.add_note(f"details: {log}")
        else:
            log.unlink()
        raise


@contextlib.contextmanager
def printing_to(path: Path) -> Iterator[TextIO]:
    """Append to a file everything that this process, its libraries and its child processes print.

    Yields the original stderr. The file descriptors are redirected, because C++ libraries, child
    processes and existing log handlers don't use `sys.stderr`.
    """
    _flush()
    kept = os.dup(1), os.dup(2)
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    try:
        with path.open("a") as log:
            for descriptor in (1, 2):
                os.dup2(log.fileno(), descriptor)
        with (
            os.fdopen(os.dup(kept[1]), "w", encoding=encoding, errors="replace") as terminal,
            contextlib.redirect_stdout(sys.stderr),
        ):
            yield terminal
    finally:
        _flush()
        for descriptor, before in zip((1, 2), kept, strict=True):
            os.dup2(before, descriptor)
            os.close(before)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)  # the buffers of C libraries


def _display(terminal: TextIO, heading: str) -> LiveSteps | StepLines:
    live = terminal.isatty() and os.environ.get("TERM") not in (None, "dumb", "unknown")
    return LiveSteps(terminal, heading) if live else StepLines(terminal, heading)


def _new_log(folder: Path, command: str) -> Path:
    """Create an empty log file and remove the oldest log files of the command."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.glob(f"{command}-*.log"))[: -KEPT_LOGS + 1]:
        old.unlink(missing_ok=True)
    path = folder / f"{command}-{datetime.now(UTC):%Y%m%dT%H%M%S}.log"
    path.touch()
    return path
