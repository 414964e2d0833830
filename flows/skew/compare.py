"""Recomputes logged feature vectors and compares them with the served ones.

A feature vector is the ranker's input for one shown item. Only columns that can be recomputed from
the log, the lake and the release are compared: user, context, profile, item and history features
and their products. Scores and ranks of sources and ranks within the shortlist are left out, because
the log has only the shown items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from flows.skew.states import Lag, Logged, pack_lag, states_as_logged
from models.ranking.features.compute import ranking_features
from models.ranking.features.sources import MERGE
from models.ranking.schema import RankingSchema
from models.recommend.queries import build_queries
from shortlist.feature_store import FeatureReader
from shortlist.feature_store.packs import tick_of
from shortlist.features.pack import FeaturePack
from shortlist.features.profiles import ProfileEncoder
from shortlist.items.catalogue import Catalogue

PLACES = ("popularity_place", "recent_popularity_place")
TOLERANCE = 1e-5
"""Relative difference above which two values count as different; smaller ones are rounding."""


@dataclass
class Comparison:
    """Differences between served and recomputed features, and the lag of each feature view."""

    requests: int = 0
    vectors: int = 0
    exact_vectors: int = 0
    compared: tuple[str, ...] = ()
    different: dict[str, int] = field(default_factory=dict)
    worst: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Feature -> its largest difference, with both values and the request."""
    lags: dict[str, Lag] = field(default_factory=dict)
    """View -> how far its served states were behind the lake."""

    def report(self, *, days_allowed: float) -> dict[str, Any]:
        order = sorted(self.different, key=lambda name: -self.different[name])
        return {
            "requests": self.requests,
            "vectors": self.vectors,
            "exact_share": self.exact_vectors / max(self.vectors, 1),
            "compared": len(self.compared),
            "different_share": {name: self.different[name] / self.vectors for name in order},
            "worst": {name: self.worst[name] for name in order},
            "staleness": {
                view: lag.report(days_allowed=days_allowed) for view, lag in self.lags.items()
            },
        }


def merged(found: Sequence[Comparison]) -> Comparison:
    """Combine the comparisons of several releases into one."""
    total = Comparison()
    for part in found:
        total.requests += part.requests
        total.vectors += part.vectors
        total.exact_vectors += part.exact_vectors
        total.compared = tuple(dict.fromkeys((*total.compared, *part.compared)))
        for name, count in part.different.items():
            total.different[name] = total.different.get(name, 0) + count
            if part.worst[name]["by"] >= total.worst.get(name, {"by": -1.0})["by"]:
                total.worst[name] = part.worst[name]
        for view, lag in part.lags.items():
            before = total.lags.get(view)
            total.lags[view] = lag if before is None else before.followed_by(lag)
    return total


def comparable(schema: RankingSchema) -> list[int]:
    """Return the positions of the schema's columns that can be recomputed."""
    left_out = {*PLACES, *MERGE}
    return [i for i, name in enumerate(schema.names) if name not in left_out and ":" not in name]


def compare(
    logged: Sequence[Logged],
    *,
    schema: RankingSchema,
    catalogue: Catalogue,
    profiles: ProfileEncoder,
    reader: FeatureReader,
    snapshots: Path,
    packs: Mapping[int, FeaturePack],
    published: Mapping[str, pa.Table] | None = None,
    events: Sequence[Path] = (),
) -> Comparison:
    """Compare responses of one release with feature vectors recomputed from the lake.

    Args:
        logged: the responses.
        schema, catalogue, profiles: parts of the release.
        reader: reads the recomputed states as of any time.
        snapshots: folder of those states.
        packs: tick in microseconds -> item features recomputed as of it.
        published: {pack_id of published item features: the catalogue rows served with them}. For
            other ids `catalogue` is used.
        events: Parquet files of the events from which the states were built.
    """
    found = Comparison()
    columns = comparable(schema)
    names = [schema.names[i] for i in columns]
    found.compared = tuple(names)
    tick = tick_of(snapshots)
    rows, lags = states_as_logged(logged, reader, snapshots=snapshots, tick=tick, events=events)
    found.lags = lags | {"item_state": pack_lag(logged, tick=tick)}
    live = {name: catalogue.with_current(items) for name, items in (published or {}).items()}
    aligned = {
        (r.pack_as_of, r.pack_id): packs[r.pack_as_of].align(live.get(r.pack_id, catalogue).vocab)
        for r in {(r.pack_as_of, r.pack_id): r for r in logged}.values()
    }
    for i, response in enumerate(logged):
        served_from = live.get(response.pack_id, catalogue)
        query = build_queries(rows.take(np.array([i])), catalogue=served_from, profiles=profiles)
        vectors = ranking_features(
            query,
            aligned[response.pack_as_of, response.pack_id],
            catalogue=served_from,
            candidates=served_from.vocab.encode(response.item_ids)[None],
            source_scores={},
            source_ranks={},
            schema=schema,
        )[0][:, columns]
        served = response.features[:, columns]
        found.requests += 1
        found.vectors += len(served)
        found.exact_vectors += int((vectors == served).all(axis=1).sum())
        _note(found, names, served, vectors, response.request_id)
    return found


def _note(
    found: Comparison, names: list[str], served: np.ndarray, vectors: np.ndarray, request_id: str
) -> None:
    scale = np.maximum(np.maximum(np.abs(served), np.abs(vectors)), 1e-3)
    apart = np.abs(served.astype(np.float64) - vectors)
    relative = np.where(np.isfinite(apart), apart / scale, np.inf)
    for column in np.flatnonzero((relative > TOLERANCE).any(axis=0)):
        name, row = names[column], int(relative[:, column].argmax())
        found.different[name] = found.different.get(name, 0) + int(
            (relative[:, column] > TOLERANCE).sum()
        )
        by = float(np.nan_to_num(apart[row, column], nan=np.inf, posinf=np.inf))
        if by >= found.worst.get(name, {"by": -1.0})["by"]:
            found.worst[name] = {
                "by": by,
                "served": float(served[row, column]),
                "recomputed": float(vectors[row, column]),
                "request_id": request_id,
            }
