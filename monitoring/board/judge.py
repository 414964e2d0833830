"""Judges all guardrails of the board; returns results and decisions, and executes nothing.

Error control: the guardrails that look at windows share `alpha_per_week` by Holm's method, with
p-values multiplied by the number of looks per week. Those that compare arms share
`alpha_per_canary`, with tests that stay valid for any number of looks. A
guardrail that needs a second one (`together_with`) is broken if both are; its p-value is the larger
of the two (intersection-union test).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from monitoring.board.config import MILD, BoardConfig, Cause, Guardrail, GuardrailFile
from monitoring.board.sequential import always_valid, holm, one_look, sample_ratio
from monitoring.figures import Figure
from monitoring.traffic.cuts import COVERAGE, FigureError, figure, user_sums, values_of
from monitoring.traffic.estimate import NOTHING, Difference, Estimate, UserSums, difference
from monitoring.traffic.join import DAY, HOUR, Traffic
from monitoring.traffic.measures import MEASURES
from monitoring.traffic.operation import OPERATION
from monitoring.traffic.whole import WHOLE_MEASURES
from shortlist.files.plain_json import finite

Measured = Callable[[Guardrail, int], Estimate]
"""Returns the figure of a guardrail in the n-th window before; 0 is the current one."""
Level = Literal["pass", "waiting", "missing", "alarm"]
PREVIOUS_WINDOWS = 4
SIGN = 0.001
"""p-value of a single look below which a guardrail counts as a sign of a cause."""
MATTERS = 0.1
"""Relative difference for which the sequential tests have most power."""


@dataclass(frozen=True)
class Arms:
    """A running experiment: when it started and the share of users of each arm."""

    experiment: str
    started: int
    """Microseconds of the home's clock."""
    champion: str
    challenger: str
    shares: Mapping[str, float]
    holdout: str | None = None


@dataclass(frozen=True)
class Result:
    """The verdict on one guardrail, with the figure and what it was compared with."""

    name: str
    level: Level
    figure: str
    where: str
    value: float
    compared_with: float
    limit: float
    """The limit in the figure's unit."""
    p: float
    users: int
    action: str
    reason: str
    meaning: str
    runbook: str
    window: tuple[int, int] = (0, 0)
    """Microseconds: start and end of the judged requests."""
    arm: str | None = None

    def to_json(self) -> dict[str, Any]:
        return finite(asdict(self))


@dataclass(frozen=True)
class Decision:
    """An action that `flows/act.py` executes, with the result that is its evidence."""

    guardrail: str
    action: str
    reason: str
    evidence: dict[str, Any]
    experiment: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class Board:
    """Results of all guardrails, in the order of the file, and what to do."""

    results: list[Result]
    decisions: list[Decision]
    sample_ratio_p: float = float("nan")
    cause: Cause | None = None
    """Probable cause of the alarms; None without an alarm, or if no row of the file matches."""

    @property
    def verdict(self) -> Literal["pass", "warn", "hold"]:
        """`hold` if an alarm's action isn't MILD, `warn` if a guardrail is broken or missing."""
        if any(decision.action not in MILD for decision in self.decisions):
            return "hold"
        worse = any(result.level in ("alarm", "missing") for result in self.results)
        return "warn" if worse else "pass"


@dataclass
class _Judged:
    """A guardrail before the correction for multiple tests."""

    result: Result
    p: float
    judged: bool
    family: str = field(default="window")


