"""Converts results of Great Expectations to findings: warnings, and reasons to refuse a batch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from shortlist.validation import Rule
from shortlist.validation.figures import BatchFigure, rows_of
from shortlist.validation.sorting import Counts, Sorting


@dataclass(frozen=True)
class Finding:
    """An expectation that was not met or gave no result, and the action that follows."""

    table: str
    rule: str
    action: str  # warn | quarantine | stop
    text: str

    def __str__(self) -> str:
        return f"{self.table}: {self.text}"


@dataclass(frozen=True)
class ExpectationResult:
    """Result of one expectation."""

    name: str
    """Name of the rule or figure, or the name of a user's expectation (see `own.name_of`)."""
    action: str
    """Action if it is not met: warn, quarantine or stop."""
    success: bool
    unexpected: int | None
    """Number of unexpected rows or values; None if Great Expectations doesn't count them."""
    rows: int | None
    """Number of rows examined; None if Great Expectations doesn't report it."""
    observed: Any
    problem: str
    """Error that prevented a result; empty if there is a result."""


def row_findings(
    results: list[ExpectationResult], rules: Mapping[str, Rule], sorting: Sorting, table: str
) -> list[Finding]:
    """Return the findings of a table's suite.

    Args:
        results: of the expectations that were generated from rules, and of those users added.
        rules: {name: rule}; an expectation with another name is a user's.
    """
    found = []
    is_replay = sorting.batch.replay_of is not None
    for result in results:
        rule = rules.get(result.name)
        if rule is None:
            result = replace(result, rows=sorting.counts[table].rows)
            found += own_findings([result], table, is_replay=is_replay)
        else:
            finding = _of_rule(result, rule, sorting, table)
            found += [finding] if finding else []
    return found


def own_findings(results: list[ExpectationResult], table: str, *, is_replay: bool) -> list[Finding]:
    """Return the findings of users' expectations, which warn or stop but quarantine no rows.

    Args:
        results: of users' expectations in a suite, or of a validation definition added by a user.
        table: name of the table or of the validation definition.
        is_replay: whether the rows come from quarantine and are validated again. Then expectations
            on the whole batch are ignored.
    """
    found = []
    for result in results:
        if result.success or (is_replay and result.unexpected is None and not result.problem):
            continue
        if result.problem:
            text = f"no result: {result.problem}"
        elif result.unexpected is None:
            text = "is not met" if result.observed is None else f"found {result.observed}"
        elif result.rows is None:
            text = f"{result.unexpected:,} rows"
        else:
            share = result.unexpected / max(result.rows, 1)
            text = f"{result.unexpected:,} of {result.rows:,} rows ({share:.1%})"
        action = "stop" if result.action == "stop" else "warn"
        found.append(Finding(table, result.name, action, f"{result.name}: {text}"))
    return found


def _of_rule(result: ExpectationResult, rule: Rule, sorting: Sorting, table: str) -> Finding | None:
    counts = sorting.counts[table]
    if result.problem:  # stop, because rows that break the rule would pass otherwise
        return Finding(table, rule.name, "stop", f"{rule.name}: no result: {result.problem}")
    broken, bad = result.unexpected or 0, counts.broken.get(rule.name, 0)
    if rule.query is not None and min(broken, bad) > 0:
        broken = bad  # the query of a user's expectation may return a row more than once
    if rule.action != "warn" and broken != bad:
        text = f"{rule.name}: Great Expectations found {broken:,} rows, {bad:,} were quarantined"
        return Finding(table, rule.name, "stop", f"{text}; this is a bug of shortlist, report it")
    if result.success:
        return None
    action = rule.action
    if action == "quarantine" and rule.budget is not None:
        action = "stop"
    if action == "stop" and not _stops(rule, counts):
        action = "quarantine"
    share = f"{broken:,} of {counts.rows:,} rows ({broken / max(counts.rows, 1):.1%})"
    budget = f", the budget is {rule.budget or 0:.1%}" if action != "quarantine" else ""
    return Finding(table, rule.name, action, f"{rule.name}: {share}: {rule.reason}{budget}")


def _stops(rule: Rule, counts: Counts) -> bool:
    """Return whether a broken rule stops the batch.

    The rows that were not posted must exceed the rule's budget (share of rows that may break it).
    Rows that clients posted never stop a batch, so that one client's errors don't affect others.
    """
    posted = counts.posted_broken.get(rule.name, 0)
    rest = counts.broken.get(rule.name, 0) - posted
    return posted == 0 or rest > (rule.budget or 0) * (counts.rows - counts.posted_rows)


def batch_findings(
    results: list[ExpectationResult],
    figures: Mapping[str, BatchFigure],
    sorting: Sorting,
    reasons: Mapping[str, str],
) -> list[Finding]:
    """Return the findings of the suite `batch`, which judges the figures of the whole batch.

    Args:
        figures: {name: figure}.
        reasons: {rule: why it exists}; used if the share of bad rows of a table is too high.
    """
    found = []
    for result in results:
        figure = figures.get(result.name)
        if result.success:
            continue
        table = result.name.removesuffix(".bad_share")
        if figure is None:
            text = f"{result.name}: {result.problem or f'found {result.observed}'}"
            found.append(Finding("batch", result.name, result.action, text))
        elif table != result.name:
            text = _over_budget(sorting, table, figure, reasons)
            found.append(Finding(table, result.name, figure.action, text))
        else:
            limits = " and ".join(
                f"at {word} {limit:g}"
                for word, limit in (("least", figure.min), ("most", figure.max))
                if limit is not None
            )
            seen = result.problem or f"{figure.value:,.4g}"
            text = f"{result.name}: {figure.says}: found {seen}, want {limits}"
            action = "stop" if result.problem else figure.action
            found.append(Finding("batch", result.name, action, text))
    return found


def _over_budget(
    sorting: Sorting, table: str, figure: BatchFigure, reasons: Mapping[str, str]
) -> str:
    counts = sorting.counts[table]
    rows, bad = rows_of(sorting, table)
    rows, bad = rows - counts.posted_rows, bad - counts.posted_bad
    text = f"{bad:,} of {rows:,} rows are bad ({figure.value:.1%}), the budget is {figure.max:.1%}"
    rest = {n: many - counts.posted_broken.get(n, 0) for n, many in counts.broken.items()}
    worst = max(rest, key=lambda name: rest[name], default=None)
    if worst is None or not rest[worst]:
        return f"{text}; they could not be parsed as rows (see the quarantine)"
    return f"{text}; most of all {rest[worst]:,} by {worst}: {reasons.get(worst, worst)}"
