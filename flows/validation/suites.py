"""Judges a staged batch with Great Expectations: every row, and figures of the whole batch.

The home (the folder SHORTLIST_HOME) has a file context of Great Expectations. It contains four
suites: one for each table, and one for the batch figures. Each suite has a validation definition
and a checkpoint of the same name. Each validation generates the expectations from the rules again;
they are marked in their `meta`. All other expectations are the user's and are kept.
"""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from flows.validation.checkpoints import run_checkpoint
from flows.validation.docs import SITE
from flows.validation.expectations import (
    MARK,
    change_of,
    edits,
    is_judged,
    judged,
    limits_of,
    of_figure,
    of_rule,
    renewed,
)
from flows.validation.findings import (
    ExpectationResult,
    Finding,
    batch_findings,
    own_findings,
    row_findings,
)
from flows.validation.user_expectations import names_of, user_expectations, user_rules
from shortlist.config import ConfigError
from shortlist.validation import Figures, Rule, ValidateConfig, rules_for
from shortlist.validation.config import RuleChange
from shortlist.validation.figures import BATCH as BATCH_FIGURES
from shortlist.validation.rules import SCHEMAS, changed, with_limits
from shortlist.validation.sorting import Sorting

BATCH = "batch"
SUITES = (*SCHEMAS, BATCH)
LISTED = 1_000
"""Maximum number of results on the index page. Each validation rebuilds it, in 1 ms per result."""


