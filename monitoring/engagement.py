"""Custom Evidently metric: the share of shown items that users chose, by source, slice or position.

An item is taken (chosen) if the user has a target event with it within 24 h. A source is the model
that retrieved the item; a slice is a group of users by history length. Evidently's ranking metrics
cover only whole lists. Like `evidently_runs`, this module is slow to import, so callers import it
inside functions.
"""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from evidently import Dataset
from evidently.core.metric_types import ByLabelCalculation, ByLabelMetric
from evidently.core.report import Context
from evidently.legacy.renderers.html_widgets import plotly_figure

from monitoring.frames import slice_names
from monitoring.windows import Slates

TAKEN = "taken"


class TakenShare(ByLabelMetric):
    """Mean of the column `taken` (0/1) for each value of the column `by`."""

    by: str


class TakenShareCalculation(ByLabelCalculation[TakenShare]):
    """Computes the shares and draws them as bars, for the current and the reference window."""

    def calculate(
        self, context: Context, current_data: Dataset, reference_data: Dataset | None
    ) -> Any:
        current = self._shares(current_data)
        reference = None if reference_data is None else self._shares(reference_data)
        result = self.result({**current})
        result.widget = [self._bars(current, reference or {})]
        if reference is None:
            return result, None
        return result, self.result({**reference})

    def display_name(self) -> str:
        return f"Share of the shown items that were taken, by {self.metric.by}"

    def _shares(self, data: Dataset) -> dict[str, float]:
        means = data.as_dataframe().groupby(self.metric.by)[TAKEN].mean()
        return {str(label): float(share) for label, share in means.items()}

    def _bars(self, current: dict[str, float], reference: dict[str, float]) -> Any:
        labels = sorted(current.keys() | reference.keys(), key=lambda n: -current.get(n, 0))
        figure = go.Figure()
        sides = (("current", current, "#ed0400"), ("reference", reference, "#4d4d4d"))
        for name, shares, colour in sides:
            if shares:
                values = [shares.get(label) for label in labels]
                figure.add_bar(name=name, x=labels, y=values, marker_color=colour)
        figure.update_layout(barmode="group", yaxis_tickformat=".1%")
        return plotly_figure(title=self.display_name(), figure=figure)


def engagement_frame(slates: Slates) -> pd.DataFrame:
    """Return a frame with one row per shown item: taken (0 or 1), source, place (position from 1),
    and the user's slice.
    """
    row, position = np.nonzero(slates.item_idx)
    return pd.DataFrame(
        {
            TAKEN: slates.hit[row, position].astype(float),
            "source": slates.source[row, position].astype(str),
            "place": (position + 1).astype(str),
            "slice": slice_names(slates.history_length)[row],
        }
    )
