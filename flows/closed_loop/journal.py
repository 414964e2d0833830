"""Log of each simulated day of an arm; an interrupted loop resumes after the last stored day.

An arm is a policy that fills the home pages. A day is written to a partial folder and renamed, so
it exists completely or not at all. Layout: <folder>/day-0007/{state,targets,pages,shown}.npz,
without pickle.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.closed_loop.memory import Targets
from simulation.state import State

PARTS = ("state", "targets", "pages", "shown")
PAGE_COLUMNS = (
    "user",
    "home",
    "clicks",
    "purchases",
    "revenue",
    "watch_seconds",
    "satisfaction",
    "expected",
    "best",
    "fresh_shown",
    "fresh_clicked",
)


@dataclass
class DayLog:
    """Log of one simulated day of an arm. Shapes: S pages, R home-page impressions, F features."""

    day: int
    state: State  # of the simulated users, at the end of the day
    targets: Targets  # the events that models learn from
    pages: dict[str, np.ndarray]  # PAGE_COLUMNS, each (S,)
    shown: dict[str, np.ndarray]  # user, item, chance (propensity), label (R,), features (R, F)

    def save(self, folder: Path) -> None:
        final = folder / f"day-{self.day:04d}"
        partial = folder / f".day-{self.day:04d}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        content = (self.state.arrays(), vars(self.targets), self.pages, self.shown)
        for name, arrays in zip(PARTS, content, strict=True):
            np.savez(partial / f"{name}.npz", allow_pickle=False, **arrays)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)

    @classmethod
    def load(cls, folder: Path, day: int) -> "DayLog":
        path = folder / f"day-{day:04d}"
        state, targets, pages, shown = (_arrays(path / f"{name}.npz") for name in PARTS)
        return cls(day, State.from_arrays(state), Targets(**targets), pages, shown)


def finished_days(folder: Path) -> int:
    """Return the number of consecutive days stored in `folder`, counted from day 0."""
    day = 0
    while (folder / f"day-{day:04d}").is_dir():
        day += 1
    return day


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}
