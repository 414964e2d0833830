"""Validate: bad rows go to quarantine with the reason, a bad batch stops the run, the rest joins
the lake.
"""

import contextlib
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from prefect import flow
from prefect.artifacts import create_link_artifact
from prefect.runtime import flow_run
from pydantic import Field

from flows.validate_suites import (
    BATCH,
    Finding,
    Validator,
    interaction_expectations,
    item_expectations,
    user_expectations,
)
from shortlist import columns as c
from shortlist.config import Config, Settings
from shortlist.contracts import INTERACTIONS, microseconds
from shortlist.lake import Lake, LakeError, write_whole


class ValidateConfig(Config):
    """Limits that the contracts do not know."""

    failure_budget: float = Field(default=0.01, ge=0, le=1)
    """Share of a table's rows that may go to quarantine before the batch is refused."""
    rating_range: tuple[float, float] = (1, 5)
    min_rows: int = Field(default=1, ge=1)
    max_rows: int | None = None
    earliest: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    earliest_published: datetime = datetime(1800, 1, 1, tzinfo=UTC)
    max_age_days: float | None = Field(default=None, gt=0)
    """The newest event may be this much older than the data's clock."""


class ValidationFailed(ValueError):
    """A batch was refused; the message names expectation, figures, budget, and where to look."""


@dataclass
class Sorted:
    """One table's rows after validation, and why the others are not among them."""

    name: str
    accepted: pa.Table
    rejected: pa.Table
    reasons: list[list[Finding]]  # of each rejected row
    stops: list[str]  # batch expectations that do not hold


@flow(name="validate", log_prints=True)
def validate_flow(
    batch_id: str,
    config: ValidateConfig,
    clock: Literal["wall", "replay"] | None = None,
) -> dict[str, Any]:
    """Validate a staged batch and publish what is good of it.

    Args:
        clock: "replay": now is the newest event; None: as SHORTLIST_CLOCK says, else the wall's.

    Raises:
        ValidationFailed: a batch expectation does not hold or the failure budget is spent; the
            lake is as it was.
    """
    settings = Settings()
    try:
        result = validate_batch(settings, batch_id, config, clock=clock or settings.clock or "wall")
    finally:
        link_data_docs(settings)
    print(
        f"validate: {result['read']:,} events read: {result['accepted']:,} accepted,"
        f" {result['duplicates']:,} in the lake already, {result['quarantined']:,} in quarantine;"
        f" Data Docs: {result['data_docs']}"
    )
    return result


def validate_batch(
    settings: Settings, batch_id: str, config: ValidateConfig, *, clock: Literal["wall", "replay"]
) -> dict[str, Any]:
    """See `validate_flow`; this is the same without Prefect."""
    lake = Lake(settings.lake)
    interactions, items, users = lake.read_incoming(batch_id)
    now = data_clock(lake, interactions, clock)
    validator = Validator(settings.data_docs)
    run = partial(sort_rows, validator=validator, batch_id=batch_id)
    # A film of next year may be in the catalogue already.
    published = item_expectations(
        earliest=as_utc(config.earliest_published), now=now + timedelta(days=1000)
    )
    good_items = run("items", items, items.to_pandas(), expectations=published)
    good_users = run("users", users, users.to_pandas(), expectations=user_expectations())
    judged = [f.name for f in INTERACTIONS if not f.nullable] + [c.VALUE]
    frame = interactions.select(judged).to_pandas()  # GX copies what it gets, often
    frame = frame.assign(
        rating=lambda f: f[c.VALUE].where(f[c.EVENT_TYPE] == "rating"),
        item_is_known=known(interactions, good_items.accepted, c.ITEM_ID),
        user_is_known=known(interactions, good_users.accepted, c.USER_ID),
    )
    expectations = interaction_expectations(
        earliest=as_utc(config.earliest),
        now=now,
        rating_range=config.rating_range,
        rows=(config.min_rows, config.max_rows),
        max_age=timedelta(days=config.max_age_days) if config.max_age_days else None,
    )
    events = run("interactions", interactions, frame, expectations=expectations)
    index = validator.write_docs(batch_id)
    tables = [good_items, good_users, events]
    folder = write_quarantine(settings, batch_id, tables)
    refuse_bad(batch_id, tables, config, folder, settings)
    published = lake.publish(batch_id, events.accepted, good_items.accepted, good_users.accepted)
    shutil.rmtree(lake.incoming(batch_id))
    result = {
        "batch_id": batch_id,
        "read": interactions.num_rows,
        "accepted": published["interactions"],
        "quarantined": events.rejected.num_rows,
        "duplicates": published["known"],
        "quarantined_items": good_items.rejected.num_rows,
        "quarantined_users": good_users.rejected.num_rows,
        "quarantine": str(folder) if folder else None,
        "data_docs": str(index),
    }
    accounted = result["accepted"] + result["quarantined"] + result["duplicates"]
    assert accounted == result["read"], f"every event is in one place: {result}"
    return result