def judge_board(
    file: GuardrailFile,
    traffic: Traffic,
    *,
    figures: Mapping[str, Figure] | None = None,
    arms: Arms | None = None,
    champion_rows: np.ndarray | None = None,
    measured: Measured | None = None,
    values: Mapping[str, Sequence[str]] | None = None,
) -> Board:
    """Judge every guardrail.

    Args:
        figures: further figures without requests behind them (drift, freshness, errors), and the
            figures of the release's test lists for `compare = "reference"`.
        arms: the running experiment; without one, guardrails that compare arms are left out.
        champion_rows: (R,) bool, the requests that guardrails without arms judge; None: all.
        measured: figures of windows that were computed before; None: from the traffic.
        values: what `*` stands for in each figure that has one, e.g. {"exposure/source=*": ...};
            None: from the traffic.

    Raises:
        FigureError: a guardrail names an unknown figure or slice.
    """
    figures = figures or {}
    main = traffic if champion_rows is None else traffic.pick(champion_rows)
    ratio_p = _sample_ratio(traffic, arms) if arms else float("nan")
    broken_ratio = ratio_p < file.board.sample_ratio_alpha
    judged: dict[str, _Judged] = {}
    for row in file.guardrail:
        if row.compare in ("champion", "holdout"):
            if arms is None or (row.compare == "holdout" and arms.holdout is None):
                continue
            judged[row.name] = _compare_arms(row, traffic, arms)
            if broken_ratio:
                judged[row.name].judged = False
        else:
            judged[row.name] = _judge_window(row, main, figures, measured, values)
    results, decisions = _correct(file, judged, arms)
    cause = probable_cause(file, results) if decisions else None
    if arms is not None and broken_ratio:
        decisions = [_ratio_decision(ratio_p, arms, file.board), *decisions]
    return Board(results, decisions, ratio_p, cause)


def probable_cause(file: GuardrailFile, results: Sequence[Result]) -> Cause | None:
    """Return the first cause of the file whose signs are all beyond their limits.

    A sign needs less evidence than an alarm: a p-value below SIGN, without correction for the
    number of guardrails.
    """
    signs = {one.name for one in results if one.level == "alarm" or one.p < SIGN}
    return next((cause for cause in file.cause if signs.issuperset(cause.signs)), None)


def _correct(
    file: GuardrailFile, judged: dict[str, _Judged], arms: Arms | None
) -> tuple[list[Result], list[Decision]]:
    rows = {row.name: row for row in file.guardrail if row.name in judged}
    families: dict[str, dict[str, float]] = {"window": {}, "sequential": {}}
    for name, row in rows.items():
        outcome = judged[name]
        if not (outcome.judged and row.alarm) or outcome.family == "none":
            continue
        p = outcome.p
        if row.together_with is not None:
            partner = judged.get(row.together_with)
            p = 1.0 if partner is None or not partner.judged else max(p, partner.p)
        if outcome.family == "window":
            p = min(1.0, p * file.board.looks_per_week(row.window_hours))
        families[outcome.family][name] = p
    alarms = holm(families["window"], alpha=file.board.alpha_per_week)
    alarms |= holm(families["sequential"], alpha=file.board.alpha_per_canary)
    alarms |= {
        name
        for name, outcome in judged.items()
        if outcome.family == "none" and outcome.judged and outcome.p == 0 and rows[name].alarm
    }
    results, decisions = [], []
    for name, row in rows.items():
        result = judged[name].result
        if name in alarms:
            reason = result.reason
            if row.together_with is not None:
                reason = f"{judged[row.together_with].result.reason}; and {reason}"
            result = Result(**{**vars(result), "level": "alarm", "reason": reason})
            decisions.append(
                Decision(
                    guardrail=name,
                    action=row.action,
                    reason=result.reason,
                    evidence=result.to_json(),
                    experiment=arms.experiment if arms and result.arm else None,
                    source=row.source,
                )
            )
        results.append(result)
    return results, decisions


def _judge_window(
    row: Guardrail,
    main: Traffic,
    figures: Mapping[str, Figure],
    measured: Measured | None,
    values: Mapping[str, Sequence[str]] | None,
) -> _Judged:
    of_traffic = row.figure in MEASURES or row.figure in WHOLE_MEASURES
    if row.figure in figures and (row.compare == "reference" or not of_traffic):
        return _judge_plain(row, figures[row.figure])
    start, end = _window(row, main)
    of_traffic |= row.figure.startswith(("exposure/", COVERAGE))
    if not of_traffic and "@" not in row.figure:
        if row.figure not in OPERATION:
            figure(row.figure, main)  # raises FigureError, which lists the known figures
        return _finish(row, NOTHING, None, row.limit, (start, end))
    if "@" in row.figure:
        raise FigureError(
            f"guardrail '{row.name}': figure '{row.figure}' is unknown, want one of"
            f" {', '.join(figures)}"
        )
    length = end - start

    def of_window(row: Guardrail, n: int) -> Estimate:
        part = main.between(start - n * length, end - n * length)
        return figure(row.figure, part, where=row.slice)

    measured = measured or of_window
    if row.figure.endswith("=*"):
        known = values_of(row.figure, main) if values is None else values.get(row.figure, ())
        return _judge_values(row, known, measured, (start, end))
    now = measured(row, 0)
    if row.compare == "absolute":
        return _finish(row, now, None, row.limit, (start, end), estimate=now.value, error=now.error)
    if row.compare == "reference":
        return _finish(row, now, None, float("nan"), (start, end))
    return _judge_previous(row, now, measured, (start, end))


