"""The rankers by kind: one union of configs, one function that fits, one that loads."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from models.ranking.blend import ABOUT, Blend, BlendConfig, fit_blend
from models.ranking.deepfm import Deepfm, DeepfmConfig, fit_deepfm
from models.ranking.gbdt import Lambdamart, LambdamartConfig, fit_lambdamart
from models.ranking.protocol import Ranker, RankingData
from models.training import TrainingOptions

RankerConfig = Annotated[LambdamartConfig | DeepfmConfig | BlendConfig, Field(discriminator="kind")]
MEMBERS = {"lambdamart": LambdamartConfig, "deepfm": DeepfmConfig}
KINDS = (*MEMBERS, "blend")


def fit_ranker(
    config: LambdamartConfig | DeepfmConfig | BlendConfig,
    train: RankingData,
    validation: RankingData,
    options: TrainingOptions,
    *,
    fitted: Mapping[str, Ranker] | None = None,
) -> Ranker:
    """Fit one ranker.

    Args:
        fitted: rankers that are already there, by kind; a blend takes its members from them and
            fits with the default config those it misses.

    Raises:
        RankingError: no request of `train` teaches an order.
    """
    if isinstance(config, LambdamartConfig):
        return fit_lambdamart(config, train, validation, options)
    if isinstance(config, DeepfmConfig):
        return fit_deepfm(config, train, validation, options)
    members = dict(fitted or {})
    for kind in config.members:
        if kind not in members:
            members[kind] = fit_ranker(MEMBERS[kind](), train, validation, options)
    return fit_blend({kind: members[kind] for kind in config.members}, validation)


def load_ranker(kind: str, folder: Path) -> Ranker:
    """Load what a ranker of this kind saved into `folder`.

    Raises:
        ValueError: there is no such kind.
    """
    if kind == "lambdamart":
        return Lambdamart.load(folder)
    if kind == "deepfm":
        return Deepfm.load(folder)
    if kind == "blend":
        factors = json.loads((folder / ABOUT).read_text())["factors"]
        members = {name: load_ranker(name, folder / name) for name in factors}
        return Blend(members, factors)
    raise ValueError(f"{folder}: ranker kind '{kind}' is unknown, want one of {', '.join(KINDS)}")
