"""Validate: bad rows go to quarantine with the reason, a bad batch stops the run, the rest joins
the lake.
"""

import contextlib
import json
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from prefect import flow
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
from shortlist.contracts import microseconds
from shortlist.lake import Lake, LakeError, write_whole


class ValidateConfig(Config):
    """Limits that the contracts do not know."""

    failure_budget: float = Field(0.01, ge=0, le=1)
    """Share of a table's rows that may go to quarantine before the batch is refused."""
    rating_range: tuple[float, float] = (1, 5)
    min_rows: int = Field(1, ge=1)
    max_rows: int | None = None
    earliest: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    earliest_published: datetime = datetime(1800, 1, 1, tzinfo=UTC)
    max_age_days: float | None = Field(None, gt=0)
    """The newest event may be this much older than the data's clock."""


class ValidationFailed(ValueError):
    """A batch was refused; the message names expectation, figures, budget, and where to look."""


@dataclass
class Sorted:
    """One table's rows after validation, and why the others are not among them."""

    name: str
    accepted: pa.Table
    rejected: pa.Table
    reasons: list[str] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)


@flow(name="validate", log_prints=True)
def validate_flow(
    batch_id: str,
    config: ValidateConfig | None = None,
    clock: Literal["wall", "replay"] = "wall",
) -> dict[str, Any]:
    """Validate a staged batch and publish what is good of it.

    Raises:
        ValidationFailed: a batch expectation does not hold or the failure budget is spent; the lake
            is
            as it was.
    """
    settings = Settings()
    result = validate_batch(settings, batch_id, config or ValidateConfig(), clock=clock)
    print(
        f"validate: {result['accepted']:,} of {result['read']:,} events accepted,"
        f" {result['quarantined']:,} rows in quarantine; Data Docs: {result['data_docs']}"
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
    # A film of next year may be in the catalogue already.
    item_limits = {"earliest": stamp(config.earliest_published), "now": now + pd.Timedelta("1000D")}
    tables = [
        sort_rows("items", items, validator, item_expectations(**item_limits)),
        sort_rows("users", users, validator, user_expectations()),
    ]
    good_items, good_users = (table.accepted for table in tables)
    frame = interactions.to_pandas().assign(
        rating=lambda f: f[c.VALUE].where(f[c.EVENT_TYPE] == "rating"),
        item_is_known=known(interactions.column(c.ITEM_ID), good_items.column(c.ITEM_ID)),
        user_is_known=known(interactions.column(c.USER_ID), good_users.column(c.USER_ID)),
    )
    expectations = interaction_expectations(
        earliest=stamp(config.earliest),
        now=now,
        rating_range=config.rating_range,
        rows=(config.min_rows, config.max_rows),
        max_age=pd.Timedelta(days=config.max_age_days) if config.max_age_days else None,
    )
    tables.append(sort_rows("interactions", interactions, validator, expectations, frame))
    folder = write_quarantine(settings, batch_id, tables)
    refuse_bad(batch_id, tables, config, folder, settings)
    events = tables[-1]
    published = lake.publish(batch_id, events.accepted, good_items, good_users)
    shutil.rmtree(lake.incoming(batch_id))
    accounted = events.accepted.num_rows + events.rejected.num_rows
    assert accounted == interactions.num_rows, "every row is accepted or in quarantine"
    return {
        "batch_id": batch_id,
        "read": interactions.num_rows,
        "accepted": events.accepted.num_rows,
        "new": published["interactions"],
        "known": published["known"],
        "quarantined": sum(table.rejected.num_rows for table in tables),
        "quarantine": str(folder) if folder else None,
        "data_docs": str(settings.data_docs / "index.html"),
    }


def data_clock(lake: Lake, interactions: pa.Table, clock: str) -> pd.Timestamp:
    """'Now' for freshness and the future: the wall's, or the newest event of lake and batch."""
    if clock == "wall":
        return pd.Timestamp.now(tz="UTC")
    newest = [int(microseconds(interactions.column(c.EVENT_TIMESTAMP)).to_numpy().max(initial=0))]
    with contextlib.suppress(LakeError):  # the first batch has no lake yet
        newest.append(microseconds(lake.interactions().column(c.EVENT_TIMESTAMP))[-1].as_py())
    return pd.Timestamp(max(newest), unit="us", tz="UTC")


def known(ids: pa.ChunkedArray, table_ids: pa.ChunkedArray) -> np.ndarray:
    """'yes' or 'no' for each id: words, so that Data Docs read well."""
    found = np.isin(ids.to_numpy(zero_copy_only=False), table_ids.to_numpy(zero_copy_only=False))
    return np.where(found, "yes", "no")


def sort_rows(
    name: str,
    table: pa.Table,
    validator: Validator,
    expectations: list[Any],
    frame: pd.DataFrame | None = None,
) -> Sorted:
    """Validate one table and part good rows from bad ones."""
    if frame is None:
        frame = table.to_pandas()
    findings = validator.run(name, frame, expectations)
    reasons: dict[int, list[str]] = {}
    for finding in findings:
        if finding.action != BATCH:
            for row in finding.rows:
                reasons.setdefault(row, []).append(reason(finding))
    bad = np.zeros(table.num_rows, dtype=bool)
    bad[list(reasons)] = True
    return Sorted(
        name=name,
        accepted=table.filter(pa.array(~bad)),
        rejected=table.filter(pa.array(bad)),
        reasons=["; ".join(reasons[row]) for row in sorted(reasons)],
        stops=[f"{f.table}: {f.detail}" for f in findings if f.action == BATCH],
    )


def reason(finding: Finding) -> str:
    return f"{finding.expectation}: {finding.detail.split(':')[0]}"


def write_quarantine(settings: Settings, batch_id: str, tables: list[Sorted]) -> Path | None:
    """Rejected rows with all their columns and the reason; None if there are none."""
    folder = settings.quarantine / batch_id
    rejected = [table for table in tables if table.rejected.num_rows]
    if not rejected:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    for table in rejected:
        rows = table.rejected.append_column("reason", pa.array(table.reasons, pa.string()))
        write_whole(rows, folder / f"{table.name}.parquet")
    counts = {table.name: table.rejected.num_rows for table in rejected}
    (folder / "summary.json").write_text(json.dumps(counts))
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


def most_common(reasons: list[str]) -> str:
    return max(sorted(set(reasons)), key=reasons.count)


def stamp(moment: datetime) -> pd.Timestamp:
    """As UTC; a time without a zone is taken to be UTC."""
    if moment.tzinfo is None:
        return pd.Timestamp(moment, tz="UTC")
    return pd.Timestamp(moment).tz_convert("UTC")
