"""Recompute logged feature vectors and compare: pure functions over a log, a reader and packs.

Compared is every column that the log, the lake and the release decide alone: user, context,
profile, item and history features and their products. Left out are what the candidate sources said
and places within the shortlist, of which the log has only the items that were shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from models.ranking.features import ranking_features
from models.ranking.schema import MERGE_FEATURES, RankingSchema
from models.recommend.queries import build_queries
from shortlist.catalogue import Catalogue
from shortlist.feature_store import FeatureReader
from shortlist.features import CONTEXT_ON_DEMAND, RequestRows, time_features
from shortlist.pack import FeaturePack
from shortlist.profiles import ProfileEncoder

PLACES = ("popularity_place", "recent_popularity_place")
TOLERANCE = 1e-5
"""Relative difference that counts as a difference; below it only rounding is left."""


@dataclass(frozen=True)
class Logged:
    """One logged response, with what it says it was made of."""

    request_id: str
    user_id: str
    context_id: str
    at: int  # microseconds
    user_as_of: int  # time of the newest event in the user's state, 0 for none
    pack_as_of: int  # the pack's tick
    item_ids: Sequence[str]
    features: np.ndarray  # (C, F) float32


@dataclass
class Comparison:
    """Counts over all compared values."""

    requests: int = 0
    vectors: int = 0
    exact_vectors: int = 0
    compared: tuple[str, ...] = ()
    different: dict[str, int] = field(default_factory=dict)
    worst: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of each feature that differs: the largest difference, with both values and the request."""
    behind_seconds: list[float] = field(default_factory=list)
    """Of each request: how much older its user state was than the lake's at that moment."""
    unreachable: int = 0
    """Requests whose logged as_of is no state that the lake ever had; compared with the nearest."""

    def report(self) -> dict[str, Any]:
        behind = np.array(self.behind_seconds or [0.0])
        stale = int((behind > 0).sum())
        order = sorted(self.different, key=lambda name: -self.different[name])
        return {
            "requests": self.requests,
            "vectors": self.vectors,
            "exact_share": self.exact_vectors / max(self.vectors, 1),
            "compared": len(self.compared),
            "different_share": {name: self.different[name] / self.vectors for name in order},
            "worst": {name: self.worst[name] for name in order},
            "staleness": {
                "requests": stale,
                "share": stale / max(self.requests, 1),
                "p50_seconds": float(np.median(behind[behind > 0])) if stale else 0.0,
                "max_seconds": float(behind.max()),
                "unreachable": self.unreachable,
            },
        }


def comparable(schema: RankingSchema) -> list[int]:
    """Positions of the columns that can be recomputed."""
    left_out = {*PLACES, *MERGE_FEATURES}
    return [i for i, name in enumerate(schema.names) if name not in left_out and ":" not in name]


def compare(
    logged: Sequence[Logged],
    *,
    schema: RankingSchema,
    catalogue: Catalogue,
    profiles: ProfileEncoder,
    reader: FeatureReader,
    packs: Mapping[int, FeaturePack],
    found: Comparison | None = None,
) -> Comparison:
    """Compare responses of one release with what `reader` and `packs` (by tick) say offline.

    Args:
        reader: point-in-time states out of the lake.
        found: counts to add to.
    """
    found = found or Comparison()
    columns = comparable(schema)
    names = [schema.names[i] for i in columns]
    found.compared = tuple(names)
    rows, behind, unreachable = states_as_logged(logged, reader)
    found.behind_seconds += behind
    found.unreachable += unreachable
    aligned = {tick: packs[tick].align(catalogue.vocab) for tick in {r.pack_as_of for r in logged}}
    for i, response in enumerate(logged):
        one = build_queries(rows.take(np.array([i])), catalogue=catalogue, profiles=profiles)
        vectors = ranking_features(
            one,
            aligned[response.pack_as_of],
            catalogue=catalogue,
            candidates=catalogue.vocab.encode(response.item_ids)[None],
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
        by = float(apart[row, column])
        if by >= found.worst.get(name, {"by": -1.0})["by"]:
            found.worst[name] = {
                "by": by,
                "served": float(served[row, column]),
                "recomputed": float(vectors[row, column]),
                "request_id": request_id,
            }


def states_as_logged(
    logged: Sequence[Logged], reader: FeatureReader
) -> tuple[RequestRows, list[float], int]:
    """The lake's states at each logged user as_of, contexts as of the pack's tick.

    Returns:
        Rows stamped with the logged request times, seconds that each user state was behind the
        lake, and how many logged as_of the lake never had.
    """
    users = [response.user_id for response in logged]
    contexts = [response.context_id for response in logged]
    at = np.array([response.at for response in logged], dtype=np.int64)
    as_of = np.array([response.user_as_of for response in logged], dtype=np.int64)
    tick = np.array([response.pack_as_of for response in logged], dtype=np.int64)
    newest = reader.read(users, contexts, at)
    # Whom the service did not know at all, it has missed since his first event.
    since = np.where(as_of > 0, as_of, newest.user_since)
    behind = np.where(newest.user_as_of > as_of, np.maximum(newest.user_as_of - since, 1), 0)
    # A state is stamped a microsecond after its newest event, unless that one came late.
    then = np.where(behind > 0, as_of + 1, at)
    rows = reader.read(users, contexts, then)
    rows = replace(
        rows,
        at=at,
        context=reader.read(users, contexts, tick).context
        | {name: time_features(at)[name] for name in CONTEXT_ON_DEMAND},
    )
    unreachable = int((rows.user_as_of != as_of).sum())
    return rows, (behind / 1e6).tolist(), unreachable
