"""The lake: validated interactions, items and users in Parquet, committed whole or not at all.

    lake/current -> snapshots/000017     a link, swapped by rename: all that a commit moves
    lake/snapshots/000017/
        manifest.json                    partitions, sources read so far, the last batches
        interactions/event_month=2024-05/*.parquet
        items.parquet users.parquet      the newest row of each id
        items_versions.parquet           what was known of each item, and since when
    lake/incoming/<batch_id>/            staged by ingest, not yet validated

A snapshot is a folder of hard links: a commit writes only what is new and links the rest, so that
whatever reads Parquet can read `lake/current/interactions/**/*.parquet`, and a process that is
killed leaves the snapshot before or the one after.
"""

from shortlist.lake.publish import Published, publish_batch
from shortlist.lake.reading import Lake
from shortlist.lake.snapshot import LakeError, Manifest, write_whole
from shortlist.lake.staging import StagedBatch, Staging, open_staged

__all__ = [
    "Lake",
    "LakeError",
    "Manifest",
    "Published",
    "StagedBatch",
    "Staging",
    "open_staged",
    "publish_batch",
    "write_whole",
]
