"""Great Expectations judges a staged batch: every row, and the batch as a whole.

A file context lies in the home. For each table, and for the figures of the batch, it has a suite, a
validation definition and a checkpoint of the same name. Before a run the expectations that rules
yield (marked in their `meta`) are renewed; whatever else is in a suite is the user's and stays.
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
    of_figure,
    of_rule,
)
from flows.validation.findings import Finding, Judged, batch_findings, own_findings, row_findings
from flows.validation.own import names_of, own, own_rules
from shortlist.config import ConfigError
from shortlist.validation import Figures, Rule, ValidateConfig, rules_for
from shortlist.validation.config import RuleChange
from shortlist.validation.figures import BATCH as BATCH_FIGURES
from shortlist.validation.rules import SCHEMAS, changed
from shortlist.validation.sorting import Sorting

BATCH = "batch"
SUITES = (*SCHEMAS, BATCH)
LISTED = 1_000
"""Results on the index page: it is built anew each time, which takes a millisecond for each."""


class Judge:
    """Great Expectations' file context in a home, with its suites and checkpoints.

    Args:
        folder: where the context lies.
        connection: the run's, on which the prepared relations are.
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
        self.names: dict[str, str] = {}
        """{id: name} of the expectations that users have added."""

    def _configure(self) -> None:
        """Settings that a fresh context gets once; what a user changes later stays."""
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
        """The stored suite, made if it is not there.

        Raises:
            ConfigError: its file cannot be read; to make a new one would lose the user's.
        """
        import great_expectations as gx

        path = self.files / "expectations" / f"{name}.json"
        if not path.is_file():
            return self.context.suites.add(gx.ExpectationSuite(name))
        try:
            return self.context.suites.get(name)
        except Exception as error:  # of many types, by what is wrong with the file
            raise ConfigError(
                f"{path}: is no suite that Great Expectations can read: {error}; mend it, or delete"
                " it to get one with the rules alone"
            ) from None

    def changes(self, suite: str) -> dict[str, RuleChange]:
        """What a user has changed of our expectations in a suite, by rule or figure."""
        found = {}
        for one in self.suites[suite].expectations:
            change = change_of(one)
            if change is not None:
                found[one.meta[MARK]["rule"]] = change
        return found

    def rules(self, config: ValidateConfig, *, now: datetime) -> list[Rule]:
        """All rules on rows, with what users have changed and added in the suites.

        Raises:
            ConfigError: see `rules_for`, `changed` and `own_rules`.
        """
        rules = rules_for(
            config,
            now=now,
            earliest=as_utc(config.earliest),
            earliest_published=as_utc(config.earliest_published),
        )
        changes = {table: self.changes(table) for table in SCHEMAS}
        rules = [changed([rule], changes[rule.table])[0] for rule in rules]
        figures = {*BATCH_FIGURES, *(one.name for one in config.expectations)}
        self.names = names_of(self.suites, {rule.name for rule in rules} | figures)
        return [*rules, *own_rules(self.suites, self.names)]

    def limits(self, config: ValidateConfig) -> ValidateConfig:
        """The settings with the limits of figures that users have changed in the suite."""
        changes = {name: one for name, one in self.changes(BATCH).items() if name in BATCH_FIGURES}
        return config.model_copy(update={"rules": config.rules | changes})

    def run(
        self, sorting: Sorting, rules: list[Rule], figures: Figures, *, batch_id: str
    ) -> list[Finding]:
        """Judge a prepared batch; returns every expectation that is not met, and what follows."""
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
            self._renew(table, [of_rule(rule) for rule in mine if rule.query is None])
            if sorting.counts[table].rows:
                results, others = self._validate(table, batch_id, is_replay=is_replay)
                findings += others
                findings += row_findings(results, {r.name: r for r in mine}, sorting, table)
        by_name = {one.name: one for one in figures.batch if is_judged(one)}
        if by_name:
            self._renew(BATCH, [of_figure(one) for one in by_name.values()])
            results, others = self._validate(BATCH, batch_id, is_replay=is_replay)
            findings += others
            reasons = {rule.name: rule.reason for rule in rules}
            findings += batch_findings(results, by_name, sorting, reasons)
        return findings

    def _index(self) -> None:
        """Build the index of the Data Docs. Without any identifier GX would build all pages too."""
        from great_expectations.data_context.types.resource_identifiers import (
            ExpectationSuiteIdentifier,
        )

        no_page = [ExpectationSuiteIdentifier(name="-")]
        self.context.build_data_docs(site_names=[SITE], resource_identifiers=no_page)

    def leave(self, views: dict[str, str]) -> None:
        """Let the data source stand on these views of the lake, for when it is opened next."""
        stored = {name: sql.encode().hex() for name, sql in views.items()}
        if self.source.views != stored:
            self.source.views = stored
            self.context.update_datasource(self.source)

    def _renew(self, name: str, ours: list[Any]) -> None:
        """Put our expectations in place of those of the last run, under the same ids."""
        suite = self.suites[name]
        marked = [one for one in suite.expectations if MARK in (one.meta or {})]
        before = {one.meta[MARK]["rule"]: one for one in marked}
        for one in ours:
            old, mark = before.get(one.meta[MARK]["rule"]), one.meta[MARK]
            if old is not None:
                one.id = old.id
                # What was generated is remembered, so that an edit is known as one next time too.
                one.meta[MARK] = mark | {field: old.meta[MARK][field] for field in edits(old)}
        suite.expectations = [*own(suite), *ours]
        suite.save()

    def _validate(
        self, name: str, batch_id: str, *, is_replay: bool
    ) -> tuple[list[Judged], list[Finding]]:
        """Results of a suite, and what validation definitions that users have added found."""
        outcome = run_checkpoint(self.context, self.source, self.suites[name], batch_id=batch_id)
        found = []
        for definition, result in outcome.others.items():
            if isinstance(result, Exception):
                text = f"checkpoint '{name}': no result: {result}"
                found.append(Finding(definition, definition, "stop", text))
            else:
                results = [judged(one, {}) for one in result.results]
                found += own_findings(results, definition, is_replay=is_replay)
        return [judged(one, self.names) for one in outcome.ours.results], found


def as_utc(moment: datetime) -> datetime:
    """A time without a zone is taken to be UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
