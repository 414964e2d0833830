"""The registry of rankers: the config, fit function and load function of each type.

To add a ranker: write a file with a Config, a `fit_x` and a `load`, add the Config to the union
`RankerConfig`, and add one line to RANKERS. A neural ranker only needs a network
(`neural/ranker.py`). Blend and stack are not in RANKERS, because they are built from other rankers.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from models.ranking.blend import ABOUT, Blend, BlendConfig, fit_blend
from models.ranking.neural.fit import fit_neural
from models.ranking.neural.ranker import NETWORKS, NeuralRanker, NeuralRankerConfig
from models.ranking.protocol import Ranker, RankingData
from models.ranking.stack import Stack, StackConfig, fit_stack
from models.ranking.trees.lambdamart import Lambdamart, LambdamartConfig, fit_lambdamart
from models.ranking.value_heads import ValueHeads, ValueHeadsConfig, fit_value_heads
from models.training import TrainingOptions

AnyRankerConfig = (
    LambdamartConfig | NeuralRankerConfig | ValueHeadsConfig | BlendConfig | StackConfig
)
RankerConfig = Annotated[AnyRankerConfig, Field(discriminator="kind")]


@dataclass(frozen=True)
class Entry:
    """Config class, fit function and load function of a ranker type."""

    config: type[LambdamartConfig] | type[NeuralRankerConfig] | type[ValueHeadsConfig]
    fit: Callable[[Any, RankingData, RankingData, TrainingOptions], Ranker]
    load: Callable[[Path], Ranker]


RANKERS: dict[str, Entry] = {
    "lambdamart": Entry(LambdamartConfig, fit_lambdamart, Lambdamart.load),
    **{
        kind: Entry(entry.config, fit_neural, NeuralRanker.load) for kind, entry in NETWORKS.items()
    },
    "value": Entry(ValueHeadsConfig, fit_value_heads, ValueHeads.load),
}
KINDS = (*RANKERS, "blend", "stack")
"""All ranker types, in the order of their cost."""


def fit_ranker(
    config: AnyRankerConfig,
    train: RankingData,
    validation: RankingData,
    options: TrainingOptions,
    *,
    fitted: Mapping[str, Ranker] | None = None,
) -> Ranker:
    """Return a ranker fitted on `train`, with early stopping or tuning on `validation`.

    Args:
        fitted: fitted rankers by type, which blend and stack use as members. Missing members are
            fitted with their default config.

    Raises:
        RankingError: no request of `train` has both a relevant and an irrelevant candidate.
    """
    if not isinstance(config, BlendConfig | StackConfig):
        return RANKERS[config.kind].fit(config, train, validation, options)
    members = dict(fitted or {})
    for kind in config.members:
        if kind not in members:
            members[kind] = fit_ranker(RANKERS[kind].config(), train, validation, options)
    chosen = {kind: members[kind] for kind in config.members}
    if isinstance(config, BlendConfig):
        return fit_blend(chosen, validation)
    return fit_stack(config, chosen, train, validation, options)


def learns_from_shown(config: AnyRankerConfig) -> bool:
    """Return whether a ranker is trained on lists that were shown, if there are enough."""
    return not isinstance(config, BlendConfig | StackConfig) and config.labels != "candidates"


def load_ranker(kind: str, folder: Path) -> Ranker:
    """Return the ranker of type `kind` that was saved in `folder`.

    Raises:
        ValueError: unknown ranker type.
    """
    if kind == "blend":
        factors = json.loads((folder / ABOUT).read_text())["factors"]
        return Blend({name: load_ranker(name, folder / name) for name in factors}, factors)
    if kind == "stack":
        return Stack.load(folder)
    if kind not in RANKERS:
        raise ValueError(
            f"{folder}: ranker type '{kind}' is unknown, want one of {', '.join(KINDS)}"
        )
    return RANKERS[kind].load(folder)
