"""Measures windows: every figure of the traffic, drift, and the alarms of rivals, as plain JSON."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.detection.faults import FAULTS, Context, Fault
from benchmarks.detection.log import Log, Shop, combined
from benchmarks.detection.quiet import KINDS, OF_LISTS, OF_LOG
from benchmarks.detection.record import WARM_DAYS, WEEKS, Lists, record
from benchmarks.detection.rivals import Rivals, columns_of
from monitoring.traffic.cuts import figure
from monitoring.traffic.join import DAY, Traffic
from monitoring.traffic.measures import MEASURES
from monitoring.traffic.whole import WHOLE_MEASURES
from simulation.oracle import Oracle

FIRST = 5
"""Week in which faults start; the four weeks before are what windows are compared with."""
QUIET_WEEKS = range(FIRST, WEEKS)
BEFORE = 2 * DAY
"""Traffic before a week that is joined with it, because windows end before the newest outcomes."""
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
        self.world, self.known, self.lists = record(seed)
        self.shop = Shop.of(self.world)
        self.week = (self.lists.page.at - self.world.midnight(WARM_DAYS)) // (7 * DAY)
        self.clean = [
            self.shop.log(self._of(week), rng=np.random.default_rng([seed, week]))
            for week in range(WEEKS)
        ]
        past = [columns_of(self.clean[week]) for week in range(FIRST - 4, FIRST)]
        self.rivals = Rivals(past, seed=seed)

    def base(self) -> list[dict[str, Any]]:
        """Return the figures of each clean week."""
        return [self._measured(week, self.clean[week]) for week in range(WEEKS)]

    def quiet(self) -> Iterator[dict[str, Any]]:
        """Yield the clean windows that are hard."""
        for number, kind in enumerate(KINDS):
            for week in QUIET_WEEKS:
                at = self._context(0.0, 1_000 + 10 * number + week)
                rng = np.random.default_rng([self.seed, number, week])
                lists = self._of(week)
                if kind in OF_LISTS:
                    log = self.shop.log(OF_LISTS[kind](at, lists), rng=rng)
                else:
                    log = OF_LOG[kind](at, self.shop.log(lists, rng=rng))
                yield {"kind": kind, "week": week} | self._judged(week, log)

    def faulty(self, fault: Fault, strength: float) -> dict[str, Any]:
        """Return the two weeks after a fault starts, and the satisfaction that it costs in each."""
        number = FAULTS.index(fault)
        weeks, lost = [], []
        before: Log | None = None
        for week in (FIRST, FIRST + 1):
            at = self._context(strength, 10_000 + number)
            clean = self._of(week)
            lists = clean if fault.lists is None else fault.lists(at, clean)
            world = None if fault.world is None else fault.world(at)
            rng = np.random.default_rng([self.seed, number, week])
            log = self.shop.log(lists, rng=rng, world=world)
            if fault.log is not None:
                log = fault.log(at, log)
            weeks.append(self._judged(week, log, before=before))
            before = log
            oracle = Oracle(self.world)
            values = [oracle.satisfaction(clean.moment, each.item) for each in (clean, lists)]
            lost.append(float((values[0] - values[1]).sum() / values[0].sum()))
        return {"fault": fault.name, "strength": strength, "weeks": weeks, "lost": lost}

    def _of(self, week: int) -> Lists:
        return self.lists.take(np.flatnonzero(self.week == week))

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
            log = combined(before or self.clean[week - 1], log)
        traffic = self.shop.join(log, until=end)
        at = traffic.requests["at"].to_numpy()
        traffic = traffic.pick((at >= end - 7 * DAY - BEFORE) & (at < end))
        return {
            "figures": dict(figures_of(traffic, FIGURES, days=7)),
            "daily": dict(figures_of(traffic, DAILY, days=1)),
            "operation": log.operation | self._operation(traffic, log, end),
        }

    def _operation(self, traffic: Traffic, log: Log, end: int) -> dict[str, float]:
        known = log.events["known"]
        newest = float(log.events["at"][known < end].max())
        return {"data_age_hours": (end - newest) / DAY * 24} | {
            name: value
            for name, value in {"skew_exact_share": 1.0, "release_age_days": 3.0}.items()
            if name not in log.operation
        }


def figures_of(
    traffic: Traffic, names: tuple[str, ...], *, days: int
) -> Iterator[tuple[str, list[float]]]:
    """Yield figures of the newest days whose outcomes are known."""
    parts: dict[str | None, Traffic] = {}
    at = traffic.requests["at"].to_numpy()
    for name in names:
        measure = MEASURES.get(name)
        delay = None if measure is None else measure.delay
        if delay not in parts:
            end = traffic.until if delay is None else traffic.open_before(delay)
            parts[delay] = traffic.pick((at >= end - days * DAY) & (at < end))
        part = parts[delay]
        if name in WHOLE_MEASURES:  # without the jackknife, which takes most of the time
            yield name, [WHOLE_MEASURES[name].compute(part), 0.0, len(np.unique(part.user_code))]
            continue
        found = figure(name, part)
        yield name, [found.value, found.error, found.users]


def run_seed(seed: int, strengths: tuple[float, ...]) -> dict[str, Any]:
    """Measure all windows of one seed."""
    bench = Bench(seed)
    return {
        "seed": seed,
        "base": bench.base(),
        "quiet": list(bench.quiet()),
        "faults": [bench.faulty(fault, strength) for fault in FAULTS for strength in strengths],
    }
