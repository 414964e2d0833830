"""Measures windows: every figure of the traffic, drift, and the alarms of rivals, as plain JSON."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.detection.faults import FAULTS, Context, Fault
from benchmarks.detection.live import live
from benchmarks.detection.log import Log, Shop, combined, picked
from benchmarks.detection.quiet import KINDS, OF_LISTS, OF_LOG, OF_PAGES
from benchmarks.detection.record import SOURCES, WARM_DAYS, WEEKS, Lists, record
from benchmarks.detection.rivals import Rivals, columns_of
from monitoring.traffic.cuts import COVERAGE, exposure, figure
from monitoring.traffic.join import DAY, Traffic
from monitoring.traffic.measures import MEASURES
from monitoring.traffic.whole import WHOLE_MEASURES, category_coverages
from shortlist import columns as c
from simulation.oracle import Oracle
from simulation.world import World

FIRST = 5
"""Week in which faults start; the four weeks before are what windows are compared with."""
QUIET_WEEKS = range(FIRST, WEEKS)
BEFORE = 7 * DAY
"""Traffic before a week that is joined with it: windows end before the newest outcomes, and events
may arrive days after their lists."""
FIGURES = tuple(
    name
    for name, measure in MEASURES.items()
    if measure.days == 0 and measure.delay != "product_return"
) + tuple(WHOLE_MEASURES)
WEEK, DAILY = 168.0, ("skipped_stage_rate", "short_list_rate", "latency_p99")
"""Hours of a window, and the figures that are also measured over its newest day."""


class Bench:
    """One seed: the recorded loop, its clean weeks, and the scenarios."""

    def __init__(self, seed: int):
        self.seed = seed
        recording = record(seed)
        self.world, self.known = recording.world, recording.known
        self.pages = recording.lists
        self.shop = Shop.of(self.world, recording.chosen)
        self.week = (self.pages.page.at - self.world.midnight(WARM_DAYS)) // (7 * DAY)
        self.chosen_at: list[np.ndarray] = []
        """Per week, (U, N) the days of the users' last choices before it."""
        self.lists: list[Lists] = []
        self.clean: list[Log] = []
        chosen_at = recording.chosen_at
        for week in range(WEEKS):
            self.chosen_at.append(chosen_at.copy())
            rng = np.random.default_rng([seed, week])
            lists, outcome = live(
                self.world, self.known, self._of(week), chosen_at=chosen_at, rng=rng
            )
            self.lists.append(lists)
            self.clean.append(self.shop.log(lists, outcome, rng=rng))
        past = [columns_of(self.clean[week]) for week in range(FIRST - 4, FIRST)]
        self.rivals = Rivals(past, seed=seed)

    def base(self) -> list[dict[str, Any]]:
        """Return the figures of each clean week."""
        return [self._measured(week, self.clean[week]) for week in range(WEEKS)]

    def quiet(self) -> Iterator[dict[str, Any]]:
        """Yield the clean windows that are hard."""
        for number, kind in enumerate(KINDS):
            for week in QUIET_WEEKS:
                rng = np.random.default_rng([self.seed, number, week])

                def at(number: int = number, week: int = week) -> Context:
                    return self._context(0.0, 1_000 + 10 * number + week)

                pages, change = self._of(week), None
                if kind in OF_PAGES:
                    pages = OF_PAGES[kind](at(), pages)
                elif kind in OF_LISTS:
                    change = self._changed(OF_LISTS[kind], at)
                log = self._live(pages, self.chosen_at[week].copy(), rng, change)[1]
                if kind in OF_LOG:
                    log = OF_LOG[kind](at(), log)
                yield {"kind": kind, "week": week} | self._judged(week, log)

    def faulty(self, fault: Fault, strength: float) -> dict[str, Any]:
        """Return the two weeks after a fault starts, and the satisfaction that it costs in each."""
        number = FAULTS.index(fault)
        weeks, lost = [], []
        before: Log | None = None
        chosen_at = self.chosen_at[FIRST].copy()

        def at() -> Context:
            return self._context(strength, 10_000 + number)

        change = None if fault.lists is None else self._changed(fault.lists, at)
        world = None if fault.world is None else fault.world(at())
        for week in (FIRST, FIRST + 1):
            lists, log = self.lists[week], self.clean[week]
            if change is not None or world is not None:
                rng = np.random.default_rng([self.seed, number, week])
                lists, log = self._live(self._of(week), chosen_at, rng, change, world)
            if fault.log is not None:
                log = fault.log(at(), log)
            weeks.append(self._judged(week, log, before=before))
            before = log
            oracle = Oracle(self.world)
            clean = self.lists[week]
            values = [oracle.satisfaction(clean.moment, each.item) for each in (clean, lists)]
            lost.append(float((values[0] - values[1]).sum() / values[0].sum()))
        return {"fault": fault.name, "strength": strength, "weeks": weeks, "lost": lost}

    def _of(self, week: int) -> Lists:
        return self.pages.take(np.flatnonzero(self.week == week))

    def _live(
        self,
        pages: Lists,
        chosen_at: np.ndarray,
        rng: np.random.Generator,
        change: Callable[[Lists], Lists] | None = None,
        reacts_as: World | None = None,
    ) -> tuple[Lists, Log]:
        """Return the lists of a week with a fault or another change, and their log."""
        lists, outcome = live(
            self.world,
            self.known,
            pages,
            chosen_at=chosen_at,
            rng=rng,
            change=change,
            reacts_as=reacts_as,
        )
        return lists, self.shop.log(lists, outcome, rng=rng)

    def _changed(
        self, change: Callable[[Context, Lists], Lists], at: Callable[[], Context]
    ) -> Callable[[Lists], Lists]:
        """Return the change with a new context in each round, so that it draws the same again."""
        return lambda lists: change(at(), lists)

    def _context(self, strength: float, number: int) -> Context:
        return Context(self.shop, self.known, strength, self.seed * 100_000 + number)

    def _judged(self, week: int, log: Log, *, before: Log | None = None) -> dict[str, Any]:
        columns = columns_of(log)
        measured = self._measured(week, log, before=before)
        measured["operation"] |= self.rivals.drift(columns)
        return measured | {"rivals": self.rivals.alarms(columns)}

    def _measured(self, week: int, log: Log, *, before: Log | None = None) -> dict[str, Any]:
        """Return the figures of a week and of its newest day, {name: [value, error, users]}."""
        end = self.world.midnight(WARM_DAYS + 7 * (week + 1))
        if week > 0:
            earlier = before or self.clean[week - 1]
            newest = earlier.requests["at"].to_numpy() >= end - 7 * DAY - BEFORE
            log = combined(picked(earlier, newest), log)
        traffic = self.shop.join(log, until=end)
        return {
            "figures": dict(figures_of(traffic, FIGURES, days=7)) | shares_of(traffic, days=7),
            "daily": dict(figures_of(traffic, DAILY, days=1)),
            "operation": log.operation | self._operation(traffic, log, end),
        }

    def _operation(self, traffic: Traffic, log: Log, end: int) -> dict[str, float]:
        known = log.events["known"]
        newest = float(log.events["at"][known < end].max())
        return {"data_age_hours": (end - newest) / DAY * 24} | {
            name: value
            for name, value in {"skew_different_share": 0.0, "release_age_days": 3.0}.items()
            if name not in log.operation
        }