class GxContext:
    """The file context of Great Expectations in a home, with its suites and checkpoints.

    Args:
        folder: folder of the context; it is created if missing.
        connection: DuckDB connection with the batch's prepared rows.
    """

    def __init__(self, folder: Path, connection: duckdb.DuckDBPyConnection):
        os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
        import great_expectations as gx

        from flows.validation.source import DuckDBDatasource

        self.files = folder / "gx"
        is_new = not (self.files / "great_expectations.yml").is_file()
        self.context: Any = gx.get_context(mode="file", project_root_dir=folder)
        if is_new:
            self._configure()
        try:
            source = self.context.data_sources.get(MARK)
        except KeyError:
            add = self.context.data_sources.add_duckdb
            source = add(name=MARK, connection_string="duckdb:///:memory:")
        self.source: DuckDBDatasource = source
        self.source.borrow(connection)
        self.suites = {name: self._suite(name) for name in SUITES}
        self._stored = {name: self._ours(name) for name in SUITES}
        self.names: dict[str, str] = {}
        """{id: name} of the expectations that users added."""

    def _configure(self) -> None:
        """Set the options of a new context. Later changes by the user are kept."""
        variables = self.context.variables
        variables.progress_bars = {"globally": False}
        variables.analytics_enabled = False
        variables.data_docs_sites = {
            SITE: {
                "class_name": "OfflineSiteBuilder",
                "module_name": "flows.validation.site",
                "show_how_to_buttons": False,
                "store_backend": {
                    "class_name": "TupleFilesystemStoreBackend",
                    "base_directory": f"uncommitted/data_docs/{SITE}/",
                },
                "site_index_builder": {
                    "class_name": "DefaultSiteIndexBuilder",
                    "validation_results_limit": LISTED,
                },
            }
        }
        variables.save()

    def _suite(self, name: str) -> Any:
        """Return the stored suite; create it if it doesn't exist.

        Raises:
            ConfigError: the suite's file can't be read. The file is not replaced, because it may
                contain expectations of the user.
        """
        import great_expectations as gx

        path = self.files / "expectations" / f"{name}.json"
        if not path.is_file():
            return self.context.suites.add(gx.ExpectationSuite(name))
        try:
            return self.context.suites.get(name)
        except Exception as error:  # Great Expectations raises many different types
            raise ConfigError(
                f"{path}: is no suite that Great Expectations can read: {error}; repair it, or"
                " delete it, and Shortlist writes a new one without your expectations"
            ) from None

    def _ours(self, suite: str) -> dict[str, Any]:
        """Return {rule or figure: the stored expectation that was generated from it}."""
        marked = [
            expectation
            for expectation in self.suites[suite].expectations
            if MARK in (expectation.meta or {})
        ]
        return {expectation.meta[MARK]["rule"]: expectation for expectation in marked}

    def rules(self, config: ValidateConfig, *, now: datetime) -> list[Rule]:
        """Return all rules on rows, with the changes and additions that users made in the suites.

        Raises:
            ConfigError: as for `rules_for`, `changed`, `with_limits` and `user_rules`.
        """
        rules = rules_for(
            config,
            now=now,
            earliest=as_utc(config.earliest),
            earliest_published=as_utc(config.earliest_published),
        )
        rules = [self._edited(rule) for rule in rules]
        figures = {*BATCH_FIGURES, *(expectation.name for expectation in config.expectations)}
        self.names = names_of(self.suites, {rule.name for rule in rules} | figures)
        return [*rules, *user_rules(self.suites, self.names)]

    def _edited(self, rule: Rule) -> Rule:
        stored = self._stored[rule.table].get(rule.name)
        if stored is None:
            return rule
        change = RuleChange.model_validate(change_of(stored))
        return with_limits(changed([rule], {rule.name: change})[0], limits_of(stored))

    def limits(self, config: ValidateConfig) -> ValidateConfig:
        """Return the settings with the limits that users changed in the suite `batch`."""
        rules = dict(config.rules)
        for name, stored in self._stored[BATCH].items():
            limits = limits_of(stored)
            change = change_of(stored) | {
                field: limits[f"{field}_value"]
                for field in ("min", "max")
                if f"{field}_value" in limits
            }
            if change and name in BATCH_FIGURES:
                both = rules.get(name, RuleChange()).model_dump() | change
                rules[name] = RuleChange.model_validate(both)
        return config.model_copy(update={"rules": rules})

    def run(
        self, sorting: Sorting, rules: list[Rule], figures: Figures, *, batch_id: str
    ) -> list[Finding]:
        """Judge a prepared batch; return a finding for each expectation that is not met."""
        try:
            return self._run(sorting, rules, figures, batch_id=batch_id)
        finally:
            self.source.release()

    def _run(
        self, sorting: Sorting, rules: list[Rule], figures: Figures, *, batch_id: str
    ) -> list[Finding]:
        from flows.validation.site import index_later

        with index_later():
            findings = self._judge(sorting, rules, figures, batch_id=batch_id)
        self._index()
        return findings

    def _judge(
        self, sorting: Sorting, rules: list[Rule], figures: Figures, *, batch_id: str
    ) -> list[Finding]:
        findings = []
        is_replay = sorting.batch.replay_of is not None
        for table in SCHEMAS:
            mine = [rule for rule in rules if rule.table == table]
            ours = [of_rule(rule) for rule in mine if rule.query is None]
            findings += self._renew(table, ours)
            if sorting.counts[table].rows:
                results, others = self._validate(table, batch_id, is_replay=is_replay)
                findings += others
                findings += row_findings(results, {r.name: r for r in mine}, sorting, table)
        by_name = {figure.name: figure for figure in figures.batch if is_judged(figure)}
        if by_name:
            findings += self._renew(BATCH, [of_figure(figure) for figure in by_name.values()])
            results, others = self._validate(BATCH, batch_id, is_replay=is_replay)
            findings += others
            reasons = {rule.name: rule.reason for rule in rules}
            findings += batch_findings(results, by_name, sorting, reasons)
            self._keep({figure.name for figure in figures.batch} - set(by_name))
        return findings

    def _index(self) -> None:
        """Build the index page of the Data Docs.

        The call passes an identifier that doesn't exist. Without any identifier, Great Expectations
        would build all other pages as well.
        """
        from great_expectations.data_context.types.resource_identifiers import (
            ExpectationSuiteIdentifier,
        )

        no_page = [ExpectationSuiteIdentifier(name="-")]
        self.context.build_data_docs(site_names=[SITE], resource_identifiers=no_page)

    def leave(self, views: dict[str, str]) -> None:
        """Store views of the lake in the data source.

        A user who opens the context later then sees the published rows.
        """
        stored = {name: sql.encode().hex() for name, sql in views.items()}
        if self.source.views != stored:
            self.source.views = stored
            self.context.update_datasource(self.source)

    def _renew(self, name: str, ours: list[Any]) -> list[Finding]:
        """Replace the generated expectations of a suite by new ones with the same ids.

        Returns:
            Warnings about users' changes that can't be kept.
        """
        suite, before, found = self.suites[name], self._stored[name], []
        for expectation in ours:
            rule = expectation.meta[MARK]["rule"]
            lost = renewed(expectation, before[rule]) if rule in before else []
            if lost:
                text = f"{rule}: the changed {', '.join(lost)} of this expectation can't be kept"
                text += "; add an expectation of your own for it"
                found.append(Finding(name, rule, "warn", text))
        suite.expectations = [*user_expectations(suite), *ours]
        suite.save()
        return found

    def _keep(self, unknown: set[str]) -> None:
        """Keep stored expectations that users changed, although this batch lacks their figures."""
        suite = self.suites[BATCH]
        waiting = [
            expectation for name, expectation in self._stored[BATCH].items() if name in unknown
        ]
        if waiting := [expectation for expectation in waiting if edits(expectation)]:
            suite.expectations = [*suite.expectations, *waiting]
            suite.save()

    def _validate(
        self, name: str, batch_id: str, *, is_replay: bool
    ) -> tuple[list[ExpectationResult], list[Finding]]:
        """Run a suite's checkpoint.

        Returns:
            The suite's results, and the findings of validation definitions that users added.
        """
        outcome = run_checkpoint(self.context, self.source, self.suites[name], batch_id=batch_id)
        found = []
        for definition, result in outcome.others.items():
            if isinstance(result, Exception):
                text = f"checkpoint '{name}': no result: {result}"
                found.append(Finding(definition, definition, "stop", text))
            else:
                results = [judged(found_result, {}) for found_result in result.results]
                found += own_findings(results, definition, is_replay=is_replay)
        return [judged(result, self.names) for result in outcome.ours.results], found


def as_utc(moment: datetime) -> datetime:
    """Convert a time to UTC; a time without a zone is taken as UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
