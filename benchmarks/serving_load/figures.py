"""Figures of a load: percentiles of its latency, and of the stages of its requests."""

import re
import sys
from typing import Any

import httpx
import numpy as np


def latency(answers: dict[str, Any]) -> dict[str, Any]:
    """Return percentiles of the latency in milliseconds, and shares of errors and degraded answers.

    An answer is degraded if a stage was skipped.

    Args:
        answers: result of `send`.
    """
    values = np.array(answers["latencies"]) * 1e3
    number = len(values)
    for error in sorted(set(answers["errors"]))[:3]:
        print(f"error: {error}", file=sys.stderr)
    return {
        "requests": number,
        **{f"p{p}_ms": round(float(np.percentile(values, p)), 2) for p in (50, 95, 99)},
        "max_ms": round(float(values.max()), 2),
        "errors": len(answers["errors"]) / number,
        "degraded": answers["degraded"] / number,
    }


def stages(url: str, *, since: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return figures of the time of each stage, from the service's Prometheus metrics.

    Args:
        since: result of an earlier call without `since`.

    Returns:
        Without `since`: {stage: {upper limit of a bucket in seconds: cumulative count}}. With
        `since`: {stage: percentiles in milliseconds}, of the requests after the earlier call.
    """
    text = httpx.get(f"{url}/metrics").text
    found: dict[str, dict[float, float]] = {}
    pattern = r'shortlist_stage_seconds_bucket\{(?=.*stage="([^"]+)")(?=.*le="([^"]+)").*\} (\S+)'
    for stage, limit, count in re.findall(pattern, text):
        found.setdefault(stage, {})[float(limit)] = float(count)
    if since is None:
        return found
    result = {}
    for stage, buckets in found.items():
        limits = np.array(sorted(buckets))
        counts = np.array([buckets[limit] for limit in limits])
        counts -= [since.get(stage, {}).get(limit, 0.0) for limit in limits]
        if counts[-1]:
            result[stage] = {
                f"p{p}_ms": round(_quantile(limits, counts, p / 100) * 1e3, 2) for p in (50, 99)
            }
    return result


def _quantile(limits: np.ndarray, counts: np.ndarray, share: float) -> float:
    """Return a quantile from cumulative bucket counts, as Prometheus estimates it.

    Values are assumed to be evenly distributed inside a bucket.

    Args:
        limits: upper limits of the buckets, ascending.
        counts: number of values up to each limit.
        share: the quantile, 0 to 1.
    """
    wanted = share * counts[-1]
    place = int(np.searchsorted(counts, wanted))
    if not np.isfinite(limits[place]):
        return float(limits[place - 1])
    low = 0.0 if place == 0 else limits[place - 1]
    below = 0.0 if place == 0 else counts[place - 1]
    inside = counts[place] - below
    return float(low + (limits[place] - low) * (wanted - below) / max(inside, 1e-9))