def figures_of(
    traffic: Traffic, names: tuple[str, ...], *, days: int
) -> Iterator[tuple[str, list[float]]]:
    """Yield figures of the newest days whose outcomes are known."""
    parts: dict[str | None, Traffic] = {}
    for name in names:
        measure = MEASURES.get(name)
        delay = None if measure is None else measure.delay
        if delay not in parts:
            end = traffic.until if delay is None else traffic.open_before(delay)
            parts[delay] = traffic.between(end - days * DAY, end)
        part = parts[delay]
        if name in WHOLE_MEASURES:  # without the jackknife, which takes most of the time
            yield name, [WHOLE_MEASURES[name].compute(part), 0.0, len(np.unique(part.user_code))]
            continue
        found = figure(name, part)
        yield name, [found.value, found.error, found.users]


def shares_of(traffic: Traffic, *, days: int) -> dict[str, list[float]]:
    """Return the exposure of each source and the coverage of each large category."""
    part = traffic.between(traffic.until - days * DAY, traffic.until)
    share = exposure(part, c.SOURCE)
    values = {f"exposure/{c.SOURCE}={name}": share.get(name, 0.0) for name in SOURCES}
    values |= {COVERAGE + name: value for name, value in category_coverages(part).items()}
    users = len(np.unique(part.user_code))
    return {name: [value, 0.0, users] for name, value in values.items()}


def run_seed(seed: int, strengths: tuple[float, ...]) -> dict[str, Any]:
    """Measure all windows of one seed."""
    bench = Bench(seed)
    return {
        "seed": seed,
        "base": bench.base(),
        "quiet": list(bench.quiet()),
        "faults": [bench.faulty(fault, strength) for fault in FAULTS for strength in strengths],
    }
