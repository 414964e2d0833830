"""What follows from Great Expectations' results: what is warned of, and what refuses a batch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from shortlist.validation import Rule
from shortlist.validation.figures import BatchFigure, rows_of
from shortlist.validation.sorting import Counts, Sorting


@dataclass(frozen=True)
class Finding:
    """One expectation that was not met."""

    table: str
    rule: str
    action: str  # warn | quarantine | stop
    text: str

    def __str__(self) -> str:
        return f"{self.table}: {self.text}"


@dataclass(frozen=True)
class Judged:
    """What became of one expectation."""

    name: str
    """Of the rule or figure; of a user's own expectation what it says."""
    action: str
    """What is to happen if it is not met."""
    success: bool
    unexpected: int | None
    """Rows or values that Great Expectations counted; None where it counts none."""
    rows: int | None
    """Rows that were looked at, where Great Expectations says so."""
    observed: Any
    problem: str
    """Why there is no result, else empty."""


def row_findings(
    results: list[Judged], rules: Mapping[str, Rule], sorting: Sorting, table: str
) -> list[Finding]:
    """Findings of a table's suite: those of rules, and those of users' own expectations."""
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
    """Findings that take no rows out: of users' own expectations, and of all in their own
    validation definitions.

    Args:
        table: table, or validation definition.
        is_replay: some rows of an old batch are not measured as a whole.
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
    if one.problem:  # to let the rows pass would be to skip the rule
        return Finding(table, rule.name, "stop", f"{rule.name}: no result: {one.problem}")
    broken, bad = one.unexpected or 0, counts.broken.get(rule.name, 0)
    if rule.query is not None and min(broken, bad) > 0:
        broken = bad  # a query may find a row more than once
    if rule.action != "warn" and broken != bad:
        text = f"{rule.name}: Great Expectations found {broken:,} rows, {bad:,} were quarantined"
        return Finding(table, rule.name, "stop", f"{text}; this is a fault of shortlist")
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
    """Whether the rows that were not posted break the rule beyond its budget: the posted rows of
    one client never stop those of all others.
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
    """Findings of the suite of the batch's figures.

    Args:
        reasons: {rule: what is wrong}.
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
        return f"{text}; they are no rows at all (see the quarantine)"
    return f"{text}; most of all {rest[worst]:,} by {worst}: {reasons.get(worst, worst)}"
