"""Search spaces of hyperparameters, and the conversion between a config and Optuna's parameters."""

import copy
from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import ValidationError

from shortlist.config import Config

SOURCE_SPACE: dict[str, BaseDistribution] = {
    "embedding_dim": CategoricalDistribution((32, 64, 128)),
    "max_history": CategoricalDistribution((20, 50, 100, 200)),
    "dropout": FloatDistribution(0.0, 0.6),
    "batch_size": CategoricalDistribution((8, 16, 32, 64, 128, 256)),
    "num_blocks": IntDistribution(1, 3),
    "temperature": FloatDistribution(0.03, 0.3, log=True),
    "num_negatives": CategoricalDistribution((128, 512, 1024)),
    "optimiser.learning_rate": FloatDistribution(5e-4, 2e-2, log=True),
    "optimiser.weight_decay": CategoricalDistribution((0.0, 0.01, 0.1)),
    "optimiser.schedule": CategoricalDistribution(("constant", "cosine")),
    "optimiser.average_decay": CategoricalDistribution((0.0, 0.95, 0.98, 0.99)),
}
"""Key of a source's config -> values to try. Keys that a config lacks are left out."""
RANKER_SPACE: dict[str, BaseDistribution] = {
    "num_leaves": IntDistribution(4, 63, log=True),
    "learning_rate": FloatDistribution(0.02, 0.2, log=True),
    "min_data_in_leaf": CategoricalDistribution((None, 20, 100, 500, 2000)),
    "feature_fraction": FloatDistribution(0.1, 1.0),
    "bagging_fraction": FloatDistribution(0.5, 1.0),
    "lambda_l2": FloatDistribution(0.1, 100.0, log=True),
    "embedding_dim": CategoricalDistribution((8, 16, 32)),
    "dropout": FloatDistribution(0.0, 0.5),
    "loss": CategoricalDistribution(("listwise", "pointwise")),
    "num_candidates": CategoricalDistribution((50, 100, 200)),
    "optimiser.learning_rate": FloatDistribution(2e-4, 5e-3, log=True),
    "optimiser.weight_decay": CategoricalDistribution((0.0, 0.01, 0.1)),
}
"""The same for rankers."""


def space_of(config: Config, space: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    """Return the part of a space that a config has, extended by the config's own values.

    A key whose value 0 switches something off is left out, because its space is logarithmic.
    """
    values = flat(config)
    own = {
        key: _with(space[key], values[key])
        for key in space
        if key in values and not (getattr(space[key], "log", False) and values[key] == 0)
    }
    return {key: _accepted(config, key, distribution) for key, distribution in own.items()}


def current(config: Config, space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Return the values that the config has now, as parameters of a trial."""
    values = flat(config)
    return {key: values[key] for key in space}


def changed(config: Config, parameters: Mapping[str, Any]) -> Config:
    """Return the config with other values."""
    return type(config).model_validate(with_values(config.model_dump(mode="json"), parameters))


def with_values(content: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a nested dict with other values; dots in the keys of `values` separate levels."""
    out = copy.deepcopy(content)
    for key, value in values.items():
        *path, last = key.split(".")
        part = out
        for name in path:
            part = part.setdefault(name, {})
        part[last] = value
    return out


def flat(config: Config) -> dict[str, Any]:
    """Return {key: value} of a config; keys of nested configs are joined by dots."""
    out: dict[str, Any] = {}

    def add(content: Mapping[str, Any], before: str) -> None:
        for name, value in content.items():
            if isinstance(value, Mapping):
                add(value, f"{before}{name}.")
            else:
                out[before + name] = value

    add(config.model_dump(mode="json"), "")
    return out


def _accepted(config: Config, key: str, distribution: BaseDistribution) -> BaseDistribution:
    """Return the distribution without choices that the config refuses."""
    if not isinstance(distribution, CategoricalDistribution):
        return distribution
    kept = []
    for choice in distribution.choices:
        try:
            changed(config, {key: choice})
        except ValidationError:
            continue
        kept.append(choice)
    return CategoricalDistribution(kept)


def _with(distribution: BaseDistribution, value: Any) -> BaseDistribution:
    """Return the distribution, extended so that it contains `value`."""
    if isinstance(distribution, CategoricalDistribution):
        choices = distribution.choices
        return distribution if value in choices else CategoricalDistribution((*choices, value))
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = min(distribution.low, value), max(distribution.high, value)
    return type(distribution)(low, high, log=distribution.log)  # pyright: ignore[reportArgumentType]