def _judge_values(
    row: Guardrail, values: Sequence[str], measured: Measured, window: tuple[int, int]
) -> _Judged:
    """Judge a figure with `*` for each value; return the verdict on the worst one."""
    found: list[tuple[float, _Judged]] = []
    for value in values:
        one = row.model_copy(update={"figure": row.figure.removesuffix("*") + value})
        outcome = _judge_previous(one, measured(one, 0), measured, window)
        result = outcome.result
        if outcome.judged:
            beyond = result.value - result.limit
            beyond *= -1 if row.bad == "low" else 1
            found.append((beyond / max(abs(result.compared_with), 1e-12), outcome))
    if not found:
        return _finish(row, NOTHING, None, float("nan"), window)
    return max(found, key=lambda pair: pair[0])[1]


def _judge_previous(
    row: Guardrail, now: Estimate, measured: Measured, window: tuple[int, int]
) -> _Judged:
    """Compare a window with those before it."""
    exact = row.test == "none"
    before = [measured(row, n) for n in range(1, PREVIOUS_WINDOWS + 1)]
    before = [
        estimate
        for estimate in before
        if estimate.users >= row.min_users
        and math.isfinite(estimate.value if exact else estimate.error)
    ]
    if len(before) < 2:
        return _finish(row, now, None, float("nan"), window, waiting="the windows before")
    values = np.array([estimate.value for estimate in before])
    base, k = float(values.mean()), len(before)
    allowed = max(abs(row.limit * base), row.least_change)
    limit = base - allowed if row.bad == "low" else base + allowed
    if exact:
        return _finish(row, now, base, limit, window)
    within = float(np.mean([estimate.error**2 for estimate in before]))
    between = max(0.0, float(values.var(ddof=1)) - within)  # season and trend between windows
    error = math.sqrt(now.error**2 + between * (1 + 1 / k) + within / k)
    return _finish(row, now, base, limit, window, estimate=now.value, error=error)


def _judge_plain(row: Guardrail, found: Figure) -> _Judged:
    """Judge a figure that has no requests behind it, or the reference of the test lists."""
    error = (found.high - found.low) / 3.92
    base = None if row.compare == "absolute" else found.reference
    limit = row.limit if base is None else base * (1 + row.limit)
    now = Estimate(found.current, error if math.isfinite(error) else 0.0, row.min_users)
    return _finish(row, now, base, limit, (0, 0), estimate=now.value, error=now.error)


def _compare_arms(row: Guardrail, traffic: Traffic, arms: Arms) -> _Judged:
    other = arms.champion if row.compare == "champion" else arms.holdout
    found, (start, end) = compare_arms(
        row.figure, traffic, arms, control=str(other), where=row.slice
    )
    users = min(found.treatment.users, found.control.users)
    now, base = found.treatment, found.control.value
    limit = base * (1 + row.limit)
    estimate = found.value - row.limit * base
    error = math.hypot(found.error, row.limit * found.control.error)
    return _finish(
        row,
        Estimate(now.value, now.error, users, now.total),
        base,
        limit,
        (start, end),
        estimate=limit + estimate,
        error=error,
        arm=arms.challenger,
        spread=abs(base) * max(MATTERS, abs(row.limit)),
    )


