"""Runs the stages of one request: their order, budget, errors and times.

A stage is a named piece of work with a replacement for its result. It is skipped if it fails, if
the request's budget is used up, or if it was switched off. The names of skipped stages are part of
the answer. Offline evaluation runs the same stages with `strictly`, where an error is an error.

The words are those of candidate pipelines as in xai-org/x-algorithm: hydrate the query, retrieve
from sources, filter, score, select, and side effects after the answer.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

log = logging.getLogger("shortlist.recommend")

T = TypeVar("T")

IN_A_ROW = 5
"""Requests in which a stage failed or was slow, without a good one between them, that switch the
stage off."""
OFF_SECONDS = 10.0
"""A stage that is off is tried again after this time. If that fails, it is off once more."""
SLOW_SHARE = 0.5
"""A stage that uses more than this share of the request's budget is slow."""


class Run(Protocol):
    """Runs one stage and returns its result, or `otherwise`."""

    def __call__(self, name: str, work: Callable[[], T], otherwise: T, /) -> T: ...


def strictly(name: str, work: Callable[[], T], otherwise: T, /) -> T:
    """Run the stage without any protection: an error is raised."""
    return work()


class StageHealth:
    """Which stages are switched off. One object is shared by all requests of a process."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._bad: dict[str, int] = {}
        self._off_until: dict[str, float] = {}
        self._lock = threading.Lock()

    def is_off(self, name: str) -> bool:
        """Whether the stage is off. After OFF_SECONDS one request gets to try it."""
        until = self._off_until.get(name)
        if until is None:
            return False
        with self._lock:
            now = self._clock()
            if now < self._off_until.get(name, 0.0):
                return True
            self._off_until[name] = now + OFF_SECONDS  # this request tries, the others don't
            return False

    @property
    def off(self) -> list[str]:
        """Names of the stages that are off, sorted."""
        return sorted(self._off_until)

    def record(self, name: str, *, good: bool, why: str = "") -> None:
        """Count one request's use of a stage."""
        if good and name not in self._bad:
            return
        with self._lock:
            if good:
                self._bad.pop(name, None)
                if self._off_until.pop(name, None) is not None:
                    log.warning("stage %s: on again", name)
                return
            self._bad[name] = self._bad.get(name, 0) + 1
            if self._bad[name] >= IN_A_ROW:
                if name not in self._off_until:
                    log.error("stage %s: off after %d times in a row: %s", name, IN_A_ROW, why)
                self._off_until[name] = self._clock() + OFF_SECONDS


class Stages:
    """The stages of one request. Calling it runs a stage (see `Run`)."""

    def __init__(
        self,
        health: StageHealth,
        *,
        budget: float = float("inf"),
        clock: Callable[[], float] = time.perf_counter,
    ):
        """
        Args:
            budget: seconds in which the stages must start.
        """
        self._health = health
        self._budget = budget
        self._clock = clock
        self._started = clock()
        self.skipped: list[str] = []
        """Names of the stages whose result was replaced, in order, without repeats."""
        self.seconds: dict[str, float] = {}
        """Stage -> seconds that it took, in order."""
        self._faults: dict[str, str] = {}
        """Stage -> why it was bad; empty if it was good each time that it ran."""

    def __call__(self, name: str, work: Callable[[], T], otherwise: T, /) -> T:
        """Run `work` and return its result; `otherwise` if the stage is skipped or fails."""
        started = self._clock()
        if self._health.is_off(name) or started - self._started >= self._budget:
            self.skip(name)
            return otherwise
        try:
            result = work()
        except Exception as error:
            # Whatever it is: the request goes on without the stage.
            if name not in self._health.off:
                log.exception("stage %s failed; the answer is made without it", name)
            self.skip(name)
            self._took(name, started, failure=f"{type(error).__name__}: {error}")
            return otherwise
        self._took(name, started)
        return result

    def skip(self, name: str) -> None:
        """Name a stage as skipped, without counting it as a failure."""
        if name not in self.skipped:
            self.skipped.append(name)

    def _took(self, name: str, started: float, *, failure: str = "") -> None:
        seconds = self._clock() - started
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        if not failure and seconds > SLOW_SHARE * self._budget:
            failure = f"{seconds:.3f} s of a budget of {self._budget:g} s"
        self._faults[name] = failure or self._faults.get(name, "")

    def finish(self) -> None:
        """Count the request for the health of its stages, each once.

        A stage may run several times, for example a source that retrieves and then finds new items.
        It was bad if it was bad once.
        """
        for name, why in self._faults.items():
            self._health.record(name, good=not why, why=why)
