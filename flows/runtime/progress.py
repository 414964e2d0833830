"""Reports start and end of each step of a run, and reads the duration of steps in earlier runs.

A command of the CLI sets a display (such as progress bars) with `shown_on`. Without a display, as
in a Prefect worker, steps only print, and Prefect logs the output.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol


class StepDisplay(Protocol):
    """Interface of objects that show the steps of a run."""

    def started(self, step: str) -> None: ...

    def ended(self, step: str, seconds: float) -> None: ...

    def skipped(self, step: str, seconds: float) -> None:
        """Show a step that a resumed run doesn't repeat; it took `seconds`."""
        ...


_display: ContextVar[StepDisplay | None] = ContextVar("display", default=None)


@contextlib.contextmanager
def shown_on(display: StepDisplay) -> Iterator[None]:
    """Show the steps of this context on `display`."""
    token = _display.set(display)
    try:
        yield
    finally:
        _display.reset(token)


def timed(
    step: str, work: Callable[..., Any], /, *args: Any, **parameters: Any
) -> tuple[Any, float]:
    """Call `work(*args, **parameters)` as a step; return its result and the seconds it took.

    Start and end are printed and shown on the display.
    """
    display = _display.get()
    print(f"{step}: started")
    if display is not None:
        display.started(step)
    started = time.perf_counter()
    result = work(*args, **parameters)
    seconds = round(time.perf_counter() - started, 1)
    print(f"{step}: done in {seconds} s")
    if display is not None:
        display.ended(step, seconds)
    return result, seconds


def skip(step: str, seconds: float) -> None:
    """Report a step that was finished in an earlier call."""
    print(f"{step}: finished before, in {seconds} s")
    display = _display.get()
    if display is not None:
        display.skipped(step, seconds)


def previous_seconds(runs: Path, config_name: str) -> dict[str, float]:
    """Return {step: seconds it took in the newest run of this configuration that finished it}.

    Runs that are older than the newest completed run are not read.

    Args:
        runs: the folder of the home's runs.
        config_name: `name` of the run's TOML file.
    """
    found: dict[str, float] = {}
    for path in sorted(runs.glob("*/config.json"), reverse=True):
        if json.loads(path.read_text())["name"] != config_name:
            continue
        for step in (path.parent / "steps").glob("*.json"):
            found.setdefault(step.stem, json.loads(step.read_text())["seconds"])
        if (path.parent / "summary.json").is_file():
            break
    return found
