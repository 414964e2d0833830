"""When somebody comes: sessions, and the times between them."""

from collections.abc import Sequence

import numpy as np

SESSION_GAP = 30 * 60 * 1_000_000
"""A session ends where nothing follows for so long, in microseconds."""
USUAL_GAPS = 10
"""So many of the newest times between sessions make the usual one."""


def rhythm(history_times: Sequence[np.ndarray], at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How deep each request is in a session, and how long its user usually stays away.

    Args:
        history_times: B arrays of int64 microseconds, oldest first, all before the request.
        at: (B,) int64 microseconds.

    Returns:
        (B,) items of the running session, each less than SESSION_GAP after the one before, 0 where
        none runs; (B,) microseconds, the median of the newest USUAL_GAPS times between sessions, 0
        where there was one session at most.
    """
    depth, usual = np.zeros(len(at)), np.zeros(len(at))
    for row, (times, now) in enumerate(zip(history_times, at, strict=True)):
        if not len(times):
            continue
        gaps = np.diff(times)
        ends = np.flatnonzero(gaps >= SESSION_GAP)
        if now - times[-1] < SESSION_GAP:
            depth[row] = len(times) - (ends[-1] + 1 if len(ends) else 0)
        if len(ends):
            newest = np.sort(gaps[ends[-USUAL_GAPS:]])
            usual[row] = (newest[(len(newest) - 1) // 2] + newest[len(newest) // 2]) / 2
    return depth, usual
