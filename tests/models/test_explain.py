"""Why an item is shown: each kind of reason, and that it is always the same."""

import numpy as np
import pyarrow as pa
import pytest

from models.recommend.explain import NEWCOMER, Explainer
from shortlist.catalogue import Catalogue

HISTORY = np.array([1, 2, 3, 0, 0])


class Together:
    """An item-item model whose contributions are given: candidate -> one figure a history item."""

    def __init__(self, table: dict[int, list[float]]):
        self.table = table

    def contribution(self, history: np.ndarray, item_idx: int) -> np.ndarray:
        assert (history > 0).all()
        return np.array(self.table.get(item_idx, [0.0] * len(history)), dtype=np.float32)


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


def reason(explainer: Explainer, history: np.ndarray, item: int, source: str) -> str:
    (sentence,) = explainer.reasons(history, [item], [source])
    assert explainer.reasons(history, [item], [source]) == [sentence]
    return sentence


def test_because_of_the_history_item_that_speaks_for_it(catalogue):
    explainer = Explainer(catalogue, Together({4: [0.1, 0.7, 0.2], 5: [0.5, 0.1, 0.5]}))
    assert reason(explainer, HISTORY, 4, "ease") == "because you watched 'Heat'"
    # Of equal contributions the newest is named.
    assert reason(explainer, HISTORY, 5, "sasrec") == "because you watched 'Alien'"


def test_an_untitled_item_of_the_history_is_called_by_its_id(catalogue):
    explainer = Explainer(catalogue, Together({4: [1.0]}))
    assert reason(explainer, np.array([6]), 4, "ease") == "because you watched 'f'"


def test_shared_categories_where_no_single_item_stands_out(catalogue):
    explainer = Explainer(catalogue, Together({4: [0.0, 0.0, 0.0]}))
    # Lately: Comedy 2 of 3; War and Crime are too rare to be named.
    assert reason(explainer, HISTORY, 4, "ease") == "like what you watched lately: Comedy"
    many = Explainer(catalogue, Together({4: [0.2] * 10}))
    history = np.array([1] * 10)
    assert reason(many, history, 4, "ease") == "like what you watched lately: Comedy"


def test_categories_in_order_of_frequency(catalogue):
    explainer = Explainer(catalogue, None)
    both = np.array([5, 2, 2])
    assert reason(explainer, both, 2, "ials") == "like what you watched lately: Crime, Comedy"


def test_the_source_speaks_where_nothing_else_does(catalogue):
    explainer = Explainer(catalogue, None)
    assert reason(explainer, HISTORY, 6, "sasrec") == (
        "often comes next after what you watched lately"
    )
    assert reason(explainer, HISTORY, 6, "ials") == "people like you watched it"
    assert reason(explainer, HISTORY, 6, "content") == "its description is like what you watched"


def test_popularity_is_called_popularity(catalogue):
    explainer = Explainer(catalogue, Together({4: [1.0, 0, 0]}))
    assert reason(explainer, HISTORY, 4, "recent_popularity") == "popular lately"
    assert reason(explainer, HISTORY, 4, "popularity") == "popular with everybody"


def test_somebody_without_a_history(catalogue):
    explainer = Explainer(catalogue, Together({}))
    nobody = np.zeros(3, dtype=np.int64)
    assert reason(explainer, nobody, 4, "recent_popularity") == "popular lately"
    assert reason(explainer, nobody, 4, "sasrec") == NEWCOMER


def test_one_sentence_an_item(catalogue):
    explainer = Explainer(catalogue, None)
    assert len(explainer.reasons(HISTORY, [4, 5, 6], ["ease", "popularity", "gru"])) == 3
    assert explainer.reasons(HISTORY, [], []) == []
