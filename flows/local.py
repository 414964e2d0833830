"""The promoted Recommender in this process: `shortlist recommend` needs no server."""

from models.recommend.recommender import Recommender
from shortlist.clock import HomeClock
from shortlist.config import Settings
from shortlist.feature_store import OnlineReader, latest_pack
from shortlist.release import ReleaseStore


def local_recommender(release_id: str | None = None) -> Recommender:
    """Load a release with the online store and the newest pack, as the service does.

    Raises:
        ReleaseError, FeatureStoreError, PackError: with the command that mends it.
    """
    settings = Settings()
    release = ReleaseStore(settings.releases).open(release_id)
    return Recommender.load(release, OnlineReader(settings), pack=latest_pack(settings.packs))


def now_of(recommender: Recommender) -> int:
    """'Now' in microseconds, by the home's clock."""
    settings, about = Settings(), recommender.about
    return HomeClock(settings, settings.clock or about["clock"], start=about["data_end"]).now()