def data_clock(lake: Lake, interactions: pa.Table, clock: str) -> datetime:
    """'Now' for freshness and the future: the wall's, or the newest event of lake and batch."""
    if clock == "wall":
        return datetime.now(UTC)
    newest = [int(microseconds(interactions.column(c.EVENT_TIMESTAMP)).to_numpy().max(initial=0))]
    with contextlib.suppress(LakeError):  # the first batch has no lake yet
        newest.append(microseconds(lake.interactions().column(c.EVENT_TIMESTAMP))[-1].as_py())
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=max(newest))


def known(interactions: pa.Table, table: pa.Table, key: str) -> np.ndarray:
    """'yes' or 'no' for each id: words, so that Data Docs read well."""
    found = pc.is_in(interactions.column(key), value_set=table.column(key).combine_chunks())
    return np.where(found.to_numpy(), "yes", "no")


def sort_rows(
    name: str,
    table: pa.Table,
    frame: pd.DataFrame,
    *,
    validator: Validator,
    batch_id: str,
    expectations: list[Any],
) -> Sorted:
    """Validate one table and part good rows from bad ones."""
    findings = validator.run(name, frame, expectations, batch_id=batch_id)
    reasons: dict[int, list[Finding]] = {}
    for finding in findings:
        for row in finding.rows:
            reasons.setdefault(row, []).append(finding)
    bad = np.zeros(table.num_rows, dtype=bool)
    bad[list(reasons)] = True
    return Sorted(
        name=name,
        accepted=table.filter(pa.array(~bad)),
        rejected=table.filter(pa.array(bad)),
        reasons=[reasons[row] for row in sorted(reasons)],
        stops=[str(finding) for finding in findings if finding.action == BATCH],
    )


def write_quarantine(settings: Settings, batch_id: str, tables: list[Sorted]) -> Path | None:
    """Rejected rows with all their columns, reason and expectation; None if there are none."""
    folder = settings.quarantine / batch_id
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier try with other limits
    rejected = [table for table in tables if table.rejected.num_rows]
    if not rejected:
        return None
    folder.mkdir(parents=True)
    for table in rejected:
        rows = table.rejected
        for column in ("reason", "expectation"):
            texts = ["; ".join(getattr(f, column) for f in found) for found in table.reasons]
            rows = rows.append_column(column, pa.array(texts, pa.string()))
        write_whole(rows, folder / f"{table.name}.parquet")
    return folder


def refuse_bad(
    batch_id: str,
    tables: list[Sorted],
    config: ValidateConfig,
    quarantine: Path | None,
    settings: Settings,
) -> None:
    """Raises ValidationFailed if a batch expectation failed or a table is over its budget."""
    problems = [stop for table in tables for stop in table.stops]
    for table in tables:
        total = table.accepted.num_rows + table.rejected.num_rows
        share = table.rejected.num_rows / max(total, 1)
        if share > config.failure_budget:
            problems.append(
                f"{table.name}: {table.rejected.num_rows:,} of {total:,} rows are bad"
                f" ({share:.1%}), the budget is {config.failure_budget:.1%};"
                f" most of all {most_common(table.reasons)}"
            )
    if problems:
        where = f"; quarantine: {quarantine}" if quarantine else ""
        raise ValidationFailed(
            f"batch {batch_id} is refused, the lake is unchanged: "
            + "; ".join(problems)
            + f"{where}; Data Docs: {settings.data_docs / 'index.html'}"
        )


def most_common(reasons: list[list[Finding]]) -> str:
    """The expectation that most rows break, with what they hold, for the message."""
    finding = max((f for found in reasons for f in found), key=lambda f: len(f.rows))
    return f"{len(finding.rows):,} by {finding.expectation}: {finding.reason}, {finding.figures}"


def link_data_docs(settings: Settings) -> None:
    """Show the Data Docs in Prefect's page of the run; without a run there is nothing to show."""
    index = settings.data_docs / "index.html"
    if flow_run.id and index.is_file():
        create_link_artifact(
            index.absolute().as_uri(),
            "Data Docs",
            key="data-docs",
            description="Great Expectations",
        )


def as_utc(moment: datetime) -> datetime:
    """A time without a zone is taken to be UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
