"""Sources of data: one file a source, each maps what it reads to the contracts and nothing else."""

from shortlist.datasets.batch import Batch, DatasetError
from shortlist.datasets.config import DataConfig, FilesConfig, InteractionFile, ItemFile, UserFile
from shortlist.datasets.load import load_batch

__all__ = [
    "Batch",
    "DataConfig",
    "DatasetError",
    "FilesConfig",
    "InteractionFile",
    "ItemFile",
    "UserFile",
    "load_batch",
]
