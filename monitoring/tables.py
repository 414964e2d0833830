"""Sampled frames for the drift figures and for Evidently.

Each frame exists for the current window (monitored traffic) and for the reference window (lists of
the test window).
"""

import numpy as np

from monitoring import frames
from monitoring.columns import ColumnGroups, sort_columns
from monitoring.figures import column_drifts
from monitoring.windows import SharedData, Slates, Window

DRIFT_ROWS = 4_000
RANKING_REQUESTS = 400
HISTORY_ROWS = 50_000
"""Sample sizes. With them, distances are exact to two digits; more rows would be slower."""


class Tables:
    """Sampled frames as [current, reference] pairs, built once.

    Attributes:
        slates: all shown lists of (current, reference), not sampled.
        history: events before the reference window; one frame for both windows.
    """

    def __init__(
        self,
        current: Window,
        reference: Window,
        now: Slates,
        before: Slates,
        shared: SharedData,
        rng: np.random.Generator,
    ):
        windows, slates = (current, reference), (now, before)
        self.shared = shared
        self.slates = slates
        logs = [(w.log, frames.sample(w.log.num_rows, DRIFT_ROWS, rng=rng)) for w in windows]
        sources = sorted({str(s) for both in slates for s in np.unique(both.source) if s})
        self.events = [
            frames.event_frame(
                w,
                shared,
                rows=frames.sample(frames.events_in(w).num_rows, DRIFT_ROWS, rng=rng),
            )
            for w in windows
        ]
        self.requests = [
            frames.request_frame(s, w, shared) for s, w in zip(slates, windows, strict=True)
        ]
        self.features = [
            frames.feature_frame(log, shared.feature_names, rows=rows) for log, rows in logs
        ]
        self.scores = [frames.score_frame(log, sources, rows=rows) for log, rows in logs]
        rows = [frames.sample(len(s), RANKING_REQUESTS, rng=rng) for s in slates]
        self.ranking = [
            frames.ranking_frame(s, shared.catalogue, rows=r)
            for s, r in zip(slates, rows, strict=True)
        ]
        self.shown = [
            frames.shown_frame(s, shared.catalogue, rows=r)
            for s, r in zip(slates, rows, strict=True)
        ]
        self.history = frames.history_frame(
            reference.interactions,
            shared.catalogue,
            end=int(before.at[0]),
            rows=HISTORY_ROWS,
            rng=rng,
        )

    def sorted_columns(self) -> dict[str, ColumnGroups]:
        """Return {group: its columns, sorted into varying, constant, growing and empty ones}."""
        groups = {"events": self.events, "requests": self.requests, "features": self.features}
        return {name: sort_columns(*pair) for name, pair in groups.items()}

    def drifts(self) -> dict[str, dict[str, float]]:
        """Return {group: {column: distance between the windows}}."""
        return {
            "events": column_drifts(*self.events),
            "requests": column_drifts(*self.requests),
            "features": column_drifts(*self.features),
            "scores": column_drifts(*self.scores),
        }
