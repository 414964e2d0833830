"""Finds the releases that answered requests, from the serving log.

Monitoring and skew use the log and not the release pointer. The pointer may name a release that
doesn't serve: the service may be pinned to another one, or its workers haven't loaded it yet.
"""

from array import array
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

import numpy as np

from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.datasets.service.service_log import read_responses


def response_times(folder: Path) -> dict[str, np.ndarray]:
    """Return {release: times of its responses, int64 microseconds, in the order of the log}.

    Memory use is 8 bytes per response.
    """
    times: dict[str, array[int]] = {}
    for response in read_responses(folder, keys=("release_id", "event_timestamp")):
        times.setdefault(response["release_id"], array("q")).append(response["event_timestamp"])
    return {
        release_id: np.frombuffer(moments, dtype=np.int64) for release_id, moments in times.items()
    }


def newest_day(times: Mapping[str, Sequence[int] | np.ndarray]) -> dict[str, int]:
    """Return {release: number of its responses in the last 24 h before the newest response}.

    Releases are sorted by that number, largest first. Releases without a response in these 24 h are
    left out.

    Args:
        times: release -> times of its responses in microseconds.
    """
    since = max((max(moments) for moments in times.values()), default=0) - MICROSECONDS_PER_DAY
    counts = {
        release_id: int((np.asarray(moments) > since).sum())
        for release_id, moments in times.items()
    }
    order = sorted(counts, key=lambda release_id: (-counts[release_id], release_id))
    return {release_id: counts[release_id] for release_id in order if counts[release_id]}


def most_served(
    times: Mapping[str, Sequence[int] | np.ndarray], known: Container[str]
) -> str | None:
    """Return the stored release with most responses; None if there is no response of one.

    Only the 24 h before the newest response of any stored release count.

    Args:
        times: release -> times of its responses in microseconds.
        known: releases that are still stored.
    """
    kept = {release_id: moments for release_id, moments in times.items() if release_id in known}
    return next(iter(newest_day(kept)), None)
