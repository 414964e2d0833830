"""Means and intervals of the figures of `shortlist bench content`, over users and seeds."""

from typing import Any

import numpy as np

from shortlist.metrics import bootstrap_mean, paired_difference


class Figures:
    """Per-user figures of all variants and seeds."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, list[tuple[list[str], np.ndarray]]]] = {}
        self.validation: dict[str, list[float]] = {}
        self.seconds: dict[str, list[float]] = {}

    def add(self, variant: str, users: list[str], found: dict[str, np.ndarray]) -> None:
        by_metric = self.values.setdefault(variant, {})
        for metric, values in found.items():
            by_metric.setdefault(metric, []).append((users, values))

    def per_user(self, variant: str, metric: str) -> tuple[list[str], np.ndarray]:
        """Return a mean for each user of any seed: over the requests of a seed, then over seeds."""
        sums: dict[str, list[float]] = {}
        for users, values in self.values[variant][metric]:
            own: dict[str, list[float]] = {}
            for user, value in zip(users, values, strict=True):
                if not np.isnan(value):
                    own.setdefault(user, []).append(float(value))
            for user, each in own.items():
                sums.setdefault(user, []).append(float(np.mean(each)))
        names = sorted(sums)
        return names, np.array([np.mean(sums[name]) for name in names])

    def summary(self, *, reference: str) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for variant, metrics in self.values.items():
            row: dict[str, Any] = {}
            for metric, seeds in metrics.items():
                users, values = self.per_user(variant, metric)
                if not users:
                    continue
                each = [float(np.nanmean(found)) for _, found in seeds]
                row[metric] = _rounded(bootstrap_mean(users, values, rng=_rng())) | {
                    "std_of_seeds": round(float(np.std(each)), 4)
                }
                others, base = self.per_user(reference, metric)
                if variant != reference and others == users:
                    row[f"{metric} above '{reference}'"] = _rounded(
                        paired_difference(users, values, base, rng=_rng())
                    )
            if variant in self.validation:
                row["validation_ndcg@10"] = round(float(np.mean(self.validation[variant])), 4)
                row["seconds"] = round(float(np.mean(self.seconds[variant])), 1)
            out[variant] = row
        return out


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _rounded(found: Any) -> dict[str, float]:
    return {name: round(float(found[name]), 4) for name in ("mean", "low", "high")}
