"""Judges measured windows: by the board as configured, by tuned limits, and by limits alone."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.detection.windows import DAILY, FIGURES, FIRST, WEEK
from monitoring.board.config import Guardrail, GuardrailFile
from monitoring.board.judge import judge_board
from monitoring.figures import Figure
from monitoring.traffic.estimate import NOTHING, Estimate
from monitoring.traffic.join import Traffic
from shortlist.contracts import ITEMS
from shortlist.datasets.service.traffic_log import REQUESTS, SHOWN
from shortlist.items.catalogue import Catalogue

PAST = 4
FLOOR = 0.05
"""Smallest relative deviation that a tuned limit allows."""
MARGINS = (1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
"""Factors on the largest deviation of clean windows that tuning tries."""
OF_FAMILY = {
    "data": "notify",
    "features": "hold",
    "models": "hold",
    "product": "hold",
    "traffic": "notify",
    "measurement": "notify",
}
"""Action of a tuned limit, by the family that the diagnosis names."""


@dataclass(frozen=True)
class Verdict:
    """What a detector says of one window."""

    alarms: frozenset[str]
    actions: frozenset[str] = frozenset()
    cause: str | None = None
    """Family of the probable cause that the board names."""


@dataclass(frozen=True)
class Window:
    """One measured window with the windows before it, newest first."""

    now: dict[str, Any]
    past: list[dict[str, Any]]

    def deviation(self, name: str) -> float:
        """Return the relative deviation of a figure from the mean of the windows before."""
        base = float(np.mean([_number(window["figures"][name][0]) for window in self.past]))
        return _number(self.now["figures"][name][0]) / base - 1 if base else float("nan")


def for_bench(file: GuardrailFile) -> GuardrailFile:
    """Return the guardrails that the bench can judge.

    Rows that compare with test lists compare with the windows before, because nothing was trained;
    rows of arms are left out.

    Raises:
        ValueError: a row has a window that isn't measured.
    """
    rows = []
    for row in file.guardrail:
        name = row.figure.split("@")[0]
        if row.compare in ("champion", "holdout") or (row.figure != name and name not in FIGURES):
            continue
        if row.compare == "reference":
            row = row.model_copy(update={"compare": "previous", "figure": name})
        daily = row.window_hours == 24 and row.compare == "absolute" and row.figure in DAILY
        measured = row.figure in FIGURES or row.figure.endswith("=*")
        if measured and row.window_hours != WEEK and not daily:
            raise ValueError(
                f"guardrail '{row.name}': the bench doesn't measure {row.figure} over"
                f" {row.window_hours:g} hours; want {WEEK:g}, or 24 and compare absolute for"
                f" {', '.join(DAILY)}"
            )
        rows.append(row)
    return file.model_copy(update={"guardrail": tuple(rows)})


def without_tests(file: GuardrailFile) -> GuardrailFile:
    """Return the guardrails as fixed thresholds."""
    rows = tuple(row.model_copy(update={"test": "none"}) for row in file.guardrail)
    return file.model_copy(update={"guardrail": rows})


def board_verdict(file: GuardrailFile, window: Window) -> Verdict:
    """Judge a window by the guardrails of a file."""

    def measured(row: Guardrail, n: int) -> Estimate:
        of = window.now if n == 0 else window.past[n - 1]
        found = of["figures" if row.window_hours == WEEK else "daily"].get(row.figure)
        if found is None:
            return NOTHING
        return Estimate(_number(found[0]), _number(found[1]), found[2])

    plain = {name: Figure(value) for name, value in window.now["operation"].items()}
    starred = {row.figure for row in file.guardrail if row.figure.endswith("=*")}
    values = {
        figure: [
            name.removeprefix(figure[:-1])
            for name in window.now["figures"]
            if name.startswith(figure[:-1])
        ]
        for figure in starred
    }
    board = judge_board(file, _nothing(), figures=plain, measured=measured, values=values)
    return Verdict(
        frozenset(decision.guardrail for decision in board.decisions),
        frozenset(decision.action for decision in board.decisions),
        None if board.cause is None else board.cause.family,
    )


@dataclass(frozen=True)
class Tuned:
    """Limits of all figures, fitted on clean windows, and the diagnosis of alarms."""

    low: dict[str, float]
    high: dict[str, float]
    causes: dict[str, dict[str, float]] = field(default_factory=dict)
    """Family -> name of an alarm -> log-odds; "" is the bias."""

    @classmethod
    def of(cls, windows: Iterable[Window], *, margin: float) -> "Tuned":
        found = [{name: w.deviation(name) for name in FIGURES} for w in windows]
        low, high = {}, {}
        for name in FIGURES:
            values = np.array([each[name] for each in found])
            values = values[np.isfinite(values)]
            if len(values) == 0:
                continue
            low[name] = min(margin * float(values.min()), -FLOOR)
            high[name] = max(margin * float(values.max()), FLOOR)
        return cls(low, high)

    def alarms(self, window: Window) -> frozenset[str]:
        out = set()
        for name in self.low:
            deviation = window.deviation(name)
            if deviation < self.low[name]:
                out.add(f"{name} low")
            elif deviation > self.high[name]:
                out.add(f"{name} high")
        return frozenset(out)


def tune(by_seed: dict[int, list[Window]]) -> tuple[Tuned, float]:
    """Choose the smallest margin without a false alarm on the seeds that are left out in turn."""
    chosen = MARGINS[-1]
    for margin in reversed(MARGINS):
        false = 0
        for seed in by_seed:
            others = [w for other, of in by_seed.items() if other != seed for w in of]
            limits = Tuned.of(others, margin=margin)
            false += sum(bool(limits.alarms(window)) for window in by_seed[seed])
        if false > 0:
            break
        chosen = margin
    every = [window for of in by_seed.values() for window in of]
    return Tuned.of(every, margin=chosen), chosen


def fit_causes(cases: Iterable[tuple[frozenset[str], str]]) -> Callable[[frozenset[str]], str]:
    """Fit a naive Bayes diagnosis of (alarms, family); return a function from alarms to family."""
    cases = list(cases)
    names = sorted({name for alarms, _ in cases for name in alarms})
    families = sorted({family for _, family in cases})
    x = np.array([[name in alarms for name in names] for alarms, _ in cases], dtype=float)
    y = np.array([family for _, family in cases])
    share = np.array(
        [(x[y == family].sum(0) + 0.5) / ((y == family).sum() + 1) for family in families]
    )
    prior = np.log([np.mean(y == family) for family in families])

    def diagnose(alarms: frozenset[str]) -> str:
        has = np.array([name in alarms for name in names], dtype=float)
        scores = prior + has @ np.log(share).T + (1 - has) @ np.log(1 - share).T
        return families[int(np.argmax(scores))]

    return diagnose


def quiet_windows(seed: dict[str, Any]) -> list[Window]:
    base = seed["base"]
    return [
        Window(each, [base[each["week"] - n] for n in range(1, PAST + 1)]) for each in seed["quiet"]
    ]


def fault_windows(seed: dict[str, Any], case: dict[str, Any]) -> list[Window]:
    """Return the first and the second window after a fault starts."""
    past = [seed["base"][FIRST - n] for n in range(1, PAST + 1)]
    first, second = case["weeks"]
    return [Window(first, past), Window(second, [first, *past[:-1]])]


def _number(value: float | None) -> float:
    """Return a stored figure; JSON has null for NaN."""
    return float("nan") if value is None else value


def _nothing() -> Traffic:
    requests = pa.Table.from_pylist([], REQUESTS).to_pandas()
    shown = pa.Table.from_pylist([], SHOWN).to_pandas()
    items = Catalogue.from_items(pa.Table.from_pylist([], ITEMS))
    return Traffic(requests, shown, items, np.zeros(1), 0)
