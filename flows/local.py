"""The promoted Recommender in this process: `shortlist recommend` needs no server."""

import time

from models.recommend.recommender import Recommender
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
    """'Now' in microseconds: the wall's, or the data's own end under the replay clock."""
    clock = Settings().clock or recommender.about["clock"]
    if clock == "replay":
        return int(recommender.about["data_end"])
    return time.time_ns() // 1_000
