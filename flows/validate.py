"""Validate: adds the good rows of a staged batch to the lake and quarantines the bad ones.

The lake stores validated events, items and users. A batch is refused entirely if it breaks a
batch-level expectation, or if its share of bad rows exceeds a failure budget.
"""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from prefect import flow, task

from flows.operations.artifacts import link
from flows.runtime.retries import step_options
from flows.validation.docs import Account, keep_account
from flows.validation.findings import Finding
from flows.validation.suites import GxContext, as_utc
from shortlist.config import Settings
from shortlist.home.home_lock import REFRESH_WAIT, home_lock
from shortlist.lake import StagedBatch, open_staged
from shortlist.lake.engine import connect
from shortlist.lake.publish import publish
from shortlist.lake.snapshot import locked, workspace
from shortlist.validation import Sorting, ValidateConfig, ValidationFailed
from shortlist.validation.event_rules import digest, write_event_rules
from shortlist.validation.figures import data_now, measure, rows_of
from shortlist.validation.hold_back import hold_back
from shortlist.validation.lake_views import views_of_lake
from shortlist.validation.quarantine import Quarantine
from shortlist.validation.rules import SCHEMAS, Rule

__all__ = ["ValidateConfig", "ValidationFailed", "validate_batch", "validate_flow"]


@flow(name="validate", log_prints=True)
def validate_flow(
    batch_id: str,
    config: ValidateConfig,
    clock: Literal["wall", "replay"] | None = None,
) -> dict[str, Any]:
    """Validate a staged batch and publish its good rows.

    Args:
        clock: "replay": now is the time of the newest event; "wall": now is the current time; None:
            the value of SHORTLIST_CLOCK, or "wall".

    Returns:
        The number of events by destination (see `Account`), further counts, warnings and paths.

    Raises:
        ValidationFailed: an expectation with the action "stop" is not met, or a failure budget is
            exceeded. The lake is unchanged.
    """
    settings = Settings()
    try:
        with home_lock(settings, "refresh", what="shortlist validate", wait_seconds=REFRESH_WAIT):
            now = clock or settings.clock or "wall"
            result = validate_task(batch_id, config, now)
    finally:
        link_data_docs(settings)
    for line in summary_lines(result):
        print(f"validate: {line}")
    return result


@task(name="publish", **step_options("validate", hours=2, retried=True))
def validate_task(
    batch_id: str, config: ValidateConfig, clock: Literal["wall", "replay"]
) -> dict[str, Any]:
    return validate_batch(Settings(), batch_id, config, clock=clock)


def summary_lines(result: dict[str, Any]) -> list[str]:
    """Format the result of a validation as lines: the account of the events, warnings and links."""
    if result["read"] == 0 and result["unchanged"]:
        return [f"nothing new: {result['unchanged']} files are unchanged since the last ingest"]
    parts = ("accepted", "quarantined", "duplicates", "excluded", "applied")
    shown = [f"{result[part]:,} {part}" for part in parts]
    shown += [f"{result['held_back']:,} held back"] if result["held_back"] else []
    lines = [f"{result['read']:,} events read = {' + '.join(shown)}"]
    lines += [f"warning: {warning}" for warning in result["warnings"]]
    if result["quarantine"]:
        lines.append(f"`shortlist quarantine show {result['batch_id']}` shows the bad rows")
    if withdrawn := result["withdrawn"]:
        lines.append(f"{withdrawn:,} items are missing in the new catalogue: marked unavailable")
    if result["late"]:
        moment = datetime.fromtimestamp(result["stale_from"] / 1e6, UTC)
        lines.append(
            f"{result['late']:,} events came late: features after {moment:%Y-%m-%d %H:%M} UTC are"
            " stale until `shortlist refresh`"
        )
    return [*lines, f"Data Docs: {result['data_docs']}"]


