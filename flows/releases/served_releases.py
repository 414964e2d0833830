"""Which releases answered requests, by the serving log.

The release pointer can name another one: it was promoted a moment ago, the service is pinned, or
workers have not followed yet. So monitoring and skew ask the log.
"""

from array import array
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

import numpy as np

from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.datasets.service_log import read_responses


def response_times(folder: Path) -> dict[str, np.ndarray]:
    """Release -> times of its responses (int64 microseconds), in the order of the log.

    Only times are kept in memory, 8 bytes a response.
    """
    times: dict[str, array[int]] = {}
    for response in read_responses(folder, keys=("release_id", "event_timestamp")):
        times.setdefault(response["release_id"], array("q")).append(response["event_timestamp"])
    return {release_id: np.frombuffer(own, dtype=np.int64) for release_id, own in times.items()}


def newest_day(times: Mapping[str, Sequence[int] | np.ndarray]) -> dict[str, int]:
    """Release -> its responses in the last 24 h before the newest one, most first."""
    since = max((max(own) for own in times.values()), default=0) - MICROSECONDS_PER_DAY
    counts = {release_id: int((np.asarray(own) > since).sum()) for release_id, own in times.items()}
    order = sorted(counts, key=lambda release_id: (-counts[release_id], release_id))
    return {release_id: counts[release_id] for release_id in order if counts[release_id]}


def most_served(
    times: Mapping[str, Sequence[int] | np.ndarray], known: Container[str]
) -> str | None:
    """The release among `known` that answered most requests of its last day; None: there is none.

    Args:
        known: releases that are still there.
    """
    kept = {release_id: own for release_id, own in times.items() if release_id in known}
    return next(iter(newest_day(kept)), None)
