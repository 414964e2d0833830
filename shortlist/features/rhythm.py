"""Session features of a user: depth of the current session and usual gap between sessions."""

from collections.abc import Sequence

import numpy as np

SESSION_GAP = 30 * 60 * 1_000_000
"""A session ends when no event follows within this time, in microseconds."""
USUAL_GAPS = 10
"""Number of the newest gaps between sessions from which the median is taken."""


def rhythm(history_times: Sequence[np.ndarray], at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the session depth and usual gap between sessions at each request.

    Args:
        history_times: B arrays of int64 microseconds, oldest first, all before the request.
        at: (B,) int64 microseconds, time of the request.

    Returns:
        (B,) number of items in the current session, 0 if the last event is SESSION_GAP or more ago;
        (B,) microseconds, median of the newest USUAL_GAPS gaps between sessions, 0 if the user had
        at most one session.
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
