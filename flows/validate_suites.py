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

from flows.validate_docs import SITE, run_name
from flows.validate_findings import Finding, Judged, batch_findings, row_findings
from shortlist.config import ConfigError
from shortlist.validation import Figures, Rule, ValidateConfig, rules_for
from shortlist.validation.checks import Check
from shortlist.validation.config import RuleChange
from shortlist.validation.figures import BATCH as BATCH_FIGURES
from shortlist.validation.figures import BatchFigure
from shortlist.validation.rules import SCHEMAS, changed
from shortlist.validation.sorting import NUMBER, Sorting

MARK = "shortlist"
"""Key in the `meta` of the expectations that rules and figures yield."""
SEVERITY = {"warn": "info", "quarantine": "warning", "stop": "critical"}
"""What an action is called in Great Expectations."""
ACTION = {severity: action for action, severity in SEVERITY.items()}
BATCH = "batch"
SUITES = (*SCHEMAS, BATCH)


class Judge:
    """The file context of a home, its suites and checkpoints.

    Args:
        folder: where the context lies.
        connection: the run's, on which the prepared relations are.
    """

    def __init__(self, folder: Path, connection: duckdb.DuckDBPyConnection):
        os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
        import great_expectations as gx

        from flows.validate_source import DuckDBDatasource

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

    def _configure(self) -> None:
        """Settings that a fresh context gets once; what a user changes later stays."""
        variables = self.context.variables
        variables.progress_bars = {"globally": False}
        variables.analytics_enabled = False
        variables.data_docs_sites = {
            SITE: {
                "class_name": "OfflineSiteBuilder",
                "module_name": "flows.validate_site",
                "show_how_to_buttons": False,
                "store_backend": {
                    "class_name": "TupleFilesystemStoreBackend",
                    "base_directory": f"uncommitted/data_docs/{SITE}/",
                },
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
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

    def changes(self, table: str) -> dict[str, RuleChange]:
        """What a user has changed, by means of Great Expectations, of the expectations of rules and
        figures: the severity, `mostly` (as a budget), and limits of figures.
        """
        found = {}
        for one in self.suites[table].expectations:
            edits = _edits(one)
            change: dict[str, Any] = {}
            if edits.get("mostly") is not None:
                change["budget"] = round(1 - edits["mostly"], 12)
            if "severity" in edits:
                change["action"] = ACTION[edits["severity"]]
            limits = edits.keys() & {"min_value", "max_value"}
            change |= {limit.removesuffix("_value"): edits[limit] for limit in limits}
            if change:
                found[one.meta[MARK]["rule"]] = RuleChange.model_validate(change)
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
        return [
            *(changed([rule], changes[rule.table])[0] for rule in rules),
            *self.own_rules(),
        ]

    def limits(self, config: ValidateConfig) -> ValidateConfig:
        """The settings with the limits of figures that users have changed in the suite."""
        changes = {name: one for name, one in self.changes(BATCH).items() if name in BATCH_FIGURES}
        return config.model_copy(update={"rules": config.rules | changes})

    def own_rules(self) -> list[Rule]:
        """The expectations that users have added to quarantine rows by.

        Raises:
            ConfigError: an expectation is to quarantine rows but has no query that gives rows.
        """
        rules = []
        for table in SCHEMAS:
            for place, one in enumerate(self._own(table)):
                if action_of(one) != "quarantine":
                    continue
                query = getattr(one, "unexpected_rows_query", None)
                key, name = NUMBER[table], name_of(one)
                if query is None:
                    raise ConfigError(
                        f"great_expectations, suite '{table}': '{name}' has the severity"
                        " 'quarantine', which only an UnexpectedRowsExpectation can have; want"
                        " 'warn' or 'stop', or a query"
                    )
                rows = f"own_{table}_{place}"
                rules.append(
                    Rule(
                        table,
                        name,
                        Check(key, f"{key} IN (SELECT {key} FROM {rows})", one.expectation_type),
                        name,
                        query=f"CREATE OR REPLACE TEMP TABLE {rows} AS"
                        f" SELECT DISTINCT {key} FROM ({query}) found",
                    )
                )
        return rules

    def _own(self, suite: str) -> list[Any]:
        return [one for one in self.suites[suite].expectations if MARK not in (one.meta or {})]

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
        findings = []
        for table in SCHEMAS:
            mine = [rule for rule in rules if rule.table == table]
            self._renew(table, [_of_rule(rule) for rule in mine if rule.query is None])
            if sorting.counts[table].rows:
                results = self._validate(table, batch_id)
                findings += row_findings(results, {r.name: r for r in mine}, sorting, table)
        judged = {one.name: one for one in figures.batch if _is_judged(one)}
        if judged:
            self._renew(BATCH, [_of_figure(one) for one in judged.values()])
            results = self._validate(BATCH, batch_id)
            reasons = {rule.name: rule.reason for rule in rules}
            findings += batch_findings(results, judged, sorting, reasons)
        return findings

    def leave(self, views: dict[str, str]) -> None:
        """Let the data source stand on these views of the lake, for when it is opened next."""
        if self.source.views != views:
            self.source.views = views
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
                one.meta[MARK] = mark | {field: old.meta[MARK][field] for field in _edits(old)}
        suite.expectations = [*self._own(name), *ours]
        suite.save()

    def _validate(self, name: str, batch_id: str) -> list[Judged]:
        import great_expectations as gx

        run_id = gx.RunIdentifier(run_name=run_name(batch_id))
        (result,) = self._checkpoint(name).run(run_id=run_id).run_results.values()
        return [_judged(one) for one in result.results]

    def _checkpoint(self, name: str) -> Any:
        """The stored checkpoint of a suite; made, with all it needs, if it is not there."""
        import great_expectations as gx
        from great_expectations.checkpoint.actions import UpdateDataDocsAction

        if name in {one.name for one in self.context.checkpoints.all()}:
            return self.context.checkpoints.get(name)
        if name in self.source.get_asset_names():
            asset = self.source.get_asset(name)
        else:
            asset = self.source.add_table_asset(name, table_name=f"{name}_rows")
        there = {one.name for one in self.context.validation_definitions.all()}
        if name in there:
            definition = self.context.validation_definitions.get(name)
        else:
            rows = [one for one in asset.batch_definitions if one.name == "rows"]
            data = rows[0] if rows else asset.add_batch_definition_whole_table("rows")
            definition = self.context.validation_definitions.add(
                gx.ValidationDefinition(name=name, data=data, suite=self.suites[name])
            )
        return self.context.checkpoints.add(
            gx.Checkpoint(
                name=name,
                validation_definitions=[definition],
                actions=[UpdateDataDocsAction(name="update_data_docs", site_names=[SITE])],
                result_format={"result_format": "BASIC"},
            )
        )


def _edits(one: Any) -> dict[str, Any]:
    """{field: value} of what a user has changed of an expectation of ours; its mark has what was
    generated.
    """
    mark = (one.meta or {}).get(MARK, {})
    fields = [field for field in mark if field != "rule"]
    return {field: getattr(one, field) for field in fields if getattr(one, field) != mark[field]}


def _of_rule(rule: Rule) -> Any:
    """The expectation of a rule."""
    severity = SEVERITY[rule.action]
    mostly = 1.0 if rule.budget is None else round(1 - rule.budget, 12)
    mark = {"rule": rule.name, "severity": severity, "mostly": mostly}
    return _vocabulary(rule.check.expectation)(
        column=rule.check.column,
        mostly=mostly,
        severity=severity,
        description=f"{rule.name}: {rule.reason}",
        meta={MARK: mark},
        **rule.check.arguments,
    )


def _is_judged(figure: BatchFigure) -> bool:
    """A figure that is known and has limits."""
    return figure.value is not None and (figure.min is not None or figure.max is not None)


def _of_figure(figure: BatchFigure) -> Any:
    """The expectation of a figure of the batch: the one value of its column lies between limits."""
    severity = SEVERITY[figure.action]
    limits = {"min_value": figure.min, "max_value": figure.max}
    return _vocabulary("ExpectColumnMaxToBeBetween")(
        column=figure.name,
        severity=severity,
        description=f"{figure.name}: {figure.says}",
        meta={MARK: {"rule": figure.name, "severity": severity} | limits},
        **limits,
    )


def _judged(verdict: Any) -> Judged:
    config, result = verdict.expectation_config, verdict.result or {}
    mark = (config.meta or {}).get(MARK)
    rows = result.get("unexpected_count") if "element_count" in result else None
    if config.type == "unexpected_rows_expectation":
        rows = result.get("observed_value")
    return Judged(
        name=mark["rule"] if mark else name_of(config),
        action=ACTION[config.severity] if mark else action_of(config),
        success=verdict.success,
        unexpected=None if rows is None else int(rows),
        observed=result.get("observed_value"),
        problem="" if verdict.success else _exceptions(verdict),
    )


def as_utc(moment: datetime) -> datetime:
    """A time without a zone is taken to be UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def action_of(own: Any) -> str:
    """What is to happen if a user's own expectation is not met: `severity` in its `meta`, else
    Great Expectations' own severity, where `critical` stops and the others warn.
    """
    asked = (own.meta or {}).get("severity")
    if asked is None:
        return "stop" if own.severity == "critical" else "warn"
    if asked not in SEVERITY:
        raise ConfigError(
            f"great_expectations: '{name_of(own)}': severity '{asked}' in meta, want one of"
            f" {', '.join(SEVERITY)}"
        )
    return asked


def name_of(own: Any) -> str:
    """What a user's own expectation is called in messages and in the quarantine."""
    if own.description:
        return own.description
    kind = getattr(own, "expectation_type", None) or own.type
    kwargs = getattr(own, "kwargs", None) or own.configuration.kwargs
    return f"{kind} ({kwargs.get('column') or str(own.id)[:8]})"


def _exceptions(verdict: Any) -> str:
    """Messages of an expectation that raised; GX keys them by metric, or not at all."""
    info = verdict.exception_info or {}
    parts = [info, *(part for part in info.values() if isinstance(part, dict))]
    messages = {str(part["exception_message"]) for part in parts if part.get("exception_message")}
    return "; ".join(sorted(messages))


def _vocabulary(name: str) -> Any:
    """A class of GX's expectations, imported late: it takes ten seconds."""
    from great_expectations import expectations

    return getattr(expectations, name)
