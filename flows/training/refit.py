"""Refits a chain's sources on more data, with the choices made on validation (such as epochs).

The chain combines sources (models that retrieve candidates) and a ranker. The ranker is trained
with sources fitted on the first window only. For the test window, the same sources are refitted on
everything before it; for the release they are refitted on all data of the run.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import model_validator

from flows.runtime.configuration import RunConfig
from flows.training.assemble import RunData
from flows.training.sources import Job, in_order
from models.data import TrainingData, Validation
from models.ranking.blend import BlendConfig
from models.ranking.registry import RankerConfig
from models.ranking.stack import StackConfig
from models.recommend.chain import ChainConfig
from models.recommend.cold_start.new_items import AUDIENCE, CONTENT
from models.recommend.rerank.config import vector_source
from models.registry import SourceConfig
from shortlist.config import Config

EXPLAINING = ("item_knn", "content", "audience", "two_tower")
"""Sources used by `/similar`, by the reasons shown with recommendations, and for new items.

A release includes them even if its chain doesn't.
"""


class Recipe(Config):
    """Everything that is needed to fit the same chain on other data.

    It consists of configs, the chain's composition, and the choices made on validation. Sources and
    rankers that were removed on validation are not part of it.
    """

    sources: tuple[SourceConfig, ...]
    """The chain's sources, and those in EXPLAINING if the run has them; in the run's order."""
    rankers: tuple[RankerConfig, ...]
    """The chosen ranker and, if it is a blend or a stack, its members."""
    chain: ChainConfig
    ranker: str | None
    frozen: dict[str, dict[str, Any]]
    """Source -> the choices of validation: number of epochs, or one value of each grid."""

    @classmethod
    def of(
        cls,
        config: RunConfig,
        *,
        chain: dict[str, Any],
        ranker: str | None,
        frozen: dict[str, dict[str, Any]],
    ) -> "Recipe":
        """Return the recipe of a run, from its config and the choices of validation.

        Args:
            chain: config of the chosen chain, as in the manifest.
            ranker: type of the chosen ranker; None for reciprocal rank fusion.
            frozen: source -> its choices, for all sources of the run.
        """
        used = {*chain["candidate_sources"], *chain["score_sources"], *EXPLAINING}
        sources = tuple(source for source in config.train.sources if source.kind in used)
        members = {ranker}
        for tried in config.rankers:
            if tried.kind == ranker and isinstance(tried, BlendConfig | StackConfig):
                members |= set(tried.members)
        return cls(
            sources=sources,
            rankers=tuple(tried for tried in config.rankers if tried.kind in members),
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
        """Sources whose candidates, scores or vectors the chain uses.

        CONTENT and AUDIENCE are among them if the chain keeps positions for new items.
        """
        used = {*self.chain.candidate_sources, *self.chain.score_sources}
        used.add(vector_source(self.chain.rerank) or "")
        if self.chain.new_items is not None and self.chain.new_items.share > 0:
            used |= {AUDIENCE, CONTENT}
        return [source for source in self.sources if source.kind in used]

    @property
    def hash(self) -> str:
        """Hash of the configuration that determines the chain's lists.

        The choices in `frozen` are not included, because they also depend on the data.
        """
        parts = [part.model_dump_json() for part in (*self.in_chain, *self.rankers)]
        # The weights of searches don't affect the lists of `/recommend`.
        parts.append(self.chain.model_dump_json(exclude={"search"}))
        text = "\n".join([*parts, str(self.ranker)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Return the recipe for the manifest, with its `hash` for human readers."""
        return {"hash": self.hash} | self.model_dump(mode="json")

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Recipe":
        """Parse a recipe from a manifest.

        Raises:
            pydantic.ValidationError: this version can't read a part of it.
        """
        return cls.model_validate({key: content[key] for key in content if key != "hash"})


def refit_jobs(
    sources: Sequence[SourceConfig],
    data: TrainingData,
    validation: Validation,
    folder: Path,
    *,
    frozen: dict[str, dict[str, Any]],
) -> list[Job]:
    """Return jobs that fit sources on `data` with frozen choices and save them in `folder`."""
    return [
        Job(config, data, validation, folder, frozen[config.kind]) for config in in_order(sources)
    ]


def refit_figures(refitted: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the manifest's `refit`: seconds of each source, and recall of each vector index.

    Args:
        refitted: {source: figures of its fit on all data}.
    """
    return {
        key: {source: figure[key] for source, figure in refitted.items() if key in figure}
        for key in ("seconds", "index_recall@100")
    }


def trained_on(data: TrainingData) -> dict[str, int]:
    """Return the number of items, users and events of a release's training data."""
    return {"items": data.num_items, "users": data.num_users, "events": len(data.item_idx)}


def fitted_on(run_data: RunData, sources: list[str]) -> dict[str, dict[str, Any]]:
    """Return {part of a release: the time span and number of target events it was fitted on}."""
    edges = run_data.windows
    start, end = edges["retrieval_train"][0], edges["test"][1]

    def span(start: int, until: int, window: str) -> dict[str, Any]:
        first, last = np.searchsorted(run_data.time, [start, until])
        return {"events": int(last - first), "from": start, "until": until, "window": window}

    return {source_type: span(start, end, "everything") for source_type in sources} | {
        "ranker": span(
            edges["ranker_train"][0], edges["validation"][1], "ranker_train, validation"
        ),
        "profiles": span(*edges["retrieval_train"], "retrieval_train"),
        "vocabulary": span(start, end, "everything"),
    }
