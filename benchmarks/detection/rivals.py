"""Rivals of the board: drift tests with their usual thresholds, on the same windows.

- Evidently's default: half of the columns drift; a numeric column drifts at a Wasserstein distance
  of 0.1 standard deviations, a categorical one at a Jensen-Shannon distance of 0.1.
- Kolmogorov-Smirnov tests at 5% with Bonferroni's correction.
- Population stability index above 0.2 in any column, over the deciles of the reference.
- Page-Hinkley of the package river, with its default parameters, over the requests in turn; left
  out if river isn't installed.
"""

import copy
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp, wasserstein_distance

from benchmarks.detection.log import FEATURES, Log
from shortlist import columns as c

NUMERIC = (*(name for name in FEATURES if name != "age"), c.SCORE)
"""Without the age of items, which grows by nature."""
OF_REQUEST = ("milliseconds", "clicks", "age_hours")
ROWS = 5_000
RIVALS = ("evidently defaults", "ks bonferroni", "psi > 0.2", "page-hinkley (river)")


def columns_of(log: Log) -> dict[str, np.ndarray]:
    """Return what the drift tests see: columns of shown items, requests and event values."""
    counts = log.events[log.events[c.EVENT_TYPE] == "click"][c.REQUEST_ID].value_counts()
    clicks = counts.reindex(log.requests[c.REQUEST_ID]).fillna(0)
    values = log.events.groupby(c.EVENT_TYPE)[c.VALUE]
    out = {name: log.shown[name].to_numpy(float) for name in NUMERIC}
    out |= {
        "source": log.shown[c.SOURCE].to_numpy(str),
        "milliseconds": log.requests["milliseconds"].to_numpy(),
        "clicks": clicks.to_numpy(float),
        "age_hours": (log.requests["at"] - log.requests["user_as_of"]).to_numpy() / 3.6e9,
    }
    for name in ("purchase", "watch", "rating"):
        if name in values.groups:
            out[f"value of {name}"] = values.get_group(name).to_numpy(float)
    return out


class Rivals:
    """Rival detectors with the columns of the clean weeks before a fault."""

    def __init__(self, past: list[dict[str, np.ndarray]], *, seed: int):
        self.rng = np.random.default_rng([seed, 99])
        self.past = {
            name: np.concatenate([week[name] for week in past if name in week]) for name in past[0]
        }
        self.warm = self._warm_up()

    def drift(self, now: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the figures of drift that the board reads, as the Evidently report counts them."""
        distance = {
            name: _wasserstein(self._sample(self.past[name]), self._sample(now[name]))
            for name in NUMERIC
        }
        of_features = [distance[name] >= 0.1 for name in FEATURES if name in distance]
        return {
            "feature_drift_share": float(np.mean(of_features)),
            "score_drift": distance[c.SCORE],
        }

    def alarms(self, now: dict[str, np.ndarray]) -> dict[str, bool]:
        """Return whether each rival alarms for a window."""
        pairs = {
            name: (self._sample(self.past[name]), self._sample(now[name]))
            for name in self.past
            if len(now.get(name, ()))
        }
        numeric = {name: pair for name, pair in pairs.items() if name != "source"}
        drifted = [_wasserstein(*pair) >= 0.1 for pair in numeric.values()]
        drifted.append(_jensen_shannon(*pairs["source"]) >= 0.1)
        level = 0.05 / len(numeric)
        out = {
            "evidently defaults": bool(np.mean(drifted) >= 0.5),
            "ks bonferroni": any(ks_2samp(*pair).pvalue < level for pair in numeric.values()),
            "psi > 0.2": any(_psi(*pair) > 0.2 for pair in numeric.values()),
        }
        if self.warm is not None:
            out["page-hinkley (river)"] = self._page_hinkley(now)
        return out

    def _sample(self, values: np.ndarray) -> np.ndarray:
        if len(values) <= ROWS:
            return values
        return values[self.rng.choice(len(values), size=ROWS, replace=False)]

    def _warm_up(self) -> dict[str, Any] | None:
        try:
            from river.drift import PageHinkley  # pyright: ignore[reportMissingImports]
        except ImportError:
            return None
        warm = {}
        for name in OF_REQUEST:
            warm[name] = PageHinkley()
            for value in self.past[name].tolist():
                warm[name].update(value)
        return warm

    def _page_hinkley(self, now: dict[str, np.ndarray]) -> bool:
        for name, detector in copy.deepcopy(self.warm or {}).items():
            for value in now[name].tolist():
                detector.update(value)
                if detector.drift_detected:
                    return True
        return False


def _wasserstein(before: np.ndarray, now: np.ndarray) -> float:
    return float(wasserstein_distance(before, now) / max(before.std(), 1e-3))


def _jensen_shannon(before: np.ndarray, now: np.ndarray) -> float:
    names = np.union1d(before, now)
    shares = [
        pd.Series(v).value_counts(normalize=True).reindex(names).fillna(0) for v in (before, now)
    ]
    return float(jensenshannon(shares[0].to_numpy(), shares[1].to_numpy()))


def _psi(before: np.ndarray, now: np.ndarray) -> float:
    edges = np.unique(np.quantile(before, np.linspace(0, 1, 11)[1:-1]))
    a, b = (
        np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1) / len(values)
        for values in (before, now)
    )
    a, b = np.maximum(a, 1e-4), np.maximum(b, 1e-4)
    return float(((b - a) * np.log(b / a)).sum())
