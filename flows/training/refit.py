"""Fit a chain's sources again on more data, with everything that validation chose frozen.

The ranker learns from sources that were fitted on the first window only. The test window judges the
same recipe fitted on everything before it, and the release contains the recipe fitted to the end of
the run's data.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import model_validator

from flows.runtime.configuration import RunConfig
from flows.training.assemble import World
from flows.training.sources import Job, in_order
from models.data import TrainingData, Validation
from models.ranking.registry import RankerConfig
from models.recommend.chain import ChainConfig
from models.registry import SourceConfig
from shortlist.config import Config

EXPLAINING = ("item_knn", "content", "two_tower")
"""Sources that `/similar` and reasons read, so a release has them even if its chain does not."""


class Recipe(Config):
    """Configuration, composition and choices: all that is needed to fit the same chain on other
    data. What a run tried and left out is no part of it.
    """

    sources: tuple[SourceConfig, ...]
    """Those that the chain uses, and EXPLAINING if the run has them; in the order of the run."""
    rankers: tuple[RankerConfig, ...]
    """The chosen one, and those that it mixes."""
    chain: ChainConfig
    ranker: str | None
    frozen: dict[str, dict[str, Any]]
    """Source -> what validation chose: epochs, or one value of each grid."""

    @classmethod
    def of(
        cls,
        config: RunConfig,
        *,
        chain: dict[str, Any],
        ranker: str | None,
        frozen: dict[str, dict[str, Any]],
    ) -> "Recipe":
        """The recipe of a run.

        Args:
            chain, ranker: what validation has chosen, as in the manifest.
            frozen: the choices of every source that the run has tried.
        """
        used = {*chain["candidate_sources"], *chain["score_sources"], *EXPLAINING}
        sources = tuple(source for source in config.train.sources if source.kind in used)
        members = {ranker}
        for tried in config.train.rankers:
            if tried.kind == ranker == "blend":
                members |= set(tried.members)
        return cls(
            sources=sources,
            rankers=tuple(tried for tried in config.train.rankers if tried.kind in members),
            chain=ChainConfig.model_validate(chain),
            ranker=ranker,
            frozen={source.kind: frozen[source.kind] for source in sources},
        )

    @model_validator(mode="after")
    def _complete(self) -> "Recipe":
        ready = {source.kind for source in self.sources} & self.frozen.keys()
        ready |= {ranker.kind for ranker in self.rankers}
        wanted = {*self.chain.candidate_sources, *self.chain.score_sources}
        if self.ranker is not None:
            wanted.add(self.ranker)
        if missing := wanted - ready:
            raise ValueError(f"no configuration or no choices of {', '.join(sorted(missing))}")
        return self

    @property
    def in_chain(self) -> list[SourceConfig]:
        """Sources whose candidates or scores the chain reads."""
        used = {*self.chain.candidate_sources, *self.chain.score_sources}
        return [source for source in self.sources if source.kind in used]

    @property
    def hash(self) -> str:
        """Tells recipes apart by what decides the chain's lists. Frozen choices depend on the data
        too, so they don't count.
        """
        parts = (*self.in_chain, *self.rankers, self.chain)
        text = "\n".join([*(part.model_dump_json() for part in parts), str(self.ranker)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """For the manifest; `hash` is for readers."""
        return {"hash": self.hash} | self.model_dump(mode="json")

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Recipe":
        """Raises pydantic.ValidationError: this version doesn't know one of its parts."""
        return cls.model_validate({key: content[key] for key in content if key != "hash"})


def refit_jobs(
    sources: Sequence[SourceConfig],
    data: TrainingData,
    validation: Validation,
    folder: Path,
    *,
    frozen: dict[str, dict[str, Any]],
) -> list[Job]:
    """Sources on `data` with frozen choices, to be saved in `folder`."""
    return [
        Job(config, data, validation, folder, frozen[config.kind]) for config in in_order(sources)
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
