"""Reasons for shown items: which sentence is chosen, and its wording."""

import numpy as np
import pyarrow as pa
import pytest

from models.recommend.explaining.explain import (
    JUST_ADDED,
    POPULAR,
    POPULAR_LATELY,
    TASTE,
    UNKNOWN_TASTE,
    Descriptions,
    Explainer,
    Wording,
)
from shortlist.contracts import EVENT_CODE
from shortlist.features.pack import ItemState
from shortlist.items.catalogue import Catalogue
from tests.models.small_data import catalogue_of, state_of

HISTORY = np.array([1, 2, 3, 0, 0])
WATCHED = np.where(HISTORY > 0, EVENT_CODE["watch"], 0)
NOBODY = np.zeros(3, dtype=np.int64)


class Together:
    """Stand-in for ItemKNN with given contributions: {candidate: one value per history item}."""

    def __init__(self, table: dict[int, list[float]]):
        self.table = table

    def contributions(self, history: np.ndarray, item_idx: np.ndarray) -> np.ndarray:
        assert (history > 0).all()
        none = [0.0] * len(history)
        rows = [self.table.get(item, none) for item in item_idx.tolist()]
        return np.array(rows, dtype=np.float32)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.from_items(
        pa.table(
            {
                "item_id": ["a", "b", "c", "d", "e", "f"],
                "title": ["Toy Story", "Heat", "Alien", "Up", "Big", None],
                "categories": [["Comedy"], ["Comedy", "Crime"], ["War"], ["Comedy"], ["Crime"], []],
                "available": [True] * 6,
            }
        )
    )


def counts(ever: list[int], lately: list[int] | None = None) -> ItemState:
    """Return item states with these event counts of each item, of all time and of yesterday.

    Without `lately`, all events are of yesterday.
    """
    state = state_of(np.array([0, *ever])).state
    state["item_day_counts"] = state["item_day_counts"] * 0
    state["item_day_counts"][:, -2] = [0, *(ever if lately is None else lately)]
    return ItemState(pack_id="test", as_of=0, state=state)


NOTHING_POPULAR = counts([3] * 6)


def explainer_of(catalogue: Catalogue, knn=None, items=NOTHING_POPULAR, **more) -> Explainer:
    return Explainer(catalogue, knn, items=items, **more)


def reason(explainer: Explainer, item: int, source: str, history=HISTORY, types=WATCHED) -> str:
    (sentence,) = explainer.reasons(history, types, [item], [source])
    assert explainer.reasons(history, types, [item], [source]) == [sentence]
    return sentence


def test_because_of_the_history_item_that_speaks_for_it(catalogue):
    explainer = explainer_of(catalogue, Together({4: [0.1, 0.7, 0.2], 5: [0.5, 0.1, 0.5]}))
    assert reason(explainer, 4, "ease") == "because you watched 'Heat'"
    # Of items with equal contributions, the newest is named.
    assert reason(explainer, 5, "sasrec") == "because you watched 'Alien'"


def test_an_untitled_item_of_the_history_is_called_by_its_id(catalogue):
    explainer = explainer_of(catalogue, Together({4: [1.0]}))
    assert reason(explainer, 4, "ease", np.array([6]), WATCHED[:1]) == "because you watched 'f'"


@pytest.mark.parametrize(
    ("event_type", "said"),
    [
        ("view", "viewed"),
        ("click", "clicked"),
        ("purchase", "bought"),
        ("rating", "rated"),
        ("watch", "watched"),
        ("like", "liked"),
    ],
)
def test_words_are_those_of_the_events(catalogue, event_type, said):
    types = np.where(HISTORY > 0, EVENT_CODE[event_type], 0)
    wording = Wording(target_events=(event_type,))
    knn = Together({4: [0.1, 0.7, 0.2], 6: [0.2, 0.2, 0.2], 5: [0.0, 0.0, 0.0]})
    explainer = explainer_of(catalogue, knn, wording=wording)
    assert reason(explainer, 4, "ease", types=types) == f"because you {said} 'Heat'"
    many = np.array([1, 3, 5] * 3)
    few = explainer_of(catalogue, Together({6: [0.2] * 9}), wording=wording)
    code = np.full(9, EVENT_CODE[event_type])
    assert reason(few, 6, "ease", many, code) == (
        f"people who {said} the same as you {said} it too"
    )
    none = explainer_of(catalogue, wording=wording)
    assert reason(none, 4, "ease", types=types) == f"like what you {said} last: Comedy"
    assert reason(none, 6, "sasrec", types=types) == f"expected next after what you {said} last"


def test_a_run_may_have_its_own_words(catalogue):
    wording = Wording(("watch",), {"watch": "listened to"})
    explainer = explainer_of(catalogue, Together({4: [0.1, 0.7, 0.2]}), wording=wording)
    assert reason(explainer, 4, "ease") == "because you listened to 'Heat'"


def test_mixed_or_unknown_events_have_no_verb(catalogue):
    explainer = explainer_of(catalogue, Together({4: [0.1, 0.7, 0.2]}))
    unknown = np.zeros(5, dtype=np.int64)
    assert reason(explainer, 4, "ease", types=unknown) == "because of 'Heat'"
    assert reason(explainer, 5, "gru", types=unknown) == "expected next after your latest items"
    mixed = np.array([EVENT_CODE["view"], EVENT_CODE["purchase"], EVENT_CODE["view"], 0, 0])
    assert reason(explainer, 4, "ease", types=mixed) == "because you bought 'Heat'"
    none = explainer_of(catalogue)
    assert reason(none, 4, "ease", types=mixed) == "like your latest items: Comedy"


