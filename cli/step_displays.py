"""Displays the steps of a command on stderr.

On a terminal, each step has one live line. Elsewhere, such as in CI, it has two plain lines.
"""

import contextlib
import os
import time
from typing import TextIO

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

MAX_WIDTH = 100


class StepDisplay(contextlib.AbstractContextManager):
    """Base class of the displays: prints the heading and stores expected durations.

    Args:
        terminal: the stream to print to.
        heading: printed once, before the first step.
    """

    def __init__(self, terminal: TextIO, heading: str):
        self.terminal = terminal
        self.heading = heading
        self.expected: dict[str, float] = {}
        """Step -> seconds it took in an earlier run."""
        self.is_begun = False

    def begin(self) -> None:
        if not self.is_begun:
            self.is_begun = True
            print(self.heading, file=self.terminal, flush=True)


class StepLines(StepDisplay):
    """Prints a line at the start and a line at the end of each step, for pipes and CI."""

    def __init__(self, terminal: TextIO, heading: str):
        super().__init__(terminal, heading)
        self.running: dict[str, float] = {}
        """Step -> start time in seconds (`time.monotonic`)."""

    def started(self, step: str) -> None:
        self.begin()
        self.running[step] = time.monotonic()
        expected = self.expected.get(step)
        self._print(step, "started" + (f" (last time {expected} s)" if expected else ""))

    def ended(self, step: str, seconds: float) -> None:
        del self.running[step]
        self._print(step, f"done in {seconds} s")

    def skipped(self, step: str, seconds: float) -> None:
        self.begin()
        self._print(step, f"finished before, in {seconds} s")

    def __exit__(self, *_: object) -> None:
        for step, started in self.running.items():
            self._print(step, f"failed after {time.monotonic() - started:.1f} s")

    def _print(self, step: str, text: str) -> None:
        print(f"{step}: {text}", file=self.terminal, flush=True)


class LiveSteps(StepDisplay):
    """Shows a line per step with its elapsed time and its estimated remaining time."""

    def __init__(self, terminal: TextIO, heading: str):
        super().__init__(terminal, heading)
        width = os.get_terminal_size(terminal.fileno()).columns or 80
        self.progress = Progress(
            _MarkColumn(),
            TextColumn("{task.description}"),
            _Elapsed(),
            _NoteColumn(),
            console=Console(file=terminal, width=min(width, MAX_WIDTH), highlight=False),
            refresh_per_second=2,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self.running: dict[str, TaskID] = {}

    def started(self, step: str) -> None:
        if not self.is_begun:
            self.begin()
            self.progress.start()
        expected = self.expected.get(step)
        self.running[step] = self.progress.add_task(step, total=None, mark="", expected=expected)

    def ended(self, step: str, seconds: float) -> None:
        self._stop(step, mark="[green]✓[/]")

    def skipped(self, step: str, seconds: float) -> None:
        self.started(step)
        self._stop(step, mark="[green]✓[/]", note=f"finished before, in {span(seconds)}")

    def __exit__(self, *_: object) -> None:
        for step in list(self.running):
            self._stop(step, mark="[red]✗[/]", note="failed")
        if self.is_begun:
            self.progress.stop()

    def _stop(self, step: str, *, mark: str, note: str = "") -> None:
        task = self.running.pop(step)
        self.progress.stop_task(task)
        self.progress.update(task, mark=mark, note=note)


class _MarkColumn(SpinnerColumn):
    """Column with a spinner while the step runs, then the step's mark."""

    def render(self, task: Task):
        mark = task.fields["mark"]
        return Text.from_markup(mark) if mark else super().render(task)


class _Elapsed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(span(task.elapsed or 0), justify="right")


class _NoteColumn(ProgressColumn):
    """Column with the estimated remaining time of a running step, or a note on a finished one."""

    def render(self, task: Task) -> Text:
        expected = task.fields["expected"]
        if task.fields["mark"]:
            return Text(task.fields["note"], style="dim")
        if expected is None:
            return Text("")
        left = expected - (task.elapsed or 0)
        return Text(
            f"about {span(left)} left" if left > 0 else "longer than last time", style="dim"
        )


def span(seconds: float) -> str:
    """Format seconds as minutes and seconds: 754 -> "12:34"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
