"""Fit a chain's sources again on more data, with everything that validation chose frozen.

The ranker learns from sources that were fitted on the first window only. The test window judges the
same recipe fitted on everything before it, and the release contains the recipe fitted to the end of
the run's data.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from flows.assemble import World
from flows.configuration import RunConfig
from flows.train_sources import Job, in_order
from models import registry
from models.data import TrainingData, Validation

EXPLAINING = ("item_knn", "content", "two_tower")
"""Sources that `/similar` and reasons read, so a release has them even if its chain does not."""
NOT_LEARNED = {"parallel", "threads", "device"}
"""Keys of [train] that say how to compute, not what."""


def recipe_of(
    config: RunConfig, about: dict[str, Any], *, frozen: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Configuration, composition and choices: all that is needed to fit the same on other data.

    `hash` tells recipes apart; the frozen choices depend on the data too and aren't part of it.
    """
    composition = {
        "train": config.train.model_dump(mode="json", exclude=NOT_LEARNED),
        "chain": about["chain"],
        "ranker": about["ranker"],
    }
    text = json.dumps(composition, sort_keys=True)
    return {
        "hash": hashlib.sha256(text.encode()).hexdigest()[:16],
        **composition,
        "frozen": frozen,
    }


def chosen_sources(recipe: dict[str, Any]) -> list[str]:
    """Kinds that the chain uses, and EXPLAINING if the run has them; in the order of the run."""
    chain = recipe["chain"]
    used = {*chain["candidate_sources"], *chain["score_sources"], *EXPLAINING}
    return [source["kind"] for source in recipe["train"]["sources"] if source["kind"] in used]


def refit_jobs(
    recipe: dict[str, Any], data: TrainingData, validation: Validation, folder: Path
) -> list[Job]:
    """A recipe's chosen sources on `data`, to be saved in `folder`."""
    chosen = chosen_sources(recipe)
    configs = [
        registry.parse_source(json.dumps(source))
        for source in recipe["train"]["sources"]
        if source["kind"] in chosen
    ]
    return [
        Job(config, data, validation, folder, recipe["frozen"][config.kind])
        for config in in_order(configs)
    ]


def fitted_on(world: World, sources: list[str]) -> dict[str, dict[str, Any]]:
    """Part of a release -> the target events that it was fitted on."""
    edges = world.windows
    start, end = edges["retrieval_train"][0], edges["test"][1]

    def span(start: int, until: int, window: str) -> dict[str, Any]:
        first, last = np.searchsorted(world.time, [start, until])
        return {"events": int(last - first), "from": start, "until": until, "window": window}

    return {kind: span(start, end, "everything") for kind in sources} | {
        "ranker": span(
            edges["ranker_train"][0], edges["validation"][1], "ranker_train, validation"
        ),
        "profiles": span(*edges["retrieval_train"], "retrieval_train"),
        "vocabulary": span(start, end, "everything"),
    }
