"""The loaded release (set of models) of a worker, with all objects that depend on it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shortlist.behaviour.shown_items import ShownItems
from shortlist.config import Explore
from shortlist.feature_store import FeatureReader
from shortlist.features.pack import FeaturePack
from shortlist.http.api import RecommendRequest
from shortlist.http.rule_config import RulesInForce
from shortlist.ids import seed_of
from shortlist.releases.release import Release

if TYPE_CHECKING:
    from models.recommend.recommender import Recommender
    from models.recommend.slate import Slate
    from models.recommend.stages import StageHealth


@dataclass(frozen=True)
class Serving:
    """A loaded release. A request reads it once, at its start; a swap replaces it as a whole."""

    recommender: "Recommender"

    @classmethod
    def load(
        cls,
        release: Release,
        reader: FeatureReader,
        *,
        pack: FeaturePack,
        health: "StageHealth",
        budget: float,
        rules: RulesInForce | None = None,
        shown: ShownItems | None = None,
    ) -> "Serving":
        """Load a verified release.

        Args:
            pack: the feature pack: item features and current catalogue.
            health: record of the stages that are switched off, for all requests of this worker.
            budget: seconds after the start of a request within which each of its stages must start.
            rules: business rules that apply to all requests of this worker.
            shown: items that were shown to users, for rules of the type `not_shown`.

        Raises:
            ReleaseError: the release was trained on other features than this code computes.
            PackError: the pack was made for other features than this code computes.
        """
        # Imported here because BentoML's supervisor imports this module too and doesn't need torch.
        from models.recommend.recommender import Recommender

        return cls(
            recommender=Recommender.load(
                release, reader, pack=pack, health=health, budget=budget, rules=rules, shown=shown
            )
        )

    @property
    def release_id(self) -> str:
        return self.recommender.release_id

    def recommend(
        self, request: RecommendRequest, *, at: int, request_id: str, explore: Explore | None
    ) -> "Slate":
        """Answer a request as of `at`; the seed of exploration is a hash of `request_id`."""
        from models.recommend.exploring.exploration import Exploration

        exploration = Exploration(explore, seed=seed_of(request_id)) if explore else None
        return self.recommender.recommend(request, at=at, exploration=exploration)

    def warm(self, user_ids: Iterable[str], *, at: int) -> None:
        """Answer a few requests before serving, without a time budget.

        Some parts are only loaded or compiled at first use. A release that can't answer fails here,
        before a client is affected.

        Args:
            user_ids: users to recommend to, beside unknown visitors.
            at: time of the requests in microseconds.
        """
        recommender = self.recommender
        some_items = recommender.catalogue.vocab.ids[:5]
        budget, recommender.budget = recommender.budget, float("inf")
        try:
            recommender.recommend(RecommendRequest(recent_items=[]), at=at)
            recommender.recommend(RecommendRequest(recent_items=list(some_items)), at=at)
            for user_id in user_ids:
                recommender.recommend(RecommendRequest(user_id=user_id), at=at)
        finally:
            recommender.budget = budget
