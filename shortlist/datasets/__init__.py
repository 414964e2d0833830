"""Readers of data sources, one file per source: each maps the source's rows to the contracts."""

from shortlist.datasets.batch import Batch
from shortlist.datasets.config import (
    DatabaseConfig,
    DataConfig,
    FilesConfig,
    InteractionFile,
    ItemFile,
    SimulatedConfig,
    UserFile,
)
from shortlist.datasets.errors import DatasetError, SourceUnavailable
from shortlist.datasets.load import Load, stage_source

__all__ = [
    "Batch",
    "DataConfig",
    "DatabaseConfig",
    "DatasetError",
    "FilesConfig",
    "InteractionFile",
    "ItemFile",
    "Load",
    "SimulatedConfig",
    "SourceUnavailable",
    "UserFile",
    "stage_source",
]
