"""The lake: validated interactions, items and users in Parquet, with atomic commits.

    lake/current -> snapshots/000017     symbolic link, replaced by a rename at each commit
    lake/snapshots/000017/
        manifest.json                    partitions, sources read so far, the last batches
        interactions/event_month=2024-05/*.parquet
        items.parquet users.parquet      the newest row of each id
        items_versions.parquet           all versions of each item and when they became known
    lake/incoming/<batch_id>/            batches staged by ingest, not yet validated

A commit creates a new snapshot folder with the new files and hard links to the unchanged ones. So
any Parquet reader can read `lake/current/interactions/**/*.parquet`. If a writer is killed, readers
see either the old or the new snapshot.
"""

from shortlist.lake.publish import Published, publish_batch
from shortlist.lake.reading import Lake
from shortlist.lake.snapshot import LakeError, Manifest, write_whole
from shortlist.lake.staging import StagedBatch, Staging, newest_staged, open_staged

__all__ = [
    "Lake",
    "LakeError",
    "Manifest",
    "Published",
    "StagedBatch",
    "Staging",
    "newest_staged",
    "open_staged",
    "publish_batch",
    "write_whole",
]
