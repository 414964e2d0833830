"""Every feature has exactly one description, and every description has a feature."""

from cli.show_features import html_page
from models.ranking.features.cross import CROSS
from models.ranking.features.histories import HISTORY
from models.ranking.features.searches import SEARCH
from models.ranking.features.sources import MERGE, SOURCE
from shortlist.features import descriptions as d
from shortlist.features.finalize import CONTEXT_FEATURES, ITEM_FEATURES, USER_FEATURES
from shortlist.features.profiles import PLACES


def test_the_descriptions_are_of_the_features_in_their_order() -> None:
    wanted = {
        "user": USER_FEATURES,
        "context": CONTEXT_FEATURES,
        "place": tuple(f"request_{name}" for name in PLACES),
        "item": ITEM_FEATURES,
        "history": tuple(HISTORY),
        "cross": tuple(CROSS),
        "search": tuple(SEARCH),
        "source": tuple(SOURCE),
        "merge": tuple(MERGE),
    }
    got = {group.name: tuple(feature.name for feature in group.features) for group in d.GROUPS}
    assert got == wanted


def test_each_says_what_it_means_and_the_page_shows_it() -> None:
    """Every feature has a meaning, a window, a default and an owner, and is on the page."""
    page = html_page(d.described())
    for group in d.GROUPS:
        for feature in group.features:
            assert all((feature.meaning, feature.window, feature.default, feature.owner))
            assert f"<td>{feature.name}</td>" in page
    assert "http" not in page
