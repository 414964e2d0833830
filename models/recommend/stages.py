"""Runs the stages of one request, and handles their time budget, errors and timing.

A stage is a named piece of work with a default result. The default is used if the stage fails, if
the request's time budget is used up, or if the stage is switched off. The answer names such stages
as skipped. Offline evaluation runs the same stages with `strictly`, which raises all errors.

The terms are those of the candidate pipeline in xai-org/x-algorithm: hydrate the query, retrieve
from sources, filter, score, select, and run side effects after the answer.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

log = logging.getLogger("shortlist.recommend")

T = TypeVar("T")

IN_A_ROW = 5
"""A stage is switched off after it failed or was slow in this many requests in a row."""
OFF_SECONDS = 10.0
"""Seconds after which one request tries a stage that is off. If it fails, the time starts again."""
SLOW_SHARE = 0.5
"""A stage that uses more than this share of the request's budget is slow."""


class Run(Protocol):
    """A function that runs one stage and returns its result, or `otherwise` if it is skipped.

    Args:
        name: name of the stage.
        work: computes the result.
        otherwise: the default result.
    """

    def __call__(self, name: str, work: Callable[[], T], otherwise: T, /) -> T: ...


def strictly(name: str, work: Callable[[], T], otherwise: T, /) -> T:
    """Run the stage and raise its errors; `otherwise` is not used."""
    return work()


class StageHealth:
    """Switches off stages that keep failing or are slow. All requests of a process share it."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._bad: dict[str, int] = {}
        self._off_until: dict[str, float] = {}
        self._lock = threading.Lock()
        self.switched_off: frozenset[str] = frozenset()
        """Stages that an operator or a guardrail switched off; no request tries them."""

    def is_off(self, name: str) -> bool:
        """Return whether the stage is off.

        Every OFF_SECONDS, one request gets False for a stage that is off, and tries it.
        """
        if name in self.switched_off:
            return True
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
        return sorted(self._off_until.keys() | self.switched_off)

    def record(self, name: str, *, good: bool, why: str = "") -> None:
        """Count the outcome of a stage in one request.

        Args:
            good: True if the stage neither failed nor was slow.
            why: reason if `good` is False, for the log.
        """
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
    """Runs the stages of one request (see `Run`); records skipped stages and times."""

    def __init__(
        self,
        health: StageHealth,
        *,
        budget: float = float("inf"),
        clock: Callable[[], float] = time.perf_counter,
    ):
        """
        Args:
            budget: seconds after construction within which each stage must start.
        """
        self._health = health
        self._budget = budget
        self._clock = clock
        self._started = clock()
        self.skipped: list[str] = []
        """Names of the stages whose result was `otherwise`, in order, without repeats."""
        self.seconds: dict[str, float] = {}
        """Stage -> seconds that it took, in order."""
        self._faults: dict[str, str] = {}
        """Stage -> why it failed or was slow; an empty text if it did neither."""

    def __call__(self, name: str, work: Callable[[], T], otherwise: T, /) -> T:
        """Run `work` and return its result; `otherwise` if the stage is skipped or fails."""
        started = self._clock()
        if self._health.is_off(name) or started - self._started >= self._budget:
            self.skip(name)
            return otherwise
        try:
            result = work()
        except Exception as error:
            # Catch every exception, so that the request continues without this stage.
            if name not in self._health.off:
                log.exception("stage %s failed; the answer is made without it", name)
            self.skip(name)
            self._took(name, started, failure=f"{type(error).__name__}: {error}")
            return otherwise
        self._took(name, started)
        return result

    def skip(self, name: str) -> None:
        """Record a stage as skipped, without counting a failure."""
        if name not in self.skipped:
            self.skipped.append(name)

    def _took(self, name: str, started: float, *, failure: str = "") -> None:
        seconds = self._clock() - started
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        if not failure and seconds > SLOW_SHARE * self._budget:
            failure = f"{seconds:.3f} s of a budget of {self._budget:g} s"
        self._faults[name] = failure or self._faults.get(name, "")

    def finish(self) -> None:
        """Report each stage of the request to `StageHealth`, once.

        A stage may run several times. For example, `content` retrieves known items and then new
        ones. It counts as failed if one of its runs failed or was slow.
        """
        for name, why in self._faults.items():
            self._health.record(name, good=not why, why=why)