def compare_arms(
    name: str, traffic: Traffic, arms: Arms, *, control: str, where: str = "all"
) -> tuple[Difference, tuple[int, int]]:
    """Compare the challenger with another arm since the experiment's start, with CUPED.

    Requests that named their arm are left out. The adjustment uses each user's value of the same
    figure before the start.

    Returns:
        The difference, and start and end of the window in microseconds.
    """
    at = traffic.requests["at"].to_numpy()
    during = (at >= arms.started) & ~traffic.requests["forced"].to_numpy()
    arm = traffic.requests["arm"].to_numpy()
    window = arms.started, int(at.max(initial=arms.started)) + 1
    measure = MEASURES.get(name)
    if measure is None:  # a figure over all lists: no sums over users
        a, b = (
            figure(name, traffic.pick(during & (arm == compared)), where=where)
            for compared in (arms.challenger, control)
        )
        return Difference(a.value - b.value, math.hypot(a.error, b.error), a, b), window
    sums: dict[str, UserSums] = {
        compared: user_sums(measure, traffic.pick(during & (arm == compared)), where=where)
        for compared in (arms.challenger, control)
    }
    earlier = user_sums(measure, traffic.pick(at < arms.started), where=where)
    before = dict(zip(earlier.user.tolist(), (earlier.top / earlier.bottom).tolist(), strict=True))
    return difference(sums[arms.challenger], sums[control], before=before), window


def _finish(
    row: Guardrail,
    now: Estimate,
    base: float | None,
    limit: float,
    window: tuple[int, int],
    *,
    estimate: float = float("nan"),
    error: float = float("nan"),
    waiting: str | None = None,
    arm: str | None = None,
    spread: float = 0.0,
) -> _Judged:
    family = {"sequential": "sequential", "window": "window", "none": "none"}[row.test]
    level: Level = "pass"
    p, judged = 1.0, True
    if math.isnan(now.value) or (math.isnan(limit) and waiting is None):
        level = "missing" if row.required else "waiting"
        judged, reason = False, f"{row.figure} has no value in this window"
        if not math.isnan(now.value):
            reason = f"{row.figure} is {now.value:.4g}, but there is nothing to compare it with"
    elif waiting is not None or now.users < row.min_users:
        level, judged = "waiting", False
        reason = f"{row.figure} is {now.value:.4g} of {now.users} users, want {row.min_users}"
        if waiting is not None:
            reason = f"{row.figure} is {now.value:.4g}; {waiting} have too few users"
    else:
        if row.test == "sequential":
            p = always_valid(estimate, error, limit=limit, bad=row.bad, spread=spread)
        elif row.test == "window":
            p = one_look(estimate, error, limit=limit, bad=row.bad)
        else:
            p = 0.0 if (now.value < limit if row.bad == "low" else now.value > limit) else 1.0
        side = "below" if row.bad == "low" else "above"
        ok = now.value >= limit if row.bad == "low" else now.value <= limit
        against = "" if base is None else f" ({row.compare} {base:.4g}, allowed {row.limit:+.1%})"
        reason = (
            f"{row.figure} is {now.value:.4g}, "
            + ("within" if ok else side)
            + f" the limit {limit:.4g}{against}"
            + ("" if row.test == "none" else f", p = {p:.2g}")
        )
    result = Result(
        name=row.name,
        level=level,
        figure=row.figure,
        where=row.slice,
        value=now.value,
        compared_with=float("nan") if base is None else base,
        limit=limit,
        p=p,
        users=now.users,
        action=row.action,
        reason=reason,
        meaning=row.meaning,
        runbook=row.runbook,
        window=window,
        arm=arm,
    )
    return _Judged(result, p, judged, family)


def _window(row: Guardrail, traffic: Traffic) -> tuple[int, int]:
    measure = MEASURES.get(row.figure)
    end = traffic.until
    if measure is not None and measure.delay is not None:
        end = traffic.open_before(measure.delay)
    if measure is not None and measure.days:
        end = (traffic.until // DAY - measure.days) * DAY
    return end - int(row.window_hours * HOUR), end


def _sample_ratio(traffic: Traffic, arms: Arms) -> float:
    """Return the p-value of the test that users are split by the configured shares.

    Requests that named their arm themselves are left out.
    """
    rows = traffic.requests
    during = rows[(rows["at"] >= arms.started) & ~rows["forced"]]
    counts = during.groupby("arm")["user_id"].nunique().to_dict()
    return sample_ratio(counts, dict(arms.shares))


def _ratio_decision(p: float, arms: Arms, board: BoardConfig) -> Decision:
    reason = (
        f"users are not split as configured (p = {p:.1g}, level {board.sample_ratio_alpha:g}):"
        " no comparison of the arms can be trusted"
    )
    evidence = {"figure": "sample_ratio", "p": p, "shares": dict(arms.shares)}
    return Decision("sample ratio", "stop_canary", reason, evidence, arms.experiment)
