"""Conditions of business rules, compared with the same conditions in plain Python; and properties
of lists under any rules.
"""

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.recommend.business_rules.compiled import Cap
from models.recommend.business_rules.conditions import ALL, compile_conditions
from models.recommend.business_rules.item_columns import Codes, ItemColumns
from models.recommend.business_rules.missing import WINDOW, missing_for_caps
from models.recommend.rules import blocked_items
from shortlist.http.api import Filters
from shortlist.http.rule_config import Condition, RuleSet
from tests.models.recommenders import AT
from tests.models.rule_shop import CATALOGUE, LONG_AGO, NOW, NUM, ask, item, make, numbers, where


@pytest.mark.parametrize(
    ("condition", "matches"),
    [
        ({"attribute": "brand", "equals": "bolt"}, lambda i: i["brand"] == "bolt"),
        (
            {"attribute": "brand", "any_of": ["bolt", "core"]},
            lambda i: i["brand"] in ("bolt", "core"),
        ),
        ({"attribute": "brand", "none_of": ["bolt"]}, lambda i: i["brand"] != "bolt"),
        ({"attribute": "brand", "equals": "nobody"}, lambda i: False),
        ({"attribute": "categories", "equals": "a"}, lambda i: "a" in i["categories"]),
        ({"attribute": "categories", "none_of": ["a", "z"]}, lambda i: "a" not in i["categories"]),
        ({"attribute": "price", "at_most": 10}, lambda i: (i["price"] or 99) <= 10),
        ({"attribute": "price", "equals": 9}, lambda i: i["price"] == 9),
        (
            {"attribute": "price", "at_least": 4, "at_most": 6},
            lambda i: i["price"] is not None and 4 <= i["price"] <= 6,
        ),
        ({"attribute": "item_id", "any_of": ["i09", "no"]}, lambda i: i["item_id"] == "i09"),
        (
            {"attribute": "attributes.supplier", "equals": "x"},
            lambda i: dict(i["attributes"]).get("supplier") == "x",
        ),
        (
            {"attribute": "attributes.stock", "at_least": 30},
            lambda i: float(dict(i["attributes"]).get("stock", 0)) >= 30,
        ),
        ({"attribute": "attributes.nothing", "none_of": ["x"]}, lambda i: True),
        (
            {"attribute": "published_at", "within_days": 5},
            lambda i: (i["published_at"] or LONG_AGO) >= NOW - timedelta(days=5),
        ),
        (
            {"attribute": "published_at", "at_least": (NOW - timedelta(days=9)).isoformat()},
            lambda i: (i["published_at"] or LONG_AGO) >= NOW - timedelta(days=9),
        ),
    ],
    ids=lambda part: str(part) if isinstance(part, dict) else "",
)  # fmt: skip
def test_conditions(condition, matches) -> None:
    match = compile_conditions([Condition.model_validate(condition)], ItemColumns(CATALOGUE))
    want = [n for n in range(1, NUM + 1) if matches(item(n))]
    found = match(ALL, AT)
    assert np.flatnonzero(found[1:]).tolist() == [n - 1 for n in want]
    some = np.array([40, 3, 9, 9, 30])
    assert match(some, AT).tolist() == found[some].tolist()


def test_a_date_after_the_request_is_not_within_the_last_days() -> None:
    match = compile_conditions(
        [Condition(attribute="published_at", within_days=60)], ItemColumns(CATALOGUE)
    )
    early = AT - 30 * 86_400_000_000
    assert 0 < match(ALL, early).sum() < match(ALL, AT).sum()


ids = st.integers(1, NUM).map(lambda n: f"i{n:02d}")
conditions = st.one_of(
    st.sampled_from(["acme", "bolt", "none such"]).map(lambda b: where("brand", equals=b)),
    st.integers(1, NUM).map(lambda n: where("price", at_least=n)),
    st.integers(1, NUM).map(lambda n: where("published_at", within_days=n)),
    st.sampled_from(["a", "b"]).map(lambda name: where("categories", none_of=[name])),
)


def named(kind: str, **fields):
    rule = st.fixed_dictionaries(fields)
    return st.lists(rule, max_size=2).map(
        lambda rules: [rule | {"name": f"{kind} {n}"} for n, rule in enumerate(rules)]
    )


rule_sets = st.fixed_dictionaries(
    {
        "filter": named("filter", drop=conditions),
        "exclude": named("exclude", item_ids=st.lists(ids, max_size=20)),
        "pin": named("pin", item_id=ids, position=st.integers(1, 15), even_if_seen=st.booleans()),
        "boost": named("boost", where=conditions, places=st.integers(1, 30)),
        "bury": named("bury", where=conditions, places=st.integers(1, 30)),
        "cap": named("cap", by=st.sampled_from(["brand", "categories"]),
                     at_most=st.integers(0, 3), first=st.integers(1, 12)),
        "quota": named("quota", at_least=st.integers(1, 3), first=st.integers(3, 12),
                       where=conditions),
    }
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rule_sets, st.integers(1, 15), st.sampled_from([None, 20.0, 3.0]))
def test_any_rules_give_full_lists_of_allowed_items(rules, k, max_price) -> None:
    recommender = FOR_PROPERTIES
    compiled = recommender.view.rules(RuleSet.model_validate(rules))
    filters = Filters(max_price=max_price)
    blocked = blocked_items(CATALOGUE, filters=filters)
    compiled.block(blocked, at=AT)
    blocked[3] = True  # refused
    may_pin = {
        int(pin["item_id"][1:])
        for pin in rules["pin"]
        if pin["even_if_seen"] and pin["position"] <= k
    }
    allowed = set(np.flatnonzero(~blocked)) - ({1, 2} - may_pin)
    slate = ask(recommender, rules, k=k, user="u", filters=filters.model_dump())
    shown = numbers(slate)
    assert slate.skipped_stages == []
    assert len(shown) == len(set(shown))
    assert set(shown) <= allowed
    assert min(k, len(allowed - {1, 2})) <= len(shown) <= min(k, len(allowed))


FOR_PROPERTIES = make()


def test_items_that_are_added_for_a_cap_come_once() -> None:
    """The second round of `missing_for_caps` doesn't add what the first one added."""
    num_popular = WINDOW * 4
    brands = np.array([0, *[1] * (num_popular - 1), 2, 3, 4, 5])  # row 0 is padding
    cap = Cap("two of a brand", at_most=2, first=4, by=Codes(brands[:, None], int, 5), match=None)
    added = missing_for_caps(
        [cap],
        np.empty(0, dtype=np.int64),
        allowed=brands > 0,
        popularity=np.arange(len(brands), 0, -1, dtype=np.float32),
        k=4,
        at=AT,
    )
    assert len(added) == len(set(added.tolist())) == 4
    assert sorted(brands[added]) == [1, 1, 2, 3]
