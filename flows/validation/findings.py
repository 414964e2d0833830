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
class Judged:
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
    results: list[Judged], rules: Mapping[str, Rule], sorting: Sorting, table: str
) -> list[Finding]:
    """Return the findings of a table's suite.

    Args:
        results: of the expectations that were generated from rules, and of those users added.
        rules: {name: rule}; an expectation with another name is a user's.
    """
    found = []
    is_replay = sorting.batch.replay_of is not None
    for one in results:
        rule = rules.get(one.name)
        if rule is None:
            one = replace(one, rows=sorting.counts[table].rows)
            found += own_findings([one], table, is_replay=is_replay)
        else:
            finding = _of_rule(one, rule, sorting, table)
            found += [finding] if finding else []
    return found


def own_findings(results: list[Judged], table: str, *, is_replay: bool) -> list[Finding]:
    """Return the findings of users' expectations, which warn or stop but quarantine no rows.

    Args:
        results: of users' expectations in a suite, or of a validation definition added by a user.
        table: name of the table or of the validation definition.
        is_replay: whether the rows come from quarantine and are validated again. Then expectations
            on the whole batch are ignored.
    """
    found = []
    for one in results:
        if one.success or (is_replay and one.unexpected is None and not one.problem):
            continue
        if one.problem:
            text = f"no result: {one.problem}"
        elif one.unexpected is None:
            text = "is not met" if one.observed is None else f"found {one.observed}"
        elif one.rows is None:
            text = f"{one.unexpected:,} rows"
        else:
            share = one.unexpected / max(one.rows, 1)
            text = f"{one.unexpected:,} of {one.rows:,} rows ({share:.1%})"
        action = "stop" if one.action == "stop" else "warn"
        found.append(Finding(table, one.name, action, f"{one.name}: {text}"))
    return found


def _of_rule(one: Judged, rule: Rule, sorting: Sorting, table: str) -> Finding | None:
    counts = sorting.counts[table]
    if one.problem:  # stop, because rows that break the rule would pass otherwise
        return Finding(table, rule.name, "stop", f"{rule.name}: no result: {one.problem}")
    broken, bad = one.unexpected or 0, counts.broken.get(rule.name, 0)
    if rule.query is not None and min(broken, bad) > 0:
        broken = bad  # the query of a user's expectation may return a row more than once
    if rule.action != "warn" and broken != bad:
        text = f"{rule.name}: Great Expectations found {broken:,} rows, {bad:,} were quarantined"
        return Finding(table, rule.name, "stop", f"{text}; this is a bug of shortlist, report it")
    if one.success:
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
    results: list[Judged],
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
    for one in results:
        figure = figures.get(one.name)
        if one.success:
            continue
        table = one.name.removesuffix(".bad_share")
        if figure is None:
            text = f"{one.name}: {one.problem or f'found {one.observed}'}"
            found.append(Finding("batch", one.name, one.action, text))
        elif table != one.name:
            text = _over_budget(sorting, table, figure, reasons)
            found.append(Finding(table, one.name, figure.action, text))
        else:
            limits = " and ".join(
                f"at {word} {limit:g}"
                for word, limit in (("least", figure.min), ("most", figure.max))
                if limit is not None
            )
            seen = one.problem or f"{figure.value:,.4g}"
            text = f"{one.name}: {figure.says}: found {seen}, want {limits}"
            action = "stop" if one.problem else figure.action
            found.append(Finding("batch", one.name, action, text))
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
