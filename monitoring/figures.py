"""Figures that guardrails are applied to: pure functions of slates (shown lists) and frames.

Each figure is computed with the same function for two windows: `current` is the monitored traffic,
and `reference` the lists that the release made for the test window. A user takes an item by a
target event, such as a click or a purchase. Quality figures are called *replayed*: in a replay the
users didn't see our lists, so a hit is a listed item that they took anyway.

Shapes: B requests, K positions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from monitoring.frames import slice_names
from monitoring.windows import SharedData, Slates
from shortlist.metrics import (
    RANKING_METRICS,
    bootstrap_mean,
    coverage,
    gini,
    intra_list_diversity,
    novelty,
    popularity_bias,
)

DRIFT_THRESHOLD = 0.1
"""Distance from which a column counts as drifted; Evidently's default.

It means a tenth of a standard deviation (Wasserstein), or 0.1 on the scale of Jensen-Shannon, where
disjoint categories have about 0.83.
"""
EQUAL_DRAWS = 20
"""Number of random subsets that `at_equal_size` averages over."""
SLICES = ("new", "light", "regular")


@dataclass(frozen=True)
class Figure:
    """Value of one figure in both windows; NaN if a window has no data for it."""

    current: float
    reference: float = float("nan")
    low: float = float("nan")  # 95% bootstrap interval of `current`, over users
    high: float = float("nan")


def all_figures(
    current: Slates, reference: Slates, shared: SharedData, *, rng: np.random.Generator
) -> dict[str, Figure]:
    """Compute all figures that need slates only; see also `drift_figures` and `latency_figures`."""
    return (
        quality_figures(current, reference, shared, rng=rng)
        | beyond_accuracy_figures(current, reference, shared, rng=rng)
        | source_figures(current, reference)
        | health_figures(current, reference, num_items=shared.catalogue.num_items)
        | {"embedding_drift": Figure(embedding_drift(current, reference, shared))}
    )


def embedding_drift(current: Slates, reference: Slates, shared: SharedData) -> float:
    """Return 1 - the cosine of the mean category vectors of the shown items of both windows."""
    units = shared.catalogue.category_units
    means = [units[s.item_idx[s.item_idx > 0]].mean(0) for s in (current, reference)]
    lengths = float(np.prod([np.linalg.norm(mean) for mean in means]))
    return 1 - float(means[0] @ means[1]) / lengths if lengths > 0 else float("nan")


def quality_figures(
    current: Slates, reference: Slates, shared: SharedData, *, rng: np.random.Generator
) -> dict[str, Figure]:
    """Return nDCG, recall, precision, MRR and replayed hit rate at k, hit rate by slice, and
    satisfaction.

    `satisfaction` is the mean value of ratings, reviews and surveys of items in the lists.
    """
    k = shared.k
    figures = {
        f"{name}@{k}": _pair(
            lambda slates, metric=metric: metric(slates.item_idx, slates.relevant, k=k),
            current,
            reference,
            rng,
        )
        for name, metric in RANKING_METRICS.items()
    }
    figures[f"replayed_hit_rate@{k}"] = _pair(replayed_hits, current, reference, rng)
    for name in SLICES:
        figures[f"replayed_hit_rate@{k}/{name}_users"] = _pair(
            lambda slates, name=name: np.where(
                slice_names(slates.history_length) == name, replayed_hits(slates), np.nan
            ),
            current,
            reference,
            rng,
        )
    figures[f"replayed_hit_rate_same_mix@{k}"] = same_mix(current, reference)
    figures["satisfaction"] = _pair(satisfaction, current, reference, rng)
    return figures


def replayed_hits(slates: Slates) -> np.ndarray:
    """Return (B,) 1 if the user took a shown item within 24 h, else 0.

    NaN if the user took no item at all.
    """
    taken = np.array([len(wanted) > 0 for wanted in slates.relevant])
    return np.where(taken, slates.hit.any(1), np.nan)


def same_mix(current: Slates, reference: Slates) -> Figure:
    """Return the replayed hit rate over requests, with the same mix of slices in both windows.

    Slices are new, light and regular users; both windows get the shares of the current one. The hit
    rate is much higher for new users than for regular ones. Equal weights (direct standardisation)
    keep a changed mix of users from looking like a change in quality.
    """
    rate: dict[str, Figure] = {}
    weight: dict[str, int] = {}
    for name in SLICES:
        now, before = (
            replayed_hits(s)[slice_names(s.history_length) == name] for s in (current, reference)
        )
        now, before = now[~np.isnan(now)], before[~np.isnan(before)]
        if len(now) and len(before):
            rate[name], weight[name] = Figure(now.mean(), before.mean()), len(now)
    if not rate:
        return Figure(float("nan"))
    weights = np.array(list(weight.values())) / sum(weight.values())
    return Figure(
        float(weights @ [figure.current for figure in rate.values()]),
        float(weights @ [figure.reference for figure in rate.values()]),
    )


def satisfaction(slates: Slates) -> np.ndarray:
    """Return (B,) mean grade (1 to 5) that the user gave shown items within 24 h; NaN if none."""
    graded = ~np.isnan(slates.grade)
    count = graded.sum(1)
    total = np.where(graded, slates.grade, 0).sum(1)
    return np.divide(total, count, out=np.full(len(slates), np.nan), where=count > 0)


def beyond_accuracy_figures(
    current: Slates, reference: Slates, shared: SharedData, *, rng: np.random.Generator
) -> dict[str, Figure]:
    """Return diversity, novelty and popularity bias per list; coverage and Gini over all lists."""
    k, counts = shared.k, shared.item_counts
    vectors, num_items = shared.catalogue.category_matrix, shared.catalogue.num_items
    per_list: dict[str, Callable[[Slates], np.ndarray]] = {
        f"diversity@{k}": lambda slates: intra_list_diversity(slates.item_idx, vectors),
        f"novelty@{k}": lambda slates: novelty(slates.item_idx, counts),
        f"popularity_bias@{k}": lambda slates: popularity_bias(slates.item_idx, counts),
    }
    size = min(len(current), len(reference))
    overall: dict[str, Callable[[np.ndarray], float]] = {
        f"coverage@{k}": lambda lists: coverage(lists, num_items=num_items),
        f"exposure_gini@{k}": lambda lists: gini(lists, num_items=num_items),
    }
    return {name: _pair(values, current, reference, rng) for name, values in per_list.items()} | {
        name: Figure(
            at_equal_size(measure, current.item_idx, size=size, rng=rng),
            at_equal_size(measure, reference.item_idx, size=size, rng=rng),
        )
        for name, measure in overall.items()
    }


def at_equal_size(
    measure: Callable[[np.ndarray], float],
    lists: np.ndarray,
    *,
    size: int,
    rng: np.random.Generator,
) -> float:
    """Return the mean of `measure` over random subsets of `size` lists.

    Coverage and Gini depend on the number of lists, so both windows are measured at the same size.
    """
    if len(lists) == size:
        return float(measure(lists))
    draws = [
        measure(lists[rng.choice(len(lists), size=size, replace=False)]) for _ in range(EQUAL_DRAWS)
    ]
    return float(np.mean(draws))


def source_figures(current: Slates, reference: Slates) -> dict[str, Figure]:
    """Return each source's share of the shown items, and the replayed hit rate of those items."""
    names = sorted(set(np.unique(current.source)) | set(np.unique(reference.source)) - {""})
    figures = {}
    for name in (name for name in names if name):
        figures[f"shown_share/{name}"] = Figure(
            *(
                float((s.source == name).sum() / (s.item_idx > 0).sum())
                for s in (current, reference)
            )
        )
        figures[f"replayed_hit_share/{name}"] = Figure(
            *(_share(s.hit[s.source == name]) for s in (current, reference))
        )
    return figures


