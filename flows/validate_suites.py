"""Great Expectations judges: violation counts of every rule in every month, and figures of the
batch as a whole, against their budgets and limits.

The rules themselves are compiled from the contracts and counted over all rows by DuckDB
(`shortlist/validation`): one source of truth, bounded memory. GX 1.24 has no DuckDB engine, and on
frames it costs .55 us a row and expectation, 28 expectations 15 us a row.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from flows.validate_docs import Account, Judged, finish_docs, run_name
from shortlist.validation import Figures, Rule, ValidateConfig
from shortlist.validation.figures import BatchFigure

SITE = "shortlist"


@dataclass(frozen=True)
class Finding:
    """One expectation that was not met."""

    table: str
    rule: str
    action: str  # warn | quarantine | stop
    text: str

    def __str__(self) -> str:
        return f"{self.table}: {self.text}"


class Judge:
    """An ephemeral GX context with one Data Docs site on disk."""

    def __init__(self, docs: Path):
        import great_expectations as gx
        from great_expectations.data_context.types import base

        site = {
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(docs.absolute()),
            },
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        }
        self.context = gx.get_context(
            mode="ephemeral",
            project_config=base.DataContextConfig(
                store_backend_defaults=base.InMemoryStoreBackendDefaults(),
                data_docs_sites={SITE: site},
                progress_bars=base.ProgressBarsConfig(globally=False),
                analytics_enabled=False,
            ),
        )
        self.source = self.context.data_sources.add_pandas("batch")
        self.docs = docs
        self.judged: list[Judged] = []

    def run(
        self, figures: Figures, rules: list[Rule], config: ValidateConfig, *, batch_id: str
    ) -> list[Finding]:
        """Judge a batch; returns every expectation that is not met, and what follows from it."""
        findings = []
        for table, rows in figures.violations.items():
            mine = [rule for rule in rules if rule.table == table]
            frame = pd.DataFrame(rows or [{"rows": 0, "bad": 0} | {r.name: 0 for r in mine}])
            total = figures.rows(table)
            expectations = [
                _sum(rule.name, allowed(rule, total), rule.reason, rule=rule) for rule in mine
            ]
            budget = math.floor(config.failure_budget * total)
            expectations.append(_sum("bad", budget, "rows for the quarantine", rule=None))
            failed = self._validate(table, frame, expectations, batch_id, rows=total)
            findings += [
                _broken(rule, figures, total, failed[rule.name])
                for rule in mine
                if rule.name in failed
            ]
            if "bad" in failed:
                findings.append(_over_budget(table, figures, mine, config))
        return findings + self._batch(figures.batch, batch_id, rows=figures.rows("interactions"))

    def _batch(self, figures: list[BatchFigure], batch_id: str, *, rows: int) -> list[Finding]:
        known = [one for one in figures if one.value is not None]
        frame = pd.DataFrame([{one.name: float(one.value or 0) for one in known}])
        gxe = _vocabulary()
        judged = [one for one in known if one.min is not None or one.max is not None]
        expectations = [
            gxe.ExpectColumnMaxToBeBetween(
                column=one.name,
                min_value=one.min,
                max_value=one.max,
                meta={"action": one.action},
                notes=one.says,
            )
            for one in judged
        ]
        failed = self._validate("batch", frame, expectations, batch_id, rows=rows)
        out = []
        for one in judged:
            if one.name in failed:
                limits = " and ".join(
                    f"at {word} {limit:g}"
                    for word, limit in (("least", one.min), ("most", one.max))
                    if limit is not None
                )
                seen = failed[one.name] or f"{one.value:,.4g}"
                text = f"{one.name}: {one.says}: found {seen}, want {limits}"
                out.append(Finding("batch", one.name, one.action, text))
        return out

    def _validate(
        self, name: str, frame: pd.DataFrame, expectations: list[Any], batch_id: str, *, rows: int
    ) -> dict[str, str]:
        """{column: '' or what went wrong} of the expectations that failed."""
        import great_expectations as gx

        asset = self.source.add_dataframe_asset(name)
        definition = self.context.validation_definitions.add(
            gx.ValidationDefinition(
                name=name,
                data=asset.add_batch_definition_whole_dataframe("whole"),
                suite=self.context.suites.add(gx.ExpectationSuite(name, expectations=expectations)),
            )
        )
        outcome = definition.run(
            batch_parameters={"dataframe": frame},
            run_id=gx.RunIdentifier(run_name=run_name(batch_id)),
        )
        failed = {
            one.expectation_config.kwargs["column"]: _exceptions(one)
            for one in outcome.results
            if not one.success and one.expectation_config is not None
        }
        self.judged.append(Judged(name, rows, len(expectations), len(failed)))
        return failed

    def write_docs(
        self, batch_id: str, account: Account, figures: Figures, rules: list[Rule]
    ) -> Path:
        """Write the Data Docs of everything run so far: once, since a build takes a second.

        Returns:
            the index page.
        """
        self.context.build_data_docs(site_names=[SITE])
        return finish_docs(self.docs, batch_id, self.judged, account, figures, rules)


def allowed(rule: Rule, rows: int) -> int:
    """Rows that may break a rule before the expectation fails."""
    return math.floor((rule.budget or 0) * rows)


def _sum(column: str, most: int, notes: str, *, rule: Rule | None) -> Any:
    action = "stop" if rule is None else rule.action
    return _vocabulary().ExpectColumnSumToBeBetween(
        column=column, min_value=0, max_value=most, meta={"action": action}, notes=notes
    )


def _broken(rule: Rule, figures: Figures, rows: int, problem: str) -> Finding:
    """A rule that is not met: with a budget of its own, to quarantine is not enough any more."""
    if problem:  # an expectation that raised: to let its rows pass would be to skip it
        return Finding(rule.table, rule.name, "stop", f"{rule.name}: no result: {problem}")
    broken = figures.broken(rule)
    action = rule.action
    if action == "quarantine" and rule.budget is not None:
        action = "stop"
    share = f"{broken:,} of {rows:,} rows ({broken / max(rows, 1):.1%})"
    budget = f", the budget is {rule.budget or 0:.1%}" if action != "quarantine" else ""
    text = f"{rule.name}: {share}: {rule.reason}{budget}"
    return Finding(rule.table, rule.name, action, text)


def _over_budget(
    table: str, figures: Figures, rules: list[Rule], config: ValidateConfig
) -> Finding:
    bad, rows = figures.bad(table), figures.rows(table)
    text = (
        f"{bad:,} of {rows:,} rows are bad ({bad / max(rows, 1):.1%}), the budget is"
        f" {config.failure_budget:.1%}"
    )
    counts = {rule: figures.broken(rule) for rule in rules if rule.action != "warn"}
    worst = max(counts, key=lambda rule: counts[rule])
    if counts[worst]:
        text += f"; most of all {counts[worst]:,} by {worst.name}: {worst.reason}"
    else:
        text += "; they are no rows at all (see the quarantine)"
    return Finding(table, "bad", "stop", text)


def _exceptions(verdict: Any) -> str:
    """Messages of an expectation that raised; GX keys them by metric, or not at all."""
    info = verdict.exception_info or {}
    parts = [info, *(part for part in info.values() if isinstance(part, dict))]
    messages = {str(part["exception_message"]) for part in parts if part.get("exception_message")}
    return "; ".join(sorted(messages))


def _vocabulary() -> Any:
    """GX's expectation classes, imported late: it takes ten seconds."""
    from great_expectations import expectations

    return expectations
