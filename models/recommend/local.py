"""Loads a Recommender in this process, so that `shortlist recommend` needs no server."""

from models.recommend.recommender import Recommender
from shortlist.behaviour.shown_items import ShownItems
from shortlist.config import Settings
from shortlist.feature_store import OnlineReader, home_clock, latest_pack
from shortlist.http.rule_config import RulesInForce, load_rules
from shortlist.items.commands import CommandInbox
from shortlist.releases.release import ReleaseStore


def local_recommender(release_id: str | None = None) -> Recommender:
    """Load a release in the same way as the service does.

    The Recommender reads the online store, the newest feature pack (current item features), posted
    changes of items, and the home's business rules. The home is the folder of the deployment.

    Args:
        release_id: id of the release; None: the promoted release.

    Raises:
        ReleaseError, FeatureStoreError, PackError, ConfigError: a part is missing or invalid; the
            message says what to do.
    """
    settings = Settings()
    release = ReleaseStore(settings.releases).open(release_id)
    pack = latest_pack(settings.packs)
    return Recommender.load(
        release,
        OnlineReader(settings),
        pack=pack.with_commands(CommandInbox.of(settings).after(pack.commands)),
        rules=RulesInForce(load_rules(settings.rules)),
        shown=ShownItems.of(settings),
    )


def now_of(recommender: Recommender) -> int:
    """Return the current time in microseconds, by the home's clock.

    In a demo with an old data set, this clock is not the wall clock.
    """
    about = recommender.about
    return home_clock(Settings(), about["clock"], otherwise=about["data_end"]).now()