def health_figures(current: Slates, reference: Slates, *, num_items: int) -> dict[str, Figure]:
    """Return the number of requests and users, and three rates over the requests.

    The rates are: requests of unknown users, with a skipped stage, and with a short list. A list is
    short if it has fewer than min(k, num_items) items.
    """
    both = (current, reference)
    short = [(s.item_idx[:, :num_items] == 0).any(1).mean() for s in both]
    return {
        "requests": Figure(*(float(len(s)) for s in both)),
        "users": Figure(*(float(len(set(s.user_ids))) for s in both)),
        "unknown_user_rate": Figure(*(float((~s.known).mean()) for s in both)),
        "skipped_stage_rate": Figure(*(float(s.skipped.mean()) for s in both)),
        "short_list_rate": Figure(*map(float, short)),
    }


def latency_figures(latency_ms: np.ndarray | None) -> dict[str, Figure]:
    """Return the percentiles of the latency; empty without data.

    Args:
        latency_ms: milliseconds per request, measured by the client that sent the requests.
    """
    if latency_ms is None or len(latency_ms) == 0:
        return {}
    return {f"latency_p{p}_ms": Figure(float(np.percentile(latency_ms, p))) for p in (50, 95, 99)}


def column_drifts(current: pd.DataFrame, reference: pd.DataFrame) -> dict[str, float]:
    """Return the distance of each column between two frames.

    `wasserstein` for numbers, `jensen_shannon` for other columns; NaN if one frame has no value.

    Raises:
        KeyError: `current` lacks a column of `reference`.
    """
    drifts = {}
    for name in reference.columns:
        now, before = current[name].dropna(), reference[name].dropna()
        if len(now) == 0 or len(before) == 0:
            drifts[name] = float("nan")
        elif pd.api.types.is_numeric_dtype(reference[name]):
            drifts[name] = wasserstein(now.to_numpy(), before.to_numpy())
        else:
            drifts[name] = jensen_shannon(now.to_numpy(), before.to_numpy())
    return drifts