def test_shared_categories_where_no_single_item_stands_out(catalogue):
    explainer = explainer_of(catalogue, Together({4: [0.0, 0.0, 0.0]}))
    # The last three items: two are Comedy, so it is named; War and Crime have only one each.
    assert reason(explainer, 4, "ease") == "like what you watched last: Comedy"
    many = explainer_of(catalogue, Together({4: [0.2] * 10}))
    history, types = np.array([1] * 10), np.full(10, EVENT_CODE["watch"])
    assert reason(many, 4, "ease", history, types) == "like what you watched last: Comedy"


def test_categories_in_order_of_frequency(catalogue):
    explainer = explainer_of(catalogue)
    most_crime, types = np.array([5, 5, 1]), np.full(3, EVENT_CODE["watch"])
    said = reason(explainer, 2, "ials", most_crime, types)
    assert said == "like what you watched last: Crime"  # Comedy: one of three, below the limit
    said = reason(explainer, 2, "ials", np.array([5, 1, 5, 4, 5]), np.full(5, EVENT_CODE["watch"]))
    assert said == "like what you watched last: Crime, Comedy"


def test_a_description_is_called_alike_only_if_few_are_more_alike():
    """Few items may be more similar to the named item than the recommended one is."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(41, 8))
    vectors[6] = vectors[2] + 0.1 * rng.normal(size=8)
    vectors[7] = -vectors[2]
    many = catalogue_of([[]] * 40)
    for known, new in ((vectors, None), (vectors[:6], vectors[6:])):
        explainer = explainer_of(
            many, items=counts([0] * 40), descriptions=Descriptions(known, new), num_known=5
        )
        title = many.titles[2]
        assert (
            reason(explainer, 6, "content", HISTORY[1:], WATCHED[1:]) == f"described like '{title}'"
        )
        assert reason(explainer, 7, "content", np.array([2]), WATCHED[:1]) == TASTE
        assert reason(explainer, 6, "ials", HISTORY[1:], WATCHED[1:]) == TASTE


def test_popularity_is_claimed_where_it_holds(catalogue):
    items = counts([90, 80, 4, 3, 3, 0], lately=[0, 9, 3, 1, 0, 0])
    explainer = explainer_of(catalogue, Together({1: [1.0, 0], 2: [1.0, 0]}), items)
    other = {"history": np.array([3, 5]), "types": WATCHED[:2]}
    assert reason(explainer, 2, "recent_popularity", **other) == POPULAR_LATELY
    assert reason(explainer, 2, "popularity", **other) == POPULAR
    assert reason(explainer, 1, "recent_popularity", **other) == POPULAR  # few recent events
    explainer = explainer_of(catalogue, None, items)
    # Popularity sources may fill lists with unpopular items, which must not be called popular.
    for source in ("popularity", "recent_popularity"):
        assert reason(explainer, 6, source) == TASTE
        assert reason(explainer, 6, source, NOBODY, NOBODY) == UNKNOWN_TASTE
        assert reason(explainer, 4, source) == "like what you watched last: Comedy"
    newer = explainer.with_items(counts([90, 80, 4, 3, 3, 99], lately=[0, 0, 0, 0, 0, 99]))
    assert reason(newer, 6, "recent_popularity") == POPULAR_LATELY
    assert reason(newer, 2, "recent_popularity", **other) == POPULAR


@pytest.mark.parametrize("everywhere", [0, 1, 2, 50])
def test_where_all_are_alike_none_is_popular(catalogue, everywhere):
    """If all items have the same number of events, no item is called popular."""
    explainer = explainer_of(catalogue, items=counts([everywhere] * 6))
    assert reason(explainer, 6, "recent_popularity", NOBODY, NOBODY) == UNKNOWN_TASTE


def test_somebody_without_a_history(catalogue):
    items = counts([90, 80, 4, 3, 3, 0], lately=[0, 9, 3, 1, 0, 0])
    explainer = explainer_of(catalogue, Together({}), items)
    assert reason(explainer, 2, "sasrec", NOBODY, NOBODY) == POPULAR_LATELY
    assert reason(explainer, 6, "sasrec", NOBODY, NOBODY) == UNKNOWN_TASTE
    assert reason(explainer, 6, "new", NOBODY, NOBODY) == JUST_ADDED


def test_what_somebody_comes_back_for(catalogue):
    """An item of the user's own history gets the reason "you watched it before"."""
    explainer = explainer_of(
        catalogue, Together({2: [0.1, 0.7, 0.2]}), counts([90, 80, 4, 3, 3, 0])
    )
    for source in ("personal", "recent_popularity", "ease"):
        assert reason(explainer, 2, source) == "you watched it before"
    assert reason(explainer, 2, "ease", types=np.zeros(5, dtype=np.int64)) == "you had it before"


def test_one_sentence_an_item(catalogue):
    """There is one sentence per item."""
    explainer = explainer_of(catalogue)
    assert len(explainer.reasons(HISTORY, WATCHED, [4, 5, 6], ["ease", "popularity", "gru"])) == 3
    assert explainer.reasons(HISTORY, WATCHED, [], []) == []
