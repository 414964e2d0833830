"""Runs the Evidently reports. Importing this module takes 10 to 18 s, so import it in functions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Recsys, Report
from evidently.core.metric_types import Metric
from evidently.core.report import Snapshot
from evidently.metrics import (
    MAP,
    MRR,
    NDCG,
    Diversity,
    DriftedColumnsCount,
    HitRate,
    Novelty,
    Personalization,
    PopularityBiasMetric,
    PrecisionTopK,
    RecallTopK,
    ValueDrift,
)
from evidently.tests import lt, lte
from evidently.ui.workspace import Workspace

from monitoring.columns import sort_columns
from monitoring.engagement import TAKEN, TakenShare, engagement_frame
from monitoring.figures import DRIFT_THRESHOLD
from monitoring.frames import category_columns
from monitoring.tables import Tables

NUMBERS, CATEGORIES = "wasserstein", "jensenshannon"
"""Drift methods for numbers and for categories.

Both are distances. Tests with p-values would call any difference of thousands of rows significant.
"""


def runs(
    tables: Tables, drifts: dict[str, dict[str, float]], *, drawn_features: int
) -> dict[str, tuple[str, str, Snapshot]]:
    """Run all reports; return name -> (title, description, snapshot).

    Args:
        drifts: group of columns -> column -> distance between the current and reference window.
        drawn_features: number of features with a chart; those with the largest distance are drawn.
    """
    k = tables.shared.k
    loudest = sorted(drifts["features"], key=lambda name: -np.nan_to_num(drifts["features"][name]))
    return {
        "data_events": (
            "Drift of events",
            "event types, categories, hours, ratings, popularity and age of the items",
            drift_run(*tables.events),
        ),
        "data_requests": (
            "Drift of requests",
            "surface, device, hour, history, slices, the users' attributes",
            drift_run(*tables.requests),
        ),
        "features": (
            "Drift of the ranking features",
            f"all columns counted; charts of the {drawn_features} with the largest distance",
            drift_run(*tables.features, drawn=loudest[:drawn_features]),
        ),
        "scores": (
            "Drift of the scores",
            "all scores, scores by source, and the mix of sources",
            drift_run(*tables.scores),
        ),
        "ranking": (
            "Ranking quality over replayed hits",
            f"nDCG, MAP, MRR, hit rate, precision and recall to rank {k}",
            ranking_run(*tables.ranking, k=k),
        ),
        "beyond_accuracy": (
            "Diversity, novelty, popularity bias, coverage",
            "over the shown lists, compared with earlier events",
            beyond_accuracy_run(tables, k=k),
        ),
        "engagement": (
            "Replayed hit rate by source, slice and position",
            "share of the shown items that were taken within 24 h",
            engagement_run(*(engagement_frame(slates) for slates in tables.slates)),
        ),
    }


def drift_run(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    drawn: Sequence[str] | None = None,
    max_share: float = 0.5,
) -> Snapshot:
    """Count and test the drifted columns, and draw all varying columns or those in `drawn`.

    NUMBERS and CATEGORIES are the distances, which are effect sizes. Evidently tests that each
    drawn column has a distance below DRIFT_THRESHOLD, and that at most `max_share` of the varying
    columns drifted. Constant, growing and empty columns are left out (monitoring/columns.py).
    """
    usable = sort_columns(current, reference).varying
    if not usable:
        return Report([]).run(Dataset.from_pandas(current.filter(items=[])), None)
    numerical = [n for n in usable if pd.api.types.is_numeric_dtype(reference[n])]
    categorical = [n for n in usable if n not in numerical]
    definition = DataDefinition(numerical_columns=numerical, categorical_columns=categorical)
    metrics: list[Any] = [
        DriftedColumnsCount(
            num_method=NUMBERS,
            cat_method=CATEGORIES,
            num_threshold=DRIFT_THRESHOLD,
            cat_threshold=DRIFT_THRESHOLD,
            share_tests=[lte(max_share)],
        )
    ]
    for name in usable if drawn is None else [n for n in drawn if n in usable]:
        method = NUMBERS if name in numerical else CATEGORIES
        metrics.append(
            ValueDrift(
                column=name, method=method, threshold=DRIFT_THRESHOLD, tests=[lt(DRIFT_THRESHOLD)]
            )
        )
    return Report(metrics).run(
        Dataset.from_pandas(current.filter(items=usable), definition),
        Dataset.from_pandas(reference.filter(items=usable), definition),
    )


def test_results(name: str, snapshot: Snapshot) -> list[dict[str, str]]:
    """Return the results of Evidently's tests in a snapshot: {"report", "test", "status", "why"}.

    `status` is SUCCESS, FAIL or ERROR.
    """
    return [
        {
            "report": name,
            "test": str(test["name"]),
            "status": str(getattr(test["status"], "value", test["status"])),
            "why": str(test["description"]),
        }
        for test in snapshot.dict()["tests"]
    ]


def drifted_share(snapshot: Snapshot) -> float:
    """Return Evidently's share of drifted columns; NaN if no column varies."""
    for metric in snapshot.dict()["metrics"]:
        if metric["metric_name"].startswith("DriftedColumnsCount"):
            return float(metric["value"]["share"])
    return float("nan")


