"""Hard rules (availability, filters, exclusions) on a catalogue of four items."""

import ast
import hashlib
import inspect

import numpy as np
import pyarrow as pa
import pytest

from models.recommend import rules
from models.recommend.rules import RULES_VERSION, blocked_items, seen_items
from shortlist.behaviour.repeats import too_soon
from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.contracts import ITEMS, TIMESTAMP
from shortlist.http.api import Filters
from shortlist.items.catalogue import Catalogue


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.from_items(
        pa.table(
            {
                "item_id": ["a", "b", "c", "d"],
                "title": ["A", "B", "C", "D"],
                "description": pa.nulls(4, pa.string()),
                "categories": [["Comedy"], ["Comedy", "War"], [], ["Drama"]],
                "brand": pa.nulls(4, pa.string()),
                "price": [1.0, 20.0, None, 5.0],
                "published_at": pa.array([100 * DAY, 200 * DAY, None, 300 * DAY], pa.int64()).cast(
                    TIMESTAMP
                ),
                "available": [True, True, True, False],
                "image": pa.nulls(4, pa.string()),
                "attributes": pa.nulls(4, ITEMS.field("attributes").type),
                "updated_at": pa.nulls(4, TIMESTAMP),
            },
            schema=ITEMS,
        )
    )


def allowed(catalogue: Catalogue, **rules) -> str:
    """Return the concatenated ids of the items that may be shown."""
    blocked = blocked_items(catalogue, **rules)
    assert blocked.shape == (5,)
    assert blocked.dtype == bool
    assert blocked[0]
    return "".join(catalogue.vocab.decode(np.flatnonzero(~blocked)))


def test_unavailable_items_are_never_shown(catalogue):
    assert allowed(catalogue) == "abc"
    assert allowed(catalogue, filters=Filters(categories=["Drama"])) == ""


@pytest.mark.parametrize(
    ("filters", "want"),
    [
        (Filters(categories=["War"]), "b"),
        (Filters(categories=["Comedy", "War"]), "ab"),
        (Filters(categories=["No such"]), ""),
        (Filters(categories=[]), "abc"),
        (Filters(exclude_categories=["War"]), "ac"),
        (Filters(exclude_categories=["No such"]), "abc"),
        (Filters(categories=["Comedy"], exclude_categories=["War"]), "a"),
        (Filters(max_price=1.0), "a"),
        (Filters(max_price=0.5), ""),
        (Filters(published_after=150 * DAY), "b"),
        (Filters(published_after=200 * DAY), "b"),
        (Filters(published_after=201 * DAY), ""),
        (Filters(categories=["Comedy"], max_price=30.0, published_after=50 * DAY), "ab"),
    ],
)
def test_filters(catalogue, filters, want):
    assert allowed(catalogue, filters=filters) == want


def test_exclude_by_id_and_seen_by_index(catalogue):
    assert allowed(catalogue, exclude=["a", "nobody knows it"]) == "bc"
    assert allowed(catalogue, seen=np.array([1, 3, 3])) == "b"
    assert allowed(catalogue, seen=np.array([], dtype=np.int64)) == "abc"


def test_changing_the_returned_mask_changes_nothing_else(catalogue):
    blocked_items(catalogue)[:] = True
    assert allowed(catalogue) == "abc"


def test_a_catalogue_without_categories_or_prices():
    bare = Catalogue.from_items(
        pa.table(
            {
                "item_id": ["a"],
                "categories": pa.array([[]], pa.list_(pa.string())),
                "available": [True],
            }
        )
    )
    assert not blocked_items(bare)[1]
    assert blocked_items(bare, filters=Filters(categories=["War"]))[1]
    assert not blocked_items(bare, filters=Filters(exclude_categories=["War"]))[1]
    assert blocked_items(bare, filters=Filters(max_price=1.0))[1]
    assert blocked_items(bare, filters=Filters(published_after=DAY))[1]


CODE_OF_VERSION = {"1": "a44a698948dad9db"}
"""{version: hash of the rules' code}. Keep the old entries."""


def code_hash() -> str:
    """Return a hash of the rule functions, without docstrings, comments and formatting."""
    code = ""
    for function in (blocked_items, rules._apply_filters, rules._has_any, seen_items, too_soon):
        (tree,) = ast.parse(inspect.getsource(function)).body
        assert isinstance(tree, ast.FunctionDef)
        if ast.get_docstring(tree) is not None:
            del tree.body[0]
        code += ast.unparse(tree)
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def test_a_change_of_the_rules_raises_their_version():
    assert CODE_OF_VERSION.get(RULES_VERSION) == code_hash(), (
        "the rules' code changed: raise RULES_VERSION in models/recommend/rules.py and add"
        f' "{code_hash()}" as the code of the new version to CODE_OF_VERSION'
    )
    assert int(RULES_VERSION) == len(CODE_OF_VERSION)
