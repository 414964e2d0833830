"""Stages the source of a DataConfig as a batch. LOADERS has the reader of each source."""

import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from shortlist.config import Settings
from shortlist.datasets.config import MOVIELENS, DataConfig
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.public.amazon import amazon_files
from shortlist.datasets.public.grouplens import grouplens_files
from shortlist.datasets.public.movielens import stage_movielens_100k
from shortlist.datasets.public.sequences import stage_sequences
from shortlist.datasets.service.item_commands import stage_commands
from shortlist.datasets.service.service_log import stage_service
from shortlist.datasets.staging import Stager, complete, stage_files
from shortlist.lake.engine import connect
from shortlist.lake.staging import StagedBatch, finish_batch, staging

Load = Callable[[Stager], Any]


def _files(stager: Stager) -> None:
    assert stager.config.files is not None, "checked by DataConfig"
    stage_files(stager, stager.config.files)


def _database(stager: Stager) -> None:
    from shortlist.datasets.database import stage_database  # imports SQLAlchemy

    stage_database(stager)


LOADERS: dict[str, Load] = {
    "files": _files,
    "database": _database,
    "service": stage_service,
    "commands": stage_commands,
    "sequences": stage_sequences,
    "movielens-100k": stage_movielens_100k,
    "amazon-reviews-2023": lambda stager: stage_files(stager, amazon_files(stager)),
} | {name: lambda stager: stage_files(stager, grouplens_files(stager)) for name in MOVIELENS}


def stage_source(
    config: DataConfig,
    settings: Settings,
    *,
    now: int,
    between: tuple[int, int] | None = None,
    readers: Mapping[str, Load] = MappingProxyType({}),
) -> StagedBatch:
    """Read the new rows of a source and stage them as one batch.

    The batch id is a hash of config and content, so that reading the same files again gives the
    same id.

    Args:
        now: microseconds, `ingested_at` of rows whose source gives none.
        between: microseconds, as in `Stager`; only for files and databases. None: all new rows.
        readers: {source: reader} for sources that other packages provide, e.g. "simulated".

    Raises:
        DatasetError: the source has no reader, a file is missing or broken, or there are no rows.
    """
    read = LOADERS.get(config.source) or readers.get(config.source)
    if read is None:
        raise DatasetError(f"source '{config.source}' has no reader here: pass one in `readers`")
    with staging(settings.lake) as staged, connect(staged.folder) as connection:
        stager = Stager(staged, connection, config, settings, now, between)
        read(stager)
        complete(stager)
        batch = stager.batch
        if batch.is_empty and not batch.unchanged:
            raise DatasetError(f"source '{config.source}' has no events: nothing to ingest")
        if config.session_gap_minutes is not None and config.has_time:
            batch.session_gap = int(config.session_gap_minutes * 60_000_000)
        if config.source not in ("service", "commands"):
            batch.hold_back, batch.target_events = config.hold_back, config.target_events
        about = [config.model_dump_json(), *sorted(stager.fresh)]
        about += [] if between is None else [f"between {between}"]
        batch.batch_id = hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]
        finish_batch(staged, settings.lake, batch)
    return batch