def ranking_run(current: pd.DataFrame, reference: pd.DataFrame, *, k: int) -> Snapshot:
    """Run the ranking metrics at each rank up to k, or up to the longest list if that is shorter.

    Requests without a taken item are left out, as in the evaluation of runs.
    """
    ranks = [int(frame["rank"].max()) for frame in (current, reference) if len(frame)]
    k = min(k, *ranks)
    metrics = [
        metric_class(k=k) for metric_class in (NDCG, MAP, MRR, HitRate, PrecisionTopK, RecallTopK)
    ]
    return run_metrics(metrics, _ranking(current), _ranking(reference))


def beyond_accuracy_run(tables: Tables, *, k: int) -> Snapshot:
    """Run diversity, novelty, personalization and popularity bias as Evidently defines them.

    Evidently's diversity is the sum over pairs divided by the list length, not the mean. It is left
    out if the catalogue has no categories.
    """
    features = category_columns(tables.shared.catalogue)
    metrics: list[Metric] = [Personalization(k=k)]
    if features:
        metrics.insert(0, Diversity(k=k, item_features=features))
    current, reference = (_ranking(frame, features) for frame in tables.shown)
    if tables.history.empty:  # without earlier events, items have no popularity
        return run_metrics(metrics, current, reference)
    # PopularityBiasMetric also reports coverage and Gini.
    metrics[-1:-1] = [Novelty(k=k), PopularityBiasMetric(k=k)]
    return run_metrics(metrics, current, reference, {"current_train_data": tables.history})


def run_metrics(
    metrics: Sequence[Metric],
    current: Dataset,
    reference: Dataset,
    additional: dict[str, Any] | None = None,
) -> Snapshot:
    """Run all metrics; if one fails on the data, leave it out and print its name and error.

    For example, Evidently can't draw novelty if all items have the same novelty.
    """
    try:
        return Report(list(metrics)).run(current, reference, additional_data=additional)
    except ValueError:
        kept = []
        for metric in metrics:
            try:
                Report([metric]).run(current, reference, additional_data=additional)
            except ValueError as error:
                print(f"monitor: left out Evidently's metric {type(metric).__name__}: {error}")
            else:
                kept.append(metric)
        return Report(kept).run(current, reference, additional_data=additional)


def _ranking(frame: pd.DataFrame, features: Sequence[str] = ()) -> Dataset:
    roles = Recsys(
        user_id="request_id",
        item_id="item_id",
        target="relevant",
        prediction="rank",
        recommendations_type="rank",
    )
    definition = DataDefinition(
        ranking=[roles],
        numerical_columns=["rank", "relevant", *features],
        categorical_columns=["request_id", "item_id"],
    )
    columns = ["request_id", "item_id", "rank", "relevant", *features]
    return Dataset.from_pandas(frame.filter(items=columns), definition)


def engagement_run(current: pd.DataFrame, reference: pd.DataFrame) -> Snapshot:
    labels = ["source", "slice", "place"]
    definition = DataDefinition(numerical_columns=[TAKEN], categorical_columns=labels)
    metrics: list[Metric] = [TakenShare(by=label) for label in labels]
    return Report(metrics).run(
        Dataset.from_pandas(current, definition), Dataset.from_pandas(reference, definition)
    )


def add_to_workspace(folder: Path, project: str, snapshots: dict[str, Snapshot]) -> None:
    """Add each snapshot as a run of `project` to a local workspace; create both if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    workspace = Workspace.create(str(folder))
    found = workspace.search_project(project)
    target = found[0] if found else workspace.create_project(project)
    for title, snapshot in snapshots.items():
        workspace.add_run(target.id, snapshot, name=title)
