"""`stamps_around` finds the stored row of a served state by the time of its newest event."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shortlist.contracts import TIMESTAMP
from shortlist.feature_store import stamps_around


def test_a_batch_that_became_known_hours_later(tmp_path: Path) -> None:
    """The stamp of a row may be hours later than its newest event, if the events arrived late."""
    rows = {  # key, stamp, newest event
        "000000": [("u1", 11, 10), ("u1", 500, 90), ("u2", 500, 70)],
        "000001": [("u1", 900, 95), ("u1", 950, 95)],
    }
    (tmp_path / "user_stats").mkdir()
    for part, found in rows.items():
        users, stamps, newest = (list(column) for column in zip(*found, strict=True))
        table = pa.table(
            {
                "user_id": users,
                "event_timestamp": pa.array(stamps, pa.int64()).cast(TIMESTAMP),
                "user_last_time": newest,
            }
        )
        pq.write_table(table, tmp_path / "user_stats" / f"{part}.parquet")
    asked = [  # key, as_of, at, had, missed
        ("u1", 90, 1_000, 500, 900),
        ("u1", 10, 1_000, 11, 500),
        ("u1", 0, 1_000, 0, 11),
        ("u1", 10, 400, 11, 0),  # the batch was not known yet
        ("u1", 95, 1_000, 950, 0),
        ("u2", 0, 499, 0, 0),
        ("u3", 0, 1_000, 0, 0),
    ]
    users, as_of, at, had, missed = (list(column) for column in zip(*asked, strict=True))
    found = stamps_around(
        tmp_path, "user_stats", keys=users, as_of=np.array(as_of), at=np.array(at)
    )
    assert [column.tolist() for column in found] == [had, missed]