def wasserstein(current: np.ndarray, reference: np.ndarray) -> float:
    """Compute the first Wasserstein distance in standard deviations of the reference, as Evidently
    does.
    """
    now, before = np.sort(current.astype(float)), np.sort(reference.astype(float))
    points = np.sort(np.concatenate([now, before]))
    width = np.diff(points)
    below_now = np.searchsorted(now, points[:-1], side="right") / len(now)
    below_before = np.searchsorted(before, points[:-1], side="right") / len(before)
    return float(np.abs(below_now - below_before) @ width / max(before.std(), 0.001))


def jensen_shannon(current: np.ndarray, reference: np.ndarray) -> float:
    """Compute the Jensen-Shannon distance (natural logarithm) between the category shares."""
    names = np.union1d(current.astype(str), reference.astype(str))
    p, q = (
        np.array([(side == name).mean() for name in names])
        for side in (current.astype(str), reference.astype(str))
    )
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [np.where(side > 0, side * np.log(side / middle), 0).sum() for side in (p, q)]
    return float(np.sqrt(max(sum(terms) / 2, 0)))


def drifted_share(drifts: Mapping[str, float]) -> float:
    """Return the share of columns with a distance of at least DRIFT_THRESHOLD; NaN distances are
    left out.
    """
    known = np.array([value for value in drifts.values() if not np.isnan(value)])
    return float((known >= DRIFT_THRESHOLD).mean()) if len(known) else float("nan")


def drift_figures(
    drifts: dict[str, dict[str, float]], varying: Mapping[str, Sequence[str]]
) -> dict[str, Figure]:
    """Return the drift figures: share of drifted columns by group, and drift of the scores.

    Args:
        drifts: group -> column -> distance between the windows.
        varying: group -> columns that vary and don't grow by nature; the others don't count.
    """

    def share(group: str) -> Figure:
        return Figure(drifted_share({name: drifts[group][name] for name in varying[group]}))

    figures = {
        "event_drift_share": share("events"),
        "request_drift_share": share("requests"),
        "feature_drift_share": share("features"),
        "score_drift": Figure(drifts["scores"]["score"]),
        "source_mix_drift": Figure(drifts["scores"]["source"]),
    }
    return figures | {
        name.replace("score: ", "score_drift/"): Figure(value)
        for name, value in drifts["scores"].items()
        if name.startswith("score: ")
    }


def _pair(
    values: Callable[[Slates], np.ndarray],
    current: Slates,
    reference: Slates,
    rng: np.random.Generator,
) -> Figure:
    """Compute a figure for both windows: the mean per user, then over users.

    Only the current window gets an interval.

    Args:
        values: returns the (B,) values of the requests of a window.
    """
    now = bootstrap_mean(current.user_ids, values(current), rng=rng, draws=300)
    before = bootstrap_mean(reference.user_ids, values(reference), rng=rng, draws=1)
    return Figure(now["mean"], before["mean"], now["low"], now["high"])


def _share(flags: np.ndarray) -> float:
    return float(flags.mean()) if flags.size else float("nan")