def validate_batch(
    settings: Settings, batch_id: str, config: ValidateConfig, *, clock: Literal["wall", "replay"]
) -> dict[str, Any]:
    """Do the work of `validate_flow`, without Prefect and without the home's lock."""
    root = settings.lake
    with locked(root), workspace(root) as work, connect(work) as connection:
        folder, batch = open_staged(root, batch_id)
        if batch.is_empty:
            shutil.rmtree(folder)
            if _is_outdated(settings, config):
                judge = GxContext(settings.great_expectations, connection)
                _publish_event_rules(settings, judge, config, now=datetime.now(UTC))
            return empty_result(batch)
        sorting = Sorting(connection, root, folder, batch, config)
        judge = GxContext(settings.great_expectations, connection)
        now = data_now(sorting, clock)
        rules = _publish_event_rules(settings, judge, config, now=now)
        config = judge.limits(config)
        sorting.prepare(rules)
        figures = measure(sorting, rules, config, now=now)
        findings = judge.run(sorting, rules, figures, batch_id=batch_id)
        quarantine = Quarantine(settings.quarantine).write(sorting)
        bad = {table: rows_of(sorting, table)[1] for table in SCHEMAS}
        account = Account(
            read=batch.read["interactions"],
            quarantined=bad["interactions"],
            excluded=sorting.excluded,
        )
        stops = [finding for finding in findings if finding.action == "stop"]
        if stops:
            index = keep_account(settings.data_docs, batch_id, account, refused=True)
            raise ValidationFailed(refusal(batch_id, stops, quarantine, index))
        account.held_back = hold_back(sorting, settings.held_back)
        items, users = (sorting.good_rows(table) for table in ("items", "users"))
        withdrawn = sorting.withdrawn()
        done = publish(
            connection,
            root,
            batch_id,
            work=work,
            events=sorting.good_events(),
            items=pa.concat_tables([items, withdrawn], promote_options="default"),
            users=users,
            given_ids=batch.given_ids,
            unique_ids=sorting.unique_ids,
            operations=batch.operations,
            session_gap=batch.session_gap,
            arrived=sorting.arrived(round(now.timestamp() * 1e6)),
            source=batch.source,
            record=figures.record | {"quarantined": account.quarantined},
        )
        account.accepted, account.duplicates = done.accepted, done.duplicates
        account.applied = done.applied
        assert account.is_whole, f"every event is in one place: {account}"
        index = keep_account(settings.data_docs, batch_id, account, refused=False)
        judge.leave(views_of_lake(root, rules, figures))
        shutil.rmtree(folder)
    return account.figures() | {
        "batch_id": batch_id,
        "unchanged": batch.unchanged,
        "late": done.late,
        "stale_from": done.earliest,
        "items": done.items,
        "withdrawn": withdrawn.num_rows,
        "users": done.users,
        "quarantined_items": bad["items"],
        "quarantined_users": bad["users"],
        "warnings": [str(finding) for finding in findings if finding.action == "warn"],
        "version": done.version,
        "quarantine": str(quarantine) if quarantine else None,
        "data_docs": str(index),
    }


def _publish_event_rules(
    settings: Settings, judge: GxContext, config: ValidateConfig, *, now: datetime
) -> list[Rule]:
    """Write the rules on single events and items for the service; return all rules on rows."""
    rules = judge.rules(config, now=now)
    write_event_rules(
        settings.event_rules,
        rules,
        config,
        now=now,
        earliest=as_utc(config.earliest),
        earliest_published=as_utc(config.earliest_published),
    )
    return rules


def _is_outdated(settings: Settings, config: ValidateConfig) -> bool:
    """Return whether the rules on single events were written for another config or other suites."""
    try:
        written = settings.event_rules.stat().st_mtime_ns
        content = json.loads(settings.event_rules.read_text())
    except (OSError, ValueError):
        return True
    suites = (settings.great_expectations / "gx" / "expectations").glob("*.json")
    # A validation itself stores its suites shortly after it has written the rules.
    edited = any(path.stat().st_mtime_ns > written + 60 * 10**9 for path in suites)
    return edited or content.get("made_for") != digest(config)


def empty_result(batch: StagedBatch) -> dict[str, Any]:
    """Return the result for a batch without new rows."""
    return Account(read=0).figures() | {
        "batch_id": batch.batch_id,
        "unchanged": batch.unchanged,
        "withdrawn": 0,
        "late": 0,
        "stale_from": None,
        "warnings": [],
        "quarantine": None,
        "data_docs": None,
    }


def refusal(batch_id: str, stops: list[Finding], quarantine: Path | None, index: Path) -> str:
    """Format the message of ValidationFailed: all reasons for the refusal and where to look."""
    where = f"; quarantine: {quarantine}" if quarantine else ""
    return (
        f"batch {batch_id} is refused, the lake is unchanged: "
        + "; ".join(str(stop) for stop in stops)
        + f"{where}; Data Docs: {index}"
    )


def link_data_docs(settings: Settings) -> None:
    """Add a link to the Data Docs to the page of the Prefect run.

    Does nothing outside a Prefect run, or if there are no Data Docs yet.
    """
    index = settings.data_docs / "index.html"
    if index.is_file():
        link(settings, "data-docs", index, "Data Docs of Great Expectations")
