"""From a DataConfig to a batch."""

from shortlist.config import Settings
from shortlist.datasets.batch import Batch, DatasetError
from shortlist.datasets.config import DataConfig
from shortlist.datasets.files import load_files
from shortlist.datasets.movielens import load_movielens_100k
from shortlist.datasets.service_log import load_posted_events
from shortlist.datasets.simulated.source import SimulatedConfig, load_simulated


def load_batch(config: DataConfig, settings: Settings, *, now: int) -> Batch:
    """Read the source that `config` names.

    Args:
        now: microseconds, what `ingested_at` becomes.

    Raises:
        DatasetError: a file is missing or broken, or there is not a single event.
        ContractError: a column has the wrong type.
    """
    if config.source == "movielens-100k":
        batch = load_movielens_100k(
            settings.cache,
            origin=config.origin,
            path=config.path,
            like_threshold=config.like_threshold,
            now=now,
        )
    elif config.source == "files":
        assert config.files is not None, "checked by DataConfig"
        batch = load_files(config.files, like_threshold=config.like_threshold, now=now)
    elif config.source == "simulated":
        world = config.simulated or SimulatedConfig()
        batch = load_simulated(world, cache=settings.cache, now=now)
    else:
        batch = load_posted_events(settings, now=now)
    if batch.interactions.num_rows == 0:
        raise DatasetError(f"source '{config.source}' has no events: nothing to ingest")
    return batch
